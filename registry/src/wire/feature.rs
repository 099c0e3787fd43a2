//! Features on the wire.

use switchboard::{
    names::{FeatureName, ModelName},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

use super::{
    Flaw,
    mask::{Fields, Mask},
    name, name_flaw, stage, timestamp,
};
use crate::domain::{
    feature::Provider,
    view::FeatureView,
    write::{Edit, UpdateFeature},
};

/// What a mask may name.
pub const FIELDS: Fields = Fields {
    settable: &["provider", "model"],
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
            provider: Edit::Bad,
            model: Edit::Bad,
            violations,
        };
    };
    let is_any_present = feature.provider.is_some() || feature.model.is_some();
    mask.check_not_empty(is_any_present, &mut violations);
    UpdateFeature {
        name: name(&feature.name, "feature.name", FeatureName::parse, &mut violations),
        etag: super::etag(feature.etag),
        provider: mask
            .edit("provider", feature.provider)
            .parsed("feature.provider", &mut violations, provider),
        model: mask
            .edit("model", feature.model)
            .parsed("feature.model", &mut violations, |text| {
                ModelName::parse(&text).map_err(|error| name_flaw(text.rsplit('/').next().unwrap_or_default(), error))
            }),
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

/// A feature as it is answered.
#[must_use]
pub fn answer(view: &FeatureView) -> registry::Feature {
    let (facts, feature, record) = (view.facts, &view.feature.value, view.feature.record);
    let changed = Some(record).filter(|record| !record.is_as_created());
    registry::Feature {
        name: feature.name.to_string(),
        provider: Some(provider_number(feature.setting.provider())),
        model: feature.setting.model().map(ToString::to_string),
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
        ..Default::default()
    }
}

pub(super) fn provider(number: i32) -> Result<Provider, Flaw> {
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
