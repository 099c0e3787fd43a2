//! Changing the setting of a feature.

use switchboard::{
    catalogue::{self, Catalogue},
    names::{CredentialId, FeatureName, ModelName},
    reason::FieldReason,
    violation::Violations,
};

use super::{Edit, Verdict, Write, WriteError, check_etag, model::family_subject};
use crate::domain::{
    feature::{Fallbacks, Feature, Provider, Routes, Rule, Rules, Setting},
    size,
    state::{Change, State},
    view::FeatureView,
};

const MODEL: &str = "feature.model";
const FALLBACKS: &str = "feature.fallback_models";
const RULES: &str = "feature.rules";

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

/// What a write asks of a feature's fields.
#[derive(Debug, Default)]
pub struct FeaturePatch {
    /// `provider`. Its default is UNASSIGNED.
    pub provider: Edit<Provider>,
    /// `model`.
    pub model: Edit<ModelName>,
    /// `fallback_models`.
    pub fallbacks: Edit<Fallbacks>,
    /// `rules`.
    pub rules: Edit<Rules>,
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
        for (field, model) in self.patch.given() {
            check_reference(state, facts, &field, model, &mut violations);
        }
        let setting = self.patch.merged(stored, &mut violations);
        if let Some(setting) = &setting
            && setting != stored
        {
            for (field, model) in self.patch.kept(setting) {
                check_reference(state, facts, &field, model, &mut violations);
            }
            check_size(setting, &mut violations);
        }
        let (Some(setting), true) = (setting, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        check_beta(state, facts, stored, &setting)?;
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

impl FeaturePatch {
    /// The setting that the patch alone makes.
    ///
    /// # Errors
    ///
    /// Violations for what does not go together.
    pub fn into_setting(self) -> Result<Setting, Violations> {
        let mut violations = Violations::new();
        match self.merged(&Setting::default(), &mut violations) {
            Some(setting) if violations.is_empty() => Ok(setting),
            _ => Err(violations),
        }
    }

    /// The models that the patch names, each with its field.
    pub(super) fn given(&self) -> impl Iterator<Item = (String, &ModelName)> {
        let fallbacks = self.fallbacks.given().map_or(&[][..], Fallbacks::as_slice);
        let rules = self.rules.given().map_or(&[][..], Rules::as_slice);
        named(self.model.given(), fallbacks, rules)
    }

    /// The models that the setting names in fields that the patch leaves alone, each with its field.
    fn kept<'a>(&self, setting: &'a Setting) -> impl Iterator<Item = (String, &'a ModelName)> + use<'a> {
        let model = setting.model().filter(|_| self.model.is_kept());
        let fallbacks = Some(setting.fallbacks()).filter(|_| self.fallbacks.is_kept());
        let rules = Some(setting.rules()).filter(|_| self.rules.is_kept());
        named(model, fallbacks.unwrap_or_default(), rules.unwrap_or_default())
    }

    /// Lays the patch over the stored setting. `None`: there is no setting then, which is a violation by now.
    pub(super) fn merged(&self, stored: &Setting, violations: &mut Violations) -> Option<Setting> {
        let provider = match self.provider {
            Edit::Set(provider) => provider,
            Edit::Clear => Provider::Unassigned,
            Edit::Keep => stored.provider(),
            Edit::Bad => return None,
        };
        match provider {
            Provider::Unassigned => {
                self.check_names_nothing(violations);
                Some(Setting::Unassigned)
            }
            Provider::Vendored => {
                self.check_names_nothing(violations);
                Some(Setting::Vendored)
            }
            Provider::Disabled => {
                let (model, routes) = self.models(stored, violations);
                Some(Setting::Disabled { model, routes })
            }
            Provider::SelfHosted => {
                let (model, routes) = self.models(stored, violations);
                if model.is_none() && !matches!(self.model, Edit::Bad) {
                    violations.push(
                        MODEL,
                        FieldReason::FieldRequired,
                        "must be given: provider SELF_HOSTED needs a model, `models/{id}`",
                    );
                }
                Some(Setting::SelfHosted { model: model?, routes })
            }
        }
    }

    /// UNASSIGNED and VENDORED clear every model; a call that names one at the same time contradicts itself.
    fn check_names_nothing(&self, violations: &mut Violations) {
        let remedy = if self.provider.is_kept() {
            "add `provider`: PROVIDER_SELF_HOSTED"
        } else {
            "leave it out, or give PROVIDER_SELF_HOSTED as `provider`"
        };
        for (field, is_given) in [
            (MODEL, self.model.given().is_some()),
            (FALLBACKS, self.fallbacks.given().is_some()),
            (RULES, self.rules.given().is_some()),
        ] {
            if is_given {
                violations.push(
                    field,
                    FieldReason::ProviderMismatch,
                    format!("goes with no provider other than SELF_HOSTED and DISABLED; {remedy}"),
                );
            }
        }
    }

    /// The models after this write, where the provider has some.
    fn models(&self, stored: &Setting, violations: &mut Violations) -> (Option<ModelName>, Routes) {
        let model = self.model.over(stored.model().cloned());
        let kept = stored.routes().cloned().unwrap_or_default();
        let routes = Routes {
            fallbacks: self.fallbacks.or_default(kept.fallbacks, Fallbacks::default()),
            rules: self.rules.or_default(kept.rules, Rules::default()),
        };
        let fallbacks = routes.fallbacks.as_slice();
        if let Some(index) = fallbacks.iter().position(|fallback| Some(fallback) == model.as_ref()) {
            if self.fallbacks.is_kept() {
                violations.push(
                    MODEL,
                    FieldReason::ValueRepeated,
                    "is among the feature's `fallback_models`; give that list too, without it",
                );
            } else {
                violations.push(
                    format!("{FALLBACKS}[{index}]"),
                    FieldReason::ValueRepeated,
                    "is the feature's `model` already",
                );
            }
        }
        (model, routes)
    }
}

/// Models with the fields that name them.
fn named<'a>(
    model: Option<&'a ModelName>,
    fallbacks: &'a [ModelName],
    rules: &'a [Rule],
) -> impl Iterator<Item = (String, &'a ModelName)> {
    let model = model.into_iter().map(|model| (MODEL.to_owned(), model));
    let fallbacks = fallbacks.iter().enumerate();
    let rules = rules.iter().enumerate();
    model
        .chain(fallbacks.map(|(index, model)| (format!("{FALLBACKS}[{index}]"), model)))
        .chain(rules.map(|(index, rule)| (format!("{RULES}[{index}].model"), &rule.model)))
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
