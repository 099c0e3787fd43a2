//! Changes a feature's setting.

use switchboard::{
    catalogue::{self, Catalogue},
    names::{CredentialId, FeatureName, ModelName},
    pb::registry,
    reason::FieldReason,
    resource::{
        Given, Source,
        feature::{Feature, FeatureSpec, Setting},
        size,
    },
    violation::Violations,
};

use super::{Write, WriteEffect, WriteError, check_etag, model::family_subject};
use crate::{
    domain::{
        reservation,
        state::{Change, State},
        view::FeatureView,
    },
    merge::Edit,
};

/// The field of violations about reserved places.
pub(super) const RESERVED: &str = "feature.limits.reserved_concurrency";

/// Changes a feature's setting.
#[derive(Debug)]
pub struct UpdateFeature {
    /// The name of the feature. `None`: it is invalid, which is one of the violations.
    pub name: Option<FeatureName>,
    /// Etag that the feature must have. `None`: not checked.
    pub etag: Option<String>,
    /// The fields to change.
    pub edit: Edit<registry::Feature>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

impl Write for UpdateFeature {
    type Name = FeatureName;
    type View = FeatureView;

    fn judge(&self, state: &State, _fresh: CredentialId) -> Result<WriteEffect<FeatureName>, WriteError> {
        let mut violations = self.violations.clone();
        let Some(name) = &self.name else {
            FeatureSpec::read(self.edit.alone(), &Given::Alone, |_, _, _| {}, &mut violations);
            return Err(WriteError::Invalid(violations));
        };
        let (Some(facts), Some(stored)) = (Catalogue::get().feature(name), state.features.get(name)) else {
            return Err(WriteError::NotFound(name.clone().into()));
        };
        check_etag(state, name.clone().into(), stored.record, self.etag.as_deref())?;
        let stored = &stored.value;
        let (merged, given) = self.edit.over(&stored.to_message());
        let check_given = |field: &str, model: &ModelName, found: &mut Violations| {
            check_reference(state, facts, field, model, found);
        };
        let spec = FeatureSpec::read(merged, &given, check_given, &mut violations);
        let feature = spec.map(|spec| Feature {
            name: name.clone(),
            spec,
        });
        if let Some(feature) = &feature {
            let setting = &feature.spec.setting;
            if *setting != stored.spec.setting {
                let is_kept = |path: &str| given.source(path, true) == Source::Kept;
                for (field, model) in setting.named(is_kept) {
                    check_reference(state, facts, &field, model, &mut violations);
                }
                check_size(setting, &mut violations);
            }
            check_reservation(state, &given, stored, feature, &mut violations);
        }
        let (Some(feature), true) = (feature, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        check_beta(state, facts, &stored.spec.setting, &feature.spec.setting)?;
        Ok(WriteEffect {
            name: name.clone(),
            change: (feature != *stored).then_some(Change::Feature(feature)),
        })
    }

    fn view(state: &State, name: &FeatureName) -> Option<FeatureView> {
        state.feature(name)
    }
}

/// Checks that newly reserved places of a model are available in addition to those that other features reserve.
fn check_reservation(state: &State, given: &Given, stored: &Feature, feature: &Feature, violations: &mut Violations) {
    let Some(model) = feature.spec.setting.model() else {
        return;
    };
    let (before, after) = (stored.places_on(model), feature.places_on(model));
    let Some(known) = state.models.get(model).filter(|_| after > before) else {
        return;
    };
    let all = state.places_reserved_on(model) - before + after;
    if let Err(overbooked) = reservation::check(&known.value, all) {
        let field = match given.source("limits.reserved_concurrency", true) {
            Source::Set => RESERVED,
            // The feature is switched on again.
            Source::Kept | Source::Cleared if stored.spec.setting.model() == Some(model) => "feature.provider",
            Source::Kept | Source::Cleared => "feature.model",
        };
        violations.push(field, FieldReason::ReservationTooLarge, overbooked.to_string());
    }
}

/// Checks that a model that a feature names exists, and that the feature takes its family.
pub(super) fn check_reference(
    state: &State,
    facts: &catalogue::FeatureFacts,
    field: &str,
    name: &ModelName,
    violations: &mut Violations,
) {
    let Some(model) = state.models.get(name) else {
        let description = format!("`{name}` does not exist");
        return violations.push(field, FieldReason::ModelNotFound, description);
    };
    let family = model.value.spec.family;
    if !facts.fits(family) {
        violations.push(
            field,
            FieldReason::FamilyNotCompatible,
            format!(
                "`{name}` is of family `{}`, which cannot serve `{}`; families that can: {}",
                family.machine_name,
                facts.name,
                facts.families.join(", ")
            ),
        );
    }
}

/// Checks that the stored setting fits into one part of the change stream. Only rules can become too large.
pub(super) fn check_size(setting: &Setting, violations: &mut Violations) {
    let bytes = setting.stored_bytes_max();
    if bytes > size::STORED_BYTES_MAX {
        let description = format!("{}: give fewer conditions", size::too_large(bytes));
        violations.push("feature.rules", FieldReason::ValueOutOfRange, description);
    }
}

fn check_beta(
    state: &State,
    facts: &catalogue::FeatureFacts,
    stored: &Setting,
    setting: &Setting,
) -> Result<(), WriteError> {
    let subjects = newly_in_beta(state, facts, stored, setting);
    if subjects.is_empty() || state.is_beta_enabled() {
        Ok(())
    } else {
        Err(WriteError::BetaNotEnabled(subjects))
    }
}

/// Returns the newly assigned families and feature that are in beta. A model that the setting did not name before
/// counts as newly assigned; models that it already named are not checked.
pub(super) fn newly_in_beta(
    state: &State,
    facts: &catalogue::FeatureFacts,
    stored: &Setting,
    setting: &Setting,
) -> Vec<String> {
    let families: Vec<_> = setting
        .references()
        .filter(|model| stored.references().all(|known| known != *model))
        .filter_map(|model| state.models.get(model))
        .map(|model| model.value.spec.family)
        .collect();
    let mut subjects = Vec::new();
    if facts.stage.needs_beta() && !families.is_empty() {
        subjects.push(format!("feature `{}`", facts.name.id()));
    }
    for family in families.into_iter().filter(|family| family.stage.needs_beta()) {
        let subject = family_subject(family);
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}
