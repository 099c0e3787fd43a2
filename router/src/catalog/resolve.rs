//! Who answers a call: the order in which models may be tried, and what decided it.

use std::{sync::Arc, time::Duration};

use switchboard::{
    catalogue::{Catalogue, FeatureFacts},
    names::{FeatureName, ModelName},
    resource::{
        feature::{HedgeDelay, RuleId},
        model::Count,
    },
};

use super::{Assignment, Caller, Catalog, CompiledModel, CompiledRule, CompiledSetting, ModelState};

/// What was decided of one call. It goes with the catalog that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The feature that was asked for.
    pub feature: &'static FeatureName,
    /// The feature whose setting is used: the same, or its parent.
    pub source_feature: &'static FeatureName,
    /// The index of the rule that decided. `None`: none did.
    rule: Option<usize>,
}

/// A model that may answer a call.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a ModelName,
    /// The model, or why it cannot be called.
    pub model: Result<&'a Arc<CompiledModel>, Unusable>,
    /// The rule that names it. `None`: the feature does, as its model or as a fallback.
    pub rule: Option<&'a RuleId>,
    /// What decides when it answers.
    pub reason: SelectionReason,
}

/// What decided a selection: the last that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionReason {
    /// The feature names the model.
    Assigned,
    /// The feature is unassigned, and its parent names the model.
    ParentFeature,
    /// A rule names the model.
    CompiledRule,
    /// The models before it could not answer.
    Failover,
}

impl SelectionReason {
    /// As it stands in response metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "ASSIGNED",
            Self::ParentFeature => "PARENT_FEATURE",
            Self::Rule => "RULE",
            Self::Failover => "FAILOVER",
        }
    }
}

impl Candidate<'_> {
    /// Whether it is the feature's own `model`, by no rule and as no fallback: there its reservation counts.
    #[must_use]
    pub const fn has_reservation(&self) -> bool {
        matches!(self.reason, SelectionReason::Assigned | SelectionReason::ParentFeature)
    }
}

/// Why a model cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped and no other was given.
    CredentialMissing,
    /// There is no usable version of it here yet.
    NotReady,
}

/// Why no model is even considered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No feature has this name.
    #[error("no feature is called `{name}`")]
    UnknownFeature {
        /// The name that was asked for, at most 128 characters of it.
        name: String,
    },
    /// The feature is switched off.
    #[error("`{feature}` is switched off")]
    FeatureDisabled {
        /// The feature whose setting says so.
        feature: &'static FeatureName,
    },
    /// Nobody was chosen to answer the feature, nor its parent.
    #[error("`{feature}` is assigned to nobody")]
    FeatureUnassigned {
        /// The feature that was asked for.
        feature: &'static FeatureName,
    },
    /// GitLab's own cloud answers the feature.
    #[error("`{feature}` is answered by GitLab's own cloud")]
    FeatureVendored {
        /// The feature whose setting says so.
        feature: &'static FeatureName,
    },
    /// Self-hosted inference is switched off everywhere.
    #[error("self-hosted inference is switched off by the administrator")]
    InferencePaused {
        /// The feature that was asked for.
        feature: &'static FeatureName,
    },
}

