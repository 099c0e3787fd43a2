//! Changing the setting of a feature.

mod patch;

use switchboard::{
    catalogue::{self, Catalogue},
    names::{CredentialId, FeatureName, ModelName},
    reason::FieldReason,
    violation::Violations,
};

pub(super) use self::patch::RESERVED;
pub use self::patch::{FeatureLimitsPatch, FeaturePatch};
use self::patch::{MODEL, PROVIDER, RULES};
use super::{Verdict, Write, WriteError, check_etag, model::family_subject};
use crate::domain::{
    feature::{Feature, Setting},
    reservation, size,
    state::{Change, State},
    view::FeatureView,
};

/// Changes the setting of a feature.
#[derive(Debug)]
pub struct UpdateFeature {
    /// The feature. `None`: a bad name, which is a violation already.
    pub name: Option<FeatureName>,
    /// The etag that it must have.
    pub etag: Option<String>,
    /// What to change.
    pub patch: FeaturePatch,
    /// What is wrong already.
    pub violations: Violations,
}

impl Write for UpdateFeature {
    type Name = FeatureName;
    type View = FeatureView;

    fn judge(&self, state: &State, _fresh: CredentialId) -> Result<Verdict<FeatureName>, WriteError> {
        let mut violations = self.violations.clone();
        let Some(name) = &self.name else {
            return Err(WriteError::Invalid(violations));
        };
        let (Some(facts), Some(stored)) = (Catalogue::get().feature(name), state.features.get(name)) else {
            return Err(WriteError::NotFound(name.clone().into()));
        };
        check_etag(state, name.clone().into(), stored.record, self.etag.as_deref())?;
        let stored = &stored.value;
        for (field, model) in self.patch.given() {
            check_reference(state, facts, &field, model, &mut violations);
        }
        let parts = self.patch.merged(Some(stored), &mut violations);
        let feature = parts.map(|parts| parts.into_feature(name.clone()));
        if let Some(feature) = &feature
            && feature.setting != stored.setting
        {
            for (field, model) in self.patch.kept(&feature.setting) {
                check_reference(state, facts, &field, model, &mut violations);
            }
            check_size(&feature.setting, &mut violations);
        }
        if let Some(feature) = &feature {
            self.check_reservation(state, stored, feature, &mut violations);
        }
        let (Some(feature), true) = (feature, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        check_beta(state, facts, &stored.setting, &feature.setting)?;
        Ok(Verdict {
            name: name.clone(),
            change: (feature != *stored).then_some(Change::Feature(feature)),
        })
    }

    fn view(state: &State, name: &FeatureName) -> Option<FeatureView> {
        state.feature(name)
    }
}

impl UpdateFeature {
    /// Places that are newly reserved on a model have to be there beside those of the other features.
    fn check_reservation(&self, state: &State, stored: &Feature, feature: &Feature, violations: &mut Violations) {
        let Some(model) = feature.setting.model() else { return };
        let (before, after) = (stored.places_on(model), feature.places_on(model));
        let Some(known) = state.models.get(model).filter(|_| after > before) else {
            return;
        };
        let all = state.places_reserved_on(model) - before + after;
        if let Err(overbooked) = reservation::check(&known.value, all) {
            let field = if self.patch.limits.reserved_concurrency.given().is_some() {
                RESERVED
            } else if stored.setting.model() == Some(model) {
                // It is switched on again.
                PROVIDER
            } else {
                MODEL
            };
            violations.push(field, FieldReason::ReservationTooLarge, overbooked.to_string());
        }
    }
}

/// A model that a feature names has to exist, and its family to fit.
pub(super) fn check_reference(
    state: &State,
    facts: &catalogue::Feature,
    field: &str,
    name: &ModelName,
    violations: &mut Violations,
) {
    let Some(model) = state.models.get(name) else {
        let description = format!("`{name}` does not exist");
        return violations.push(field, FieldReason::ModelNotFound, description);
    };
    let family = model.value.family;
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

/// What is stored has to fit into one part of the change stream. Only rules can be that large.
pub(super) fn check_size(setting: &Setting, violations: &mut Violations) {
    let bytes = setting.stored_bytes_max();
    if bytes > size::STORED_BYTES_MAX {
        let description = format!("{}: give fewer conditions", size::too_large(bytes));
        violations.push(RULES, FieldReason::ValueOutOfRange, description);
    }
}

fn check_beta(
    state: &State,
    facts: &catalogue::Feature,
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

/// What is in beta of that which a setting newly assigns. Naming a model is a new assignment; what is named already is not
/// asked about.
pub(super) fn newly_in_beta(
    state: &State,
    facts: &catalogue::Feature,
    stored: &Setting,
    setting: &Setting,
) -> Vec<String> {
    let families: Vec<_> = setting
        .references()
        .filter(|model| stored.references().all(|known| known != *model))
        .filter_map(|model| state.models.get(model))
        .map(|model| model.value.family)
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
