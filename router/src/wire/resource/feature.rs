//! Settings of features of the change stream.

use std::{sync::Arc, time::Duration};

use switchboard::{
    names::ModelName,
    pb::{registry, types},
    reason::FieldReason,
};

use super::{MINUTE, count, span};
use crate::{
    catalog::{Assignment, FeatureLimits, Match, Rule, RuleId, Setting, Share},
    subscription::resource::Refusal,
};

const HEDGE_DELAY_MIN: Duration = Duration::from_millis(10);

pub(super) fn setting(feature: &registry::Feature) -> Result<Setting, Refusal> {
    // Left out it is UNASSIGNED: only what somebody has set is stored.
    let provider = feature.provider.map(types::Provider::try_from);
    match provider.unwrap_or(Ok(types::Provider::Unassigned)) {
        Ok(types::Provider::Unassigned) => Ok(Setting::Unassigned),
        Ok(types::Provider::Disabled) => Ok(Setting::Disabled),
        Ok(types::Provider::Vendored) => Ok(Setting::Vendored),
        Ok(types::Provider::SelfHosted) => Ok(Setting::SelfHosted(Arc::new(assignment(feature)?))),
        Ok(types::Provider::Unspecified) | Err(_) => Err(Refusal::new(
            "provider",
            FieldReason::ValueUnknown,
            "is not known to this router",
        )),
    }
}

fn assignment(feature: &registry::Feature) -> Result<Assignment, Refusal> {
    let fallback = |(place, name): (usize, &String)| model_name(name, || format!("fallback_models[{place}]"));
    let rule = |(place, wire): (usize, &registry::FeatureRule)| rule(place, wire);
    Ok(Assignment {
        model: model_name(feature.model(), || "model".to_owned())?,
        fallbacks: feature
            .fallback_models
            .iter()
            .enumerate()
            .map(fallback)
            .collect::<Result<_, _>>()?,
        rules: feature.rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?,
        limits: feature.limits.map(feature_limits).transpose()?.unwrap_or_default(),
        hedge_delay: span("hedge_delay", feature.hedge_delay.as_ref(), HEDGE_DELAY_MIN, MINUTE)?,
    })
}

fn feature_limits(wire: registry::FeatureLimits) -> Result<FeatureLimits, Refusal> {
    Ok(FeatureLimits {
        max_concurrency: count("limits.max_concurrency", wire.max_concurrency, 1, i32::MAX)?,
        reserved_concurrency: count("limits.reserved_concurrency", wire.reserved_concurrency, 0, i32::MAX)?
            .unwrap_or(0),
    })
}

fn model_name(wire: &str, field: impl FnOnce() -> String) -> Result<ModelName, Refusal> {
    ModelName::parse(wire).map_err(|error| Refusal::new(field(), FieldReason::ValueMalformed, error.to_string()))
}

fn rule(place: usize, wire: &registry::FeatureRule) -> Result<Rule, Refusal> {
    let field = |leaf: &str| format!("rules[{place}].{leaf}");
    let malformed = |leaf, error: String| Refusal::new(field(leaf), FieldReason::ValueMalformed, error);
    let nothing = registry::RuleMatch::default();
    let wire_match = wire.r#match.as_ref().unwrap_or(&nothing);
    let share = wire_match
        .percent
        .map(Share::from_percent)
        .transpose()
        .map_err(|error| Refusal::new(field("match.percent"), FieldReason::ValueOutOfRange, error.to_string()))?;
    let condition = Match::new(
        &wire_match.namespace_ids,
        &wire_match.project_ids,
        &wire_match.user_ids,
        share,
    );
    Ok(Rule {
        id: RuleId::parse(&wire.rule_id).map_err(|error| malformed("rule_id", error.to_string()))?,
        // As a rule looks whose only condition is of a later build: it must not hold for everybody.
        condition: condition.ok_or_else(|| {
            let text = "has no condition that this router knows";
            Refusal::new(field("match"), FieldReason::FieldRequired, text)
        })?,
        model: model_name(&wire.model, || field("model"))?,
    })
}
