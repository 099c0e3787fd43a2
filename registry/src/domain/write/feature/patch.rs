//! What a write asks of a feature's fields, and the feature that it makes.

use switchboard::{
    names::{FeatureName, ModelName},
    reason::FieldReason,
    violation::Violations,
};

use crate::domain::{
    feature::{Fallbacks, Feature, FeatureLimits, HedgeDelay, Provider, Routes, Rule, Rules, Setting},
    model::{Count, Positive},
    write::Edit,
};

pub(super) const MODEL: &str = "feature.model";
pub(super) const PROVIDER: &str = "feature.provider";
const FALLBACKS: &str = "feature.fallback_models";
pub(super) const RULES: &str = "feature.rules";
pub(in crate::domain::write) const RESERVED: &str = "feature.limits.reserved_concurrency";

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
    /// `limits`.
    pub limits: FeatureLimitsPatch,
    /// `hedge_delay`.
    pub hedge_delay: Edit<HedgeDelay>,
}

/// What a write asks of the leaves of `limits`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FeatureLimitsPatch {
    /// `limits.max_concurrency`.
    pub max_concurrency: Edit<Positive>,
    /// `limits.reserved_concurrency`.
    pub reserved_concurrency: Edit<Count<0, { i32::MAX }>>,
}

impl FeatureLimitsPatch {
    /// Lays the patch over the stored limits.
    fn over(&self, stored: FeatureLimits, violations: &mut Violations) -> FeatureLimits {
        let limits = FeatureLimits {
            max_concurrency: self.max_concurrency.over(stored.max_concurrency),
            reserved_concurrency: self.reserved_concurrency.over(stored.reserved_concurrency),
        };
        if limits.reserves_too_much() {
            let (field, description) = if self.reserved_concurrency.given().is_some() {
                (
                    RESERVED,
                    "must not be more than the feature's own `limits.max_concurrency`",
                )
            } else {
                (
                    "feature.limits.max_concurrency",
                    "must not be less than the feature's `limits.reserved_concurrency`",
                )
            };
            violations.push(field, FieldReason::ReservationTooLarge, description);
        }
        limits
    }
}

/// A feature that has no name yet.
pub(in crate::domain::write) struct Parts {
    setting: Setting,
    limits: FeatureLimits,
    hedge_delay: Option<HedgeDelay>,
}

impl Parts {
    pub(in crate::domain::write) fn into_feature(self, name: FeatureName) -> Feature {
        Feature {
            name,
            setting: self.setting,
            limits: self.limits,
            hedge_delay: self.hedge_delay,
        }
    }
}

impl FeaturePatch {
    /// The feature that the patch alone makes.
    ///
    /// # Errors
    ///
    /// Violations for what does not go together.
    pub fn into_feature(self, name: FeatureName) -> Result<Feature, Violations> {
        let mut violations = Violations::new();
        match self.merged(None, &mut violations) {
            Some(parts) if violations.is_empty() => Ok(parts.into_feature(name)),
            _ => Err(violations),
        }
    }

    /// The models that the patch names, each with its field.
    pub(in crate::domain::write) fn given(&self) -> impl Iterator<Item = (String, &ModelName)> {
        let fallbacks = self.fallbacks.given().map_or(&[][..], Fallbacks::as_slice);
        let rules = self.rules.given().map_or(&[][..], Rules::as_slice);
        named(self.model.given(), fallbacks, rules)
    }

    /// The models that the setting names in fields that the patch leaves alone, each with its field.
    pub(super) fn kept<'a>(&self, setting: &'a Setting) -> impl Iterator<Item = (String, &'a ModelName)> + use<'a> {
        let model = setting.model().filter(|_| self.model.is_kept());
        let fallbacks = Some(setting.fallbacks()).filter(|_| self.fallbacks.is_kept());
        let rules = Some(setting.rules()).filter(|_| self.rules.is_kept());
        named(model, fallbacks.unwrap_or_default(), rules.unwrap_or_default())
    }

    /// Lays the patch over the stored feature; without one, over nothing. `None`: there is no setting then, which is a
    /// violation by now.
    pub(in crate::domain::write) fn merged(
        &self,
        stored: Option<&Feature>,
        violations: &mut Violations,
    ) -> Option<Parts> {
        let setting = stored.map_or(&Setting::Unassigned, |feature| &feature.setting);
        let setting = self.setting(setting, violations);
        let limits = stored.map(|feature| feature.limits).unwrap_or_default();
        let limits = self.limits.over(limits, violations);
        Some(Parts {
            setting: setting?,
            limits,
            hedge_delay: self.hedge_delay.over(stored.and_then(|feature| feature.hedge_delay)),
        })
    }

    /// Lays the patch over the stored setting.
    fn setting(&self, stored: &Setting, violations: &mut Violations) -> Option<Setting> {
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