impl Catalog {
    /// The feature of a name: machine name, with or without `features/`, or one of its other names.
    ///
    /// # Errors
    ///
    /// [`ResolveError::UnknownFeature`].
    pub fn feature(name: &str) -> Result<&'static FeatureFacts, ResolveError> {
        let asked = name.strip_prefix("features/").unwrap_or(name);
        Catalogue::get()
            .called(asked)
            .ok_or_else(|| ResolveError::UnknownFeature {
                name: asked.chars().take(128).collect(),
            })
    }

    /// The feature whose setting is used for a feature, and that setting: its own, or while that is unassigned its
    /// parent's, whole.
    #[must_use]
    pub fn source(&self, feature: &'static FeatureFacts) -> (&'static FeatureName, &CompiledSetting) {
        match (self.setting(&feature.name), &feature.parent) {
            (CompiledSetting::Unassigned, Some(parent)) => (parent, self.setting(parent)),
            (own, _) => (&feature.name, own),
        }
    }

    /// Decides who answers a call of a feature.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], when no model is even considered.
    pub fn resolve(&self, feature: &str, caller: &Caller<'_>) -> Result<Decision, ResolveError> {
        let decision = self.decide(Self::feature(feature)?, caller)?;
        if self.inference_paused {
            return Err(ResolveError::InferencePaused {
                feature: decision.feature,
            });
        }
        Ok(decision)
    }

    /// As [`Self::resolve`], as if self-hosted inference were not paused.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], when no model is even considered.
    pub fn decide(&self, feature: &'static FeatureFacts, caller: &Caller<'_>) -> Result<Decision, ResolveError> {
        let (source, setting) = self.source(feature);
        let assignment = match setting {
            CompiledSetting::Unassigned => return Err(ResolveError::FeatureUnassigned { feature: &feature.name }),
            CompiledSetting::Disabled => return Err(ResolveError::FeatureDisabled { feature: source }),
            CompiledSetting::Vendored => return Err(ResolveError::FeatureVendored { feature: source }),
            CompiledSetting::SelfHosted(assignment) => assignment,
        };
        // By the feature that has the rule: a user is on one side of it for all features that use it.
        let holds = |rule: &CompiledRule| rule.condition.holds(caller, source, &rule.id);
        Ok(Decision {
            feature: &feature.name,
            source_feature: source,
            rule: assignment.rules.iter().position(holds),
        })
    }

    /// The models that may answer, in the order in which they are tried: the one that was decided for, then the fallbacks.
    pub fn candidates<'a>(&'a self, decision: &Decision) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
        let rule = self.rule(decision);
        let inherited = decision.source_feature != decision.feature;
        let reason = match rule {
            Some(_) => SelectionReason::Rule,
            None if inherited => SelectionReason::ParentFeature,
            None => SelectionReason::Assigned,
        };
        let assignment = self.assignment(decision);
        let first = rule
            .map(|rule| &rule.model)
            .or_else(|| assignment.map(|one| &one.model));
        let fallbacks = assignment.map(|assignment| assignment.fallbacks.as_slice());
        let fallbacks = fallbacks.unwrap_or_default().iter();
        let first_of_all = first.map(|name| self.candidate(name, rule.map(|rule| &rule.id), reason));
        // A rule may name a model that is a fallback too: it is tried once.
        let others = fallbacks.filter(move |name| Some(*name) != first);
        first_of_all
            .into_iter()
            .chain(others.map(|name| self.candidate(name, None, SelectionReason::Failover)))
    }

    /// The rules of a decision with whether each is the one that decided, in order.
    pub fn rules<'a>(&'a self, decision: &Decision) -> impl Iterator<Item = (&'a CompiledRule, bool)> + use<'a> {
        let rules = self.assignment(decision).map(|assignment| assignment.rules.as_slice());
        let decided = decision.rule;
        let numbered = rules.unwrap_or_default().iter().enumerate();
        numbered.map(move |(index, rule)| (rule, Some(index) == decided))
    }

    /// How many calls the feature of a decision may have at a time. `None`: any number.
    #[must_use]
    pub fn max_concurrency(&self, decision: &Decision) -> Option<usize> {
        self.assignment(decision)?.limits.max_concurrency.map(Count::count)
    }

    /// When a call of the feature of a decision that has no token yet is made a second time. `None`: never.
    #[must_use]
    pub fn hedge_delay(&self, decision: &Decision) -> Option<Duration> {
        self.assignment(decision)?.hedge_delay.map(HedgeDelay::get)
    }

    /// How many places of a model are there for each feature whose `model` it is, whatever others do.
    pub fn reservations(&self, model: &ModelName) -> impl Iterator<Item = (&'static FeatureName, usize)> {
        let features = Catalogue::get().features().iter();
        features.filter_map(|feature| match self.setting(&feature.name) {
            CompiledSetting::SelfHosted(assignment) if assignment.model == *model => {
                let reserved = assignment.limits.reserved_concurrency.map_or(0, Count::count);
                (reserved > 0).then_some((&feature.name, reserved))
            }
            CompiledSetting::SelfHosted(_)
            | CompiledSetting::Unassigned
            | CompiledSetting::Disabled
            | CompiledSetting::Vendored => None,
        })
    }

    /// The rule that decided. `None`: none did.
    #[must_use]
    pub fn rule(&self, decision: &Decision) -> Option<&CompiledRule> {
        self.assignment(decision)?.rules.get(decision.rule?)
    }

    fn assignment(&self, decision: &Decision) -> Option<&Assignment> {
        match self.setting(decision.source_feature) {
            CompiledSetting::SelfHosted(assignment) => Some(assignment),
            CompiledSetting::Unassigned | CompiledSetting::Disabled | CompiledSetting::Vendored => None,
        }
    }

    fn candidate<'a>(
        &'a self,
        name: &'a ModelName,
        rule: Option<&'a RuleId>,
        reason: SelectionReason,
    ) -> Candidate<'a> {
        let model = match self.models.get(name) {
            Some(ModelState::Ready(model)) => Ok(model),
            Some(ModelState::Disabled) => Err(Unusable::Disabled),
            Some(ModelState::CredentialMissing) => Err(Unusable::CredentialMissing),
            Some(ModelState::NotReady) | None => Err(Unusable::NotReady),
        };
        Candidate {
            name,
            model,
            rule,
            reason,
        }
    }

    fn setting(&self, feature: &FeatureName) -> &CompiledSetting {
        self.features.get(feature).unwrap_or(&CompiledSetting::Unassigned)
    }
}
