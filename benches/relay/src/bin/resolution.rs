//! Measures how long it takes to resolve a feature among a thousand models, and counts the allocations.
//!
//! This is a program of its own because counting slows every allocation a little.

use std::{collections::HashMap, sync::Arc};

use allocation_counter::measure;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use switchboard::{
    catalogue::Catalogue,
    digest::{ChainDigest, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{FeatureName, IncarnationId, ModelName, Revision, StoreId},
    pb::registry,
    resource::{
        feature::{RuleId, RuleMatch},
        model::ModelSpec,
    },
};
use switchboard_router::{
    catalog::{Caller, Catalog, CompiledModel, CompiledRule, CompiledSetting, ModelState},
    current::Current,
};
use tokio::time::Instant;

const MODELS: usize = 1000;
const ROUNDS: usize = 200_000;
/// A feature with rules, and an unassigned feature whose parent it is.
const PARENT: &str = "duo_chat";
const FEATURE: &str = "duo_chat_explain_code";

#[expect(clippy::print_stdout, reason = "the program's purpose is to print the figures")]
fn main() -> Result<()> {
    let current = Current::default();
    current.swap(Arc::new(catalog()?));
    let resolve = || -> bool {
        let Some(catalog) = current.load() else {
            return false;
        };
        let caller = Caller {
            request_id: Some("0123456789abcdef"),
            ..Caller::default()
        };
        let decision = catalog.resolve(FEATURE, &caller);
        decision.is_ok_and(|decision| catalog.candidates(&decision).any(|candidate| candidate.model.is_ok()))
    };
    ensure!(resolve(), "the feature resolves to no model");

    let mut taken = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        std::hint::black_box(resolve());
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    let allocations = measure(|| {
        std::hint::black_box(resolve());
    });
    let at = |percent: usize| taken.get(ROUNDS * percent / 100).map(|taken| taken.as_secs_f64() * 1e6);
    println!(
        "{}",
        json!({"p50_us": at(50), "p99_us": at(99), "allocations": allocations.count_total})
    );
    Ok(())
}

/// Builds a catalog with a thousand models, and with a feature whose ten rules do not match.
fn catalog() -> Result<Catalog> {
    let name = |place: usize| ModelName::from_id(&format!("model-{place}"));
    let mut models = HashMap::new();
    for place in 0..MODELS {
        let message = registry::Model {
            display_name: Some(format!("CompiledModel {place}")),
            family: Some("llama3".to_owned()),
            identifier: Some(format!("model-{place}")),
            endpoint: Some("http://127.0.0.1:8000/v1".to_owned()),
            ..Default::default()
        };
        let spec = ModelSpec::whole(message).ok().context("the model is not valid")?;
        let model = CompiledModel::new(name(place)?, Arc::new(spec), None);
        models.insert(model.name.clone(), ModelState::Ready(Arc::new(model)));
    }
    let mut features = HashMap::new();
    for feature in Catalogue::get().features() {
        features.insert(feature.name.clone(), CompiledSetting::from(name(features.len())?));
    }
    let mut setting = CompiledSetting::from(name(MODELS / 2)?);
    if let CompiledSetting::SelfHosted(assignment) = &mut setting {
        let assignment = Arc::make_mut(assignment);
        for place in 0..10 {
            assignment.rules.push(CompiledRule {
                id: RuleId::parse(&format!("rule-{place}"))?,
                condition: (&RuleMatch::new(vec![place.to_string().into()], vec![], vec![], None)?).into(),
                model: name(place)?,
            });
        }
    }
    features.insert(FeatureName::from_id(PARENT)?, setting);
    features.insert(FeatureName::from_id(FEATURE)?, CompiledSetting::Unassigned);
    Ok(Catalog {
        cursor: Cursor {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            revision: Revision::new(1).context("the revision is not valid")?,
            chain: ChainDigest::NONE,
            view: View::Router,
            state: StateDigest::EMPTY,
        },
        features,
        models,
        inference_paused: false,
    })
}
