//! Features on the wire.

mod limits;
mod rule;

use switchboard::{
    names::FeatureName,
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

pub(super) use self::{
    limits::{hedge_delay_message, limits_message},
    rule::{fallback_models, rule_messages},
};
use super::{
    Flaw,
    mask::{Fields, Mask},
    model_reference, name, stage, timestamp,
};
use crate::domain::{
    feature::Provider,
    view::FeatureView,
    write::{FeaturePatch, UpdateFeature},
};

/// What a mask may name.
pub const FIELDS: Fields = Fields {
    settable: &[
        "provider",
        "model",
        "fallback_models",
        "rules",
        "limits",
        "limits.max_concurrency",
        "limits.reserved_concurrency",
        "hedge_delay",
    ],
    fixed: &[
        "name",
        "etag",
        "display_name",
        "group",
        "release_stage",
        "compatible_families",
        "parent",
        "unit_primitives",
        "assignable",
        "revision",
        "update_time",
        "kept_without_beta",
    ],
};

/// Reads a request to change a feature.
#[must_use]
pub fn update(request: registry::UpdateFeatureRequest) -> UpdateFeature {
    let mut violations = Violations::new();
    let mask = Mask::parse(request.update_mask.as_ref(), FIELDS, &mut violations);
    let Some(feature) = request.feature else {
        violations.push("feature", FieldReason::FieldRequired, "must be given");
        return UpdateFeature {
            name: None,
            etag: None,
            patch: FeaturePatch::default(),
            violations,
        };
    };
    mask.check_not_empty(has_any_field(&feature), &mut violations);
    UpdateFeature {
        name: name(&feature.name, "feature.name", FeatureName::parse, &mut violations),
        etag: super::etag(feature.etag.clone()),
        patch: patch(feature, &mask, &mut violations),
        violations,
    }
}

/// Reads a request for one feature.
///
/// # Errors
///
/// A violation when the name is bad.
pub fn get(request: &registry::GetFeatureRequest) -> Result<FeatureName, Violations> {
    let mut violations = Violations::new();
    name(&request.name, "name", FeatureName::parse, &mut violations).ok_or(violations)
}

/// What the fields of a feature ask for, by a mask.
pub(super) fn patch(feature: registry::Feature, mask: &Mask, violations: &mut Violations) -> FeaturePatch {
    FeaturePatch {
        provider: mask
            .edit("provider", feature.provider)
            .parsed("feature.provider", violations, provider),
        model: mask
            .edit("model", feature.model)
            .parsed("feature.model", violations, |text| model_reference(&text)),
        fallbacks: mask
            .edit(
                "fallback_models",
                Some(feature.fallback_models).filter(|list| !list.is_empty()),
            )
            .and_then(|list| rule::fallbacks(&list, violations)),
        rules: mask
            .edit("rules", Some(feature.rules).filter(|list| !list.is_empty()))
            .and_then(|list| rule::rules(list, violations)),
        limits: limits::patch(feature.limits.unwrap_or_default(), mask, violations),
        hedge_delay: mask.edit("hedge_delay", feature.hedge_delay).parsed(
            "feature.hedge_delay",
            violations,
            limits::hedge_delay,
        ),
    }
}

fn has_any_field(feature: &registry::Feature) -> bool {
    feature.provider.is_some()
        || feature.model.is_some()
        || !feature.fallback_models.is_empty()
        || !feature.rules.is_empty()
        || feature
            .limits
            .is_some_and(|limits| limits != registry::FeatureLimits::default())
        || feature.hedge_delay.is_some()
}

/// A feature as it is answered.
#[must_use]
pub fn answer(view: &FeatureView) -> registry::Feature {
    let (facts, feature, record) = (view.facts, &view.feature.value, view.feature.record);
    let changed = Some(record).filter(|record| !record.is_as_created());
    registry::Feature {
        name: feature.name.to_string(),
        provider: Some(provider_number(feature.setting.provider())),
        model: feature.setting.model().map(ToString::to_string),
        fallback_models: fallback_models(&feature.setting),
        rules: rule_messages(&feature.setting),
        limits: limits_message(&feature.limits),
        hedge_delay: hedge_delay_message(feature.hedge_delay),
        etag: view.etag.to_string(),
        display_name: facts.display_name.clone(),
        group: facts.group.clone(),
        release_stage: stage(facts.stage).into(),
        compatible_families: facts.families.clone(),
        parent: facts.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        unit_primitives: facts.unit_primitives.clone(),
        assignable: view.is_assignable,
        revision: changed.map_or(0, |record| record.revision.get()),
        update_time: changed.map(|record| timestamp(record.update_time)),
        kept_without_beta: view.is_kept_without_beta,
    }
}

fn provider(number: i32) -> Result<Provider, Flaw> {
    match types::Provider::try_from(number) {
        Ok(types::Provider::Unassigned) => Ok(Provider::Unassigned),
        Ok(types::Provider::Disabled) => Ok(Provider::Disabled),
        Ok(types::Provider::Vendored) => Ok(Provider::Vendored),
        Ok(types::Provider::SelfHosted) => Ok(Provider::SelfHosted),
        Ok(types::Provider::Unspecified) | Err(_) => Err(Flaw::new(
            FieldReason::ValueUnknown,
            "must be PROVIDER_UNASSIGNED, PROVIDER_DISABLED, PROVIDER_VENDORED or PROVIDER_SELF_HOSTED",
        )),
    }
}

pub(super) fn provider_number(provider: Provider) -> i32 {
    match provider {
        Provider::Unassigned => types::Provider::Unassigned,
        Provider::Disabled => types::Provider::Disabled,
        Provider::Vendored => types::Provider::Vendored,
        Provider::SelfHosted => types::Provider::SelfHosted,
    }
    .into()
}
