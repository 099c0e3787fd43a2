//! The type of a feature: its setting and its limits. Fixed facts about the feature are in the catalogue.

mod limits;
mod message;
mod rule;

use crate::{
    names::{FeatureName, ModelName},
    reason::FieldReason,
};

pub use self::{
    limits::{FeatureLimits, HedgeDelay},
    rule::{Description, NewRule, Percent, Rule, RuleId, RuleMatch, Rules},
};
use super::{
    model::Count,
    size::{NUMBERS, text},
};

/// An AI-powered feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Name of the feature.
    pub name: FeatureName,
    /// Configuration of the feature.
    pub spec: FeatureSpec,
}

/// The configuration of a feature, without its name and with only those values that were set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeatureSpec {
    /// The provider of the feature, with its models.
    pub setting: Setting,
    /// Limits of the feature's calls, for every provider.
    pub limits: FeatureLimits,
    /// How long a call waits for its first token before it is hedged. `None`: calls are not hedged.
    pub hedge_delay: Option<HedgeDelay>,
}

impl Feature {
    /// Creates a feature whose configuration is empty.
    #[must_use]
    pub fn unset(name: FeatureName) -> Self {
        Self {
            name,
            spec: FeatureSpec::default(),
        }
    }

    /// Whether the feature's configuration is empty.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        self.spec == FeatureSpec::default()
    }

    /// Returns how many places of `model` the feature reserves. It reserves places only while the model is assigned to
    /// it and the provider is self-hosted: a feature that is switched off reserves none.
    #[must_use]
    pub fn places_on(&self, model: &ModelName) -> i64 {
        match &self.spec.setting {
            Setting::SelfHosted { model: own, .. } if own == model => {
                self.spec.limits.reserved_concurrency.map_or(0, Count::get).into()
            }
            Setting::SelfHosted { .. } | Setting::Unassigned | Setting::Disabled { .. } | Setting::Vendored => 0,
        }
    }

    /// Returns every model that the feature names, once for each reference. A model cannot be deleted while a feature
    /// refers to it.
    pub fn references(&self) -> impl Iterator<Item = &ModelName> {
        self.spec.setting.references()
    }

    /// Returns the feature with every reference to `from` replaced by `to`. A fallback that then equals the assigned
    /// model or an earlier fallback is removed.
    #[must_use]
    pub fn reassigned(&self, from: &ModelName, to: &ModelName) -> Self {
        let moved = |model: &ModelName| if model == from { to.clone() } else { model.clone() };
        let setting = match &self.spec.setting {
            Setting::Unassigned => Setting::Unassigned,
            Setting::Vendored => Setting::Vendored,
            Setting::Disabled { model, routes } => {
                let model = model.as_ref().map(moved);
                let routes = routes.moved(moved, model.as_ref());
                Setting::Disabled { model, routes }
            }
            Setting::SelfHosted { model, routes } => {
                let model = moved(model);
                let routes = routes.moved(moved, Some(&model));
                Setting::SelfHosted { model, routes }
            }
        };
        Self {
            name: self.name.clone(),
            spec: FeatureSpec { setting, ..self.spec },
        }
    }
}

/// The kind of provider that answers a feature's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// No provider is chosen. The setting of the feature's parent applies, if it has one.
    Unassigned,
    /// The feature is switched off.
    Disabled,
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted,
}

/// The provider of a feature, with the models of those providers that have some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Setting {
    /// No provider is chosen. The setting of the feature's parent applies, if it has one.
    #[default]
    Unassigned,
    /// The feature is switched off. Its models are kept until it is switched on again.
    Disabled {
        /// The assigned model. `None`: no model is assigned.
        model: Option<ModelName>,
        /// The fallbacks and rules.
        routes: Routes,
    },
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted {
        /// The assigned model.
        model: ModelName,
        /// The fallbacks and rules.
        routes: Routes,
    },
}

/// The models of a feature other than the assigned one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// The models that are tried, in this order, when the previous model cannot answer.
    pub fallbacks: Fallbacks,
    /// Rules: the first rule that matches a call determines its model.
    pub rules: Rules,
}

impl Routes {
    fn moved(&self, moved: impl Fn(&ModelName) -> ModelName, model: Option<&ModelName>) -> Self {
        let mut fallbacks: Vec<ModelName> = Vec::new();
        for fallback in self.fallbacks.as_slice().iter().map(&moved) {
            if Some(&fallback) != model && !fallbacks.contains(&fallback) {
                fallbacks.push(fallback);
            }
        }
        Self {
            fallbacks: Fallbacks(fallbacks),
            rules: self.rules.moved(moved),
        }
    }
}

