//! The setting of one AI-powered feature. What the feature is in itself stands in the catalogue.

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

/// A feature, who answers it, and how many of its calls at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: FeatureName,
    /// What was set of it.
    pub spec: FeatureSpec,
}

/// What a feature is, but for its name: only what somebody has set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeatureSpec {
    /// Who answers.
    pub setting: Setting,
    /// Limits of its calls, whoever answers.
    pub limits: FeatureLimits,
    /// When a call of it is made a second time. `None`: never.
    pub hedge_delay: Option<HedgeDelay>,
}

impl Feature {
    /// One of which nobody has set anything.
    #[must_use]
    pub fn unset(name: FeatureName) -> Self {
        Self {
            name,
            spec: FeatureSpec::default(),
        }
    }

    /// Whether nobody has set anything of it.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        self.spec == FeatureSpec::default()
    }

    /// How many places of a model it reserves: only while the model answers it, so none while it is switched off.
    #[must_use]
    pub fn places_on(&self, model: &ModelName) -> i64 {
        match &self.spec.setting {
            Setting::SelfHosted { model: own, .. } if own == model => {
                self.spec.limits.reserved_concurrency.map_or(0, Count::get).into()
            }
            Setting::SelfHosted { .. } | Setting::Unassigned | Setting::Disabled { .. } | Setting::Vendored => 0,
        }
    }

    /// Every model that it names, as often as it names it: what keeps a model from being deleted.
    pub fn references(&self) -> impl Iterator<Item = &ModelName> {
        self.spec.setting.references()
    }

    /// The same feature with every reference to `from` moved to `to`. A fallback that is then named already goes.
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

/// Who answers a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Nobody was chosen.
    Unassigned,
    /// Switched off.
    Disabled,
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted,
}

/// Who answers a feature, with the models where some may be named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Setting {
    /// Nobody was chosen.
    #[default]
    Unassigned,
    /// Switched off; what is named is kept for when it is switched on again.
    Disabled {
        /// The model that would answer.
        model: Option<ModelName>,
        /// The models beside it.
        routes: Routes,
    },
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted {
        /// The model that answers.
        model: ModelName,
        /// The models beside it.
        routes: Routes,
    },
}

/// The models that answer beside the one that is assigned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Tried in this order when the one before cannot answer.
    pub fallbacks: Fallbacks,
    /// Exceptions; the first that matches decides.
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
    /// Who answers.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Unassigned => Provider::Unassigned,
            Self::Disabled { .. } => Provider::Disabled,
            Self::Vendored => Provider::Vendored,
            Self::SelfHosted { .. } => Provider::SelfHosted,
        }
    }

    /// The model that is assigned.
    #[must_use]
    pub const fn model(&self) -> Option<&ModelName> {
        match self {
            Self::SelfHosted { model, .. } => Some(model),
            Self::Disabled { model, .. } => model.as_ref(),
            Self::Unassigned | Self::Vendored => None,
        }
    }

    /// The models that are tried when the one before cannot answer.
    #[must_use]
    pub fn fallbacks(&self) -> &[ModelName] {
        self.routes().map_or(&[], |routes| routes.fallbacks.as_slice())
    }

    /// The exceptions.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        self.routes().map_or(&[], |routes| routes.rules.as_slice())
    }

    /// The models beside the one that is assigned. `None`: the provider has none.
    #[must_use]
    pub const fn routes(&self) -> Option<&Routes> {
        match self {
            Self::SelfHosted { routes, .. } | Self::Disabled { routes, .. } => Some(routes),
            Self::Unassigned | Self::Vendored => None,
        }
    }

    /// Every model that it names, as often as it names it.
    pub fn references(&self) -> impl Iterator<Item = &ModelName> {
        let rules = self.rules().iter().map(|rule| &rule.model);
        self.model().into_iter().chain(self.fallbacks()).chain(rules)
    }

    /// The most bytes that it can take when it is stored.
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

/// Models in the order in which they are tried: at most 8, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fallbacks(Vec<ModelName>);

impl Fallbacks {
    /// The most that a feature may have.
    pub const COUNT_MAX: usize = 8;

    /// Takes a list.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the list as a whole.
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

    /// The models, in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[ModelName] {
        &self.0
    }
}

/// Why a value or a list cannot be a part of a feature's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeaturePartError {
    /// There are too many fallbacks.
    #[error("must have at most {} entries", Fallbacks::COUNT_MAX)]
    FallbackCount,
    /// The model of this entry stands in the list before.
    #[error("names a model that is already in the list")]
    FallbackRepeated {
        /// The entry, from 0.
        index: usize,
    },
    /// There are too many rules.
    #[error("must have at most {} entries", Rules::COUNT_MAX)]
    RuleCount,
    /// The id of this rule is that of one before.
    #[error("is the id of another rule of this feature")]
    RuleIdRepeated {
        /// The rule, from 0.
        index: usize,
    },
    /// The id is misspelled.
    #[error("must have 1 to 63 lower-case letters, digits and hyphens")]
    RuleIdMalformed,
    /// The rule matches everything.
    #[error("must have at least one condition")]
    MatchEmpty,
    /// The conditions have too many entries.
    #[error("must have at most {} entries in its lists together", RuleMatch::COUNT_MAX)]
    MatchCount,
    /// An entry is empty or too long.
    #[error("must have 1 to {} characters", RuleMatch::LENGTH_MAX)]
    EntryLength,
    /// The share is out of range, or finer than it may be.
    #[error("must be above 0, at most 100, in steps of 0.01")]
    PercentOutOfRange,
    /// The description is too long.
    #[error("must have at most {} characters", Description::LENGTH_MAX)]
    DescriptionTooLong,
    /// The span is out of range.
    #[error("must be {} ms to {} s", HedgeDelay::MIN.as_millis(), HedgeDelay::MAX.as_secs())]
    HedgeDelayOutOfRange,
}

impl FeaturePartError {
    /// The reason that a violation with this error has.
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
