//! A catalog with one model, for tests of places and credentials.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use switchboard::{
    catalogue::Catalogue,
    digest::{ChainDigest, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{CredentialId, FeatureName, IncarnationId, ModelName, Revision, StoreId},
    pb::registry,
    resource::{
        feature::FeatureLimits,
        model::{Count, ModelSpec},
    },
    secret::ApiToken,
};

use super::Party;
use crate::catalog::{Assignment, Catalog, CompiledModel, CompiledSetting, Credential, ModelState};

pub(crate) const FLOOD: &str = "duo_chat";
pub(crate) const RESERVED: &str = "code_generations";

fn feature(name: &str) -> &'static FeatureName {
    &Catalogue::get().called(name).unwrap().name
}

pub(crate) fn party(name: &str) -> Party {
    Party {
        feature: feature(name),
        has_reservation: true,
    }
}

/// Creates a catalog with one model that has these limits, and a feature that reserves places of it.
pub(crate) fn catalog(
    revision: i64,
    places: usize,
    queue: usize,
    reserved: usize,
) -> (Arc<Catalog>, Arc<CompiledModel>) {
    let spec = registry::Model {
        display_name: Some("M".to_owned()),
        family: Some("llama3".to_owned()),
        identifier: Some("m".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        limits: Some(registry::ModelLimits {
            max_concurrency: i32::try_from(places).ok(),
            max_queue: i32::try_from(queue).ok(),
            queue_timeout: Duration::from_millis(200).try_into().ok(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = Arc::new(ModelSpec::whole(spec).unwrap());
    let model = Arc::new(CompiledModel::new(ModelName::from_id("m").unwrap(), spec, None));
    let setting = |reserved_concurrency: usize| {
        CompiledSetting::SelfHosted(Arc::new(Assignment {
            model: model.name.clone(),
            fallbacks: Vec::new(),
            rules: Vec::new(),
            limits: FeatureLimits {
                max_concurrency: None,
                reserved_concurrency: Count::parse(i32::try_from(reserved_concurrency).unwrap()).ok(),
            },
            hedge_delay: None,
        }))
    };
    let catalog = Catalog {
        cursor: Cursor {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            revision: Revision::new(revision).unwrap(),
            chain: ChainDigest::NONE,
            view: View::Router,
            state: StateDigest::EMPTY,
        },
        features: HashMap::from([
            (feature(FLOOD).clone(), setting(0)),
            (feature(RESERVED).clone(), setting(reserved)),
        ]),
        models: HashMap::from([(model.name.clone(), ModelState::Ready(Arc::clone(&model)))]),
        inference_paused: false,
    };
    (Arc::new(catalog), model)
}

pub(crate) fn credential() -> Credential {
    Credential {
        id: CredentialId::random(),
        origins: BTreeSet::new(),
        token: ApiToken::parse("secret".to_owned()).unwrap(),
    }
}