impl Setting {
    /// The kind of provider.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Unassigned => Provider::Unassigned,
            Self::Disabled { .. } => Provider::Disabled,
            Self::Vendored => Provider::Vendored,
            Self::SelfHosted { .. } => Provider::SelfHosted,
        }
    }

    /// The assigned model. `None`: no model is assigned, or the provider has no models.
    #[must_use]
    pub const fn model(&self) -> Option<&ModelName> {
        match self {
            Self::SelfHosted { model, .. } => Some(model),
            Self::Disabled { model, .. } => model.as_ref(),
            Self::Unassigned | Self::Vendored => None,
        }
    }

    /// The models that are tried, in this order, when the previous model cannot answer.
    #[must_use]
    pub fn fallbacks(&self) -> &[ModelName] {
        self.routes().map_or(&[], |routes| routes.fallbacks.as_slice())
    }

    /// The rules, in the order in which they are tried.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        self.routes().map_or(&[], |routes| routes.rules.as_slice())
    }

    /// The fallbacks and rules. `None`: the provider has no models.
    #[must_use]
    pub const fn routes(&self) -> Option<&Routes> {
        match self {
            Self::SelfHosted { routes, .. } | Self::Disabled { routes, .. } => Some(routes),
            Self::Unassigned | Self::Vendored => None,
        }
    }

    /// Returns every model that the setting names, once for each reference.
    pub fn references(&self) -> impl Iterator<Item = &ModelName> {
        let rules = self.rules().iter().map(|rule| &rule.model);
        self.model().into_iter().chain(self.fallbacks()).chain(rules)
    }

    /// Returns the maximum size of the stored setting in bytes.
    #[must_use]
    pub fn stored_bytes_max(&self) -> usize {
        let rules = self.rules().iter().map(Rule::stored_bytes_max);
        let fallbacks = self
            .fallbacks()
            .iter()
            .map(|model| text(model.id()) + ModelName::COLLECTION.len());
        2 * NUMBERS + fallbacks.sum::<usize>() + rules.sum::<usize>()
    }
}

/// Fallback models in the order in which they are tried: at most 8, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fallbacks(Vec<ModelName>);

impl Fallbacks {
    /// The maximum number of fallbacks of a feature.
    pub const COUNT_MAX: usize = 8;

    /// Creates the list and checks it as a whole.
    ///
    /// # Errors
    ///
    /// All errors of the list as a whole.
    pub fn new(list: Vec<ModelName>) -> Result<Self, Vec<FeaturePartError>> {
        let mut errors = Vec::new();
        if list.len() > Self::COUNT_MAX {
            errors.push(FeaturePartError::FallbackCount);
        }
        for (index, model) in list.iter().enumerate().skip(1) {
            if list.iter().take(index).any(|before| before == model) {
                errors.push(FeaturePartError::FallbackRepeated { index });
            }
        }
        if errors.is_empty() { Ok(Self(list)) } else { Err(errors) }
    }

    /// The models, in the order in which they are tried.
    #[must_use]
    pub fn as_slice(&self) -> &[ModelName] {
        &self.0
    }
}

/// Why a value is not a valid part of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeaturePartError {
    /// There are too many fallbacks.
    #[error("must have at most {} entries", Fallbacks::COUNT_MAX)]
    FallbackCount,
    /// An earlier entry of the list names the same model.
    #[error("names a model that is already in the list")]
    FallbackRepeated {
        /// The index of the later entry, from 0.
        index: usize,
    },
    /// There are too many rules.
    #[error("must have at most {} entries", Rules::COUNT_MAX)]
    RuleCount,
    /// An earlier rule of the feature has the same id.
    #[error("is the id of another rule of this feature")]
    RuleIdRepeated {
        /// The index of the later rule, from 0.
        index: usize,
    },
    /// The id of a rule is malformed.
    #[error("must have 1 to 63 lower-case letters, digits and hyphens")]
    RuleIdMalformed,
    /// The rule has no condition, so it would match every call.
    #[error("must have at least one condition")]
    MatchEmpty,
    /// The lists of the rule's conditions have too many entries.
    #[error("must have at most {} entries in all its lists together", RuleMatch::COUNT_MAX)]
    MatchCount,
    /// An entry of a condition's list is empty or too long.
    #[error("must have 1 to {} characters", RuleMatch::LENGTH_MAX)]
    EntryLength,
    /// The percentage is out of range, or has more than two decimal places.
    #[error("must be above 0 and at most 100, in steps of 0.01")]
    PercentOutOfRange,
    /// The description is too long.
    #[error("must have at most {} characters", Description::LENGTH_MAX)]
    DescriptionTooLong,
    /// The hedge delay is out of range.
    #[error("must be {} ms to {} s", HedgeDelay::MIN.as_millis(), HedgeDelay::MAX.as_secs())]
    HedgeDelayOutOfRange,
}

impl FeaturePartError {
    /// Returns the reason of a violation with this error.
    #[must_use]
    pub const fn reason(self) -> FieldReason {
        match self {
            Self::FallbackRepeated { .. } | Self::RuleIdRepeated { .. } => FieldReason::ValueRepeated,
            Self::RuleIdMalformed => FieldReason::ValueMalformed,
            Self::MatchEmpty => FieldReason::FieldRequired,
            Self::FallbackCount
            | Self::RuleCount
            | Self::MatchCount
            | Self::EntryLength
            | Self::PercentOutOfRange
            | Self::DescriptionTooLong
            | Self::HedgeDelayOutOfRange => FieldReason::ValueOutOfRange,
        }
    }
}

#[cfg(test)]
mod tests;
