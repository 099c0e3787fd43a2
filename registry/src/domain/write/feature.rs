//! Changing the setting of a feature.

use switchboard::{
    catalogue::{self, Catalogue},
    names::{CredentialId, FeatureName, ModelName},
    reason::FieldReason,
    violation::Violations,
};

use super::{Edit, Verdict, Write, WriteError, check_etag};
use crate::domain::{
    feature::{Feature, Provider, Setting},
    state::{Change, State},
    view::FeatureView,
};

const MODEL: &str = "feature.model";

/// Changes the setting of a feature.
#[derive(Debug)]
pub struct UpdateFeature {
    /// The feature. `None`: a bad name, which is a violation already.
    pub name: Option<FeatureName>,
    /// The etag that it must have.
    pub etag: Option<String>,
    /// `provider`. Its default is UNASSIGNED.
    pub provider: Edit<Provider>,
    /// `model`.
    pub model: Edit<ModelName>,
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
        let stored = &stored.value.setting;
        if let Edit::Set(model) = &self.model {
            check_reference(state, facts, model, &mut violations);
        }
        let setting = self.merged(stored, &mut violations);
        if let Some(setting) = &setting
            && let (Edit::Keep, Some(kept)) = (&self.model, setting.model())
            && setting != stored
        {
            check_reference(state, facts, kept, &mut violations);
        }
        let (Some(setting), true) = (setting, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        if setting.model() != stored.model() {
            check_beta(state, facts, setting.model())?;
        }
        let is_changed = setting != *stored;
        Ok(Verdict {
            name: name.clone(),
            change: is_changed.then(|| {
                Change::Feature(Feature {
                    name: name.clone(),
                    setting,
                })
            }),
        })
    }

    fn view(state: &State, name: &FeatureName) -> Option<FeatureView> {
        state.feature(name)
    }
}

impl UpdateFeature {
    /// The setting after this write. `None`: there is none, which is a violation by now.
    fn merged(&self, stored: &Setting, violations: &mut Violations) -> Option<Setting> {
        let provider = match self.provider {
            Edit::Set(provider) => provider,
            Edit::Clear => Provider::Unassigned,
            Edit::Keep => stored.provider(),
            Edit::Bad => return None,
        };
        let model = match &self.model {
            Edit::Set(model) => Some(model),
            Edit::Keep => stored.model(),
            Edit::Clear => None,
            Edit::Bad => return None,
        };
        match provider {
            Provider::Unassigned | Provider::Vendored if matches!(self.model, Edit::Set(_)) => {
                let remedy = if self.provider == Edit::Keep {
                    "add `provider`: PROVIDER_SELF_HOSTED"
                } else {
                    "leave it out, or give PROVIDER_SELF_HOSTED as `provider`"
                };
                violations.push(
                    MODEL,
                    FieldReason::ProviderMismatch,
                    format!("goes with no provider other than SELF_HOSTED and DISABLED; {remedy}"),
                );
                None
            }
            Provider::Unassigned => Some(Setting::Unassigned),
            Provider::Vendored => Some(Setting::Vendored),
            Provider::Disabled => Some(Setting::Disabled(model.cloned())),
            Provider::SelfHosted => {
                if model.is_none() {
                    violations.push(
                        MODEL,
                        FieldReason::FieldRequired,
                        "must be given: provider SELF_HOSTED needs a model, `models/{id}`",
                    );
                }
                model.cloned().map(Setting::SelfHosted)
            }
        }
    }
}

/// A model that a feature names has to exist, and its family to fit.
fn check_reference(state: &State, facts: &catalogue::Feature, name: &ModelName, violations: &mut Violations) {
    let Some(model) = state.models.get(name) else {
        let description = format!("`{name}` does not exist");
        return violations.push(MODEL, FieldReason::ModelNotFound, description);
    };
    let family = model.value.family;
    if !facts.fits(family) {
        violations.push(
            MODEL,
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

/// Naming a model is a new assignment; what is assigned already is not asked about.
fn check_beta(state: &State, facts: &catalogue::Feature, model: Option<&ModelName>) -> Result<(), WriteError> {
    let Some(model) = model.and_then(|name| state.models.get(name)) else {
        return Ok(());
    };
    let family = model.value.family;
    let mut subjects = Vec::new();
    if facts.stage.needs_beta() {
        subjects.push(format!("feature `{}`", facts.name.id()));
    }
    if family.stage.needs_beta() {
        subjects.push(format!("family `{}`", family.machine_name));
    }
    if subjects.is_empty() || state.is_beta_enabled() {
        Ok(())
    } else {
        Err(WriteError::BetaNotEnabled(subjects))
    }
}
