//! Resolves a call: which models may answer it, in which order, and what decided that.

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

/// The decision about one call. It is valid only for the catalog that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The requested feature.
    pub feature: &'static FeatureName,
    /// The feature whose setting is used: the requested one, or its parent.
    pub source_feature: &'static FeatureName,
    /// Index of the rule that decided. `None`: no rule decided.
    rule: Option<usize>,
}

/// A model that may answer a call.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a ModelName,
    /// The model, or why it cannot be called.
    pub model: Result<&'a Arc<CompiledModel>, Unusable>,
    /// The rule that names it. `None`: the feature names it, as its model or as a fallback.
    pub rule: Option<&'a RuleId>,
    /// What decided the selection if this candidate answers.
    pub reason: SelectionReason,
}

/// What decided a selection. If several things did, the last one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionReason {
    /// The feature names the model.
    Assigned,
    /// The feature is unassigned, and its parent names the model.
    ParentFeature,
    /// A rule names the model.
    Rule,
    /// The models before it could not answer.
    Failover,
}

impl SelectionReason {
    /// Returns the reason as it is written in response metadata.
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
    /// Whether the candidate is the feature's own `model`, and not named by a rule or as a fallback. Only then does the
    /// feature's reservation count.
    #[must_use]
    pub const fn has_reservation(&self) -> bool {
        matches!(self.reason, SelectionReason::Assigned | SelectionReason::ParentFeature)
    }
}

/// Why a model cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It is disabled.
    Disabled,
    /// Its API token was dropped, and no other was set.
    CredentialMissing,
    /// This router has no usable version of it yet.
    NotReady,
}

/// Why a call is refused before any model is considered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No feature has this name.
    #[error("no feature is called `{name}`")]
    UnknownFeature {
        /// The requested name, cut to 128 characters.
        name: String,
    },
    /// The feature is switched off.
    #[error("`{feature}` is switched off")]
    FeatureDisabled {
        /// The feature whose setting decided.
        feature: &'static FeatureName,
    },
    /// Neither the feature nor its parent has a provider.
    #[error("`{feature}` is not assigned to any provider")]
    FeatureUnassigned {
        /// The requested feature.
        feature: &'static FeatureName,
    },
    /// GitLab's own cloud answers the feature.
    #[error("`{feature}` is answered by GitLab's own cloud")]
    FeatureVendored {
        /// The feature whose setting decided.
        feature: &'static FeatureName,
    },
    /// Self-hosted inference is switched off everywhere.
    #[error("self-hosted inference is switched off by the administrator")]
    InferencePaused {
        /// The requested feature.
        feature: &'static FeatureName,
    },
}

impl Catalog {
    /// Returns the feature with this name: a machine name, with or without `features/`, or an alias.
    ///
    /// # Errors
    ///
    /// [`ResolveError::UnknownFeature`] if no feature has this name.
    pub fn feature(name: &str) -> Result<&'static FeatureFacts, ResolveError> {
        let asked = name.strip_prefix("features/").unwrap_or(name);
        Catalogue::get()
            .called(asked)
            .ok_or_else(|| ResolveError::UnknownFeature {
                name: asked.chars().take(128).collect(),
            })
    }

    /// Returns the feature whose setting is used for `feature`, and that setting. While `feature` is unassigned, its
    /// parent's whole setting is used.
    #[must_use]
    pub fn source(&self, feature: &'static FeatureFacts) -> (&'static FeatureName, &CompiledSetting) {
        match (self.setting(&feature.name), &feature.parent) {
            (CompiledSetting::Unassigned, Some(parent)) => (parent, self.setting(parent)),
            (own, _) => (&feature.name, own),
        }
    }

    /// Decides which models may answer a call for a feature.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] if the call is refused before any model is considered.
    pub fn resolve(&self, feature: &str, caller: &Caller<'_>) -> Result<Decision, ResolveError> {
        let decision = self.decide(Self::feature(feature)?, caller)?;
        if self.inference_paused {
            return Err(ResolveError::InferencePaused {
                feature: decision.feature,
            });
        }
        Ok(decision)
    }

    /// Like [`Self::resolve`], but as if self-hosted inference were not paused.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] if the call is refused before any model is considered.
    pub fn decide(&self, feature: &'static FeatureFacts, caller: &Caller<'_>) -> Result<Decision, ResolveError> {
        let (source, setting) = self.source(feature);
        let assignment = match setting {
            CompiledSetting::Unassigned => return Err(ResolveError::FeatureUnassigned { feature: &feature.name }),
            CompiledSetting::Disabled => return Err(ResolveError::FeatureDisabled { feature: source }),
            CompiledSetting::Vendored => return Err(ResolveError::FeatureVendored { feature: source }),
            CompiledSetting::SelfHosted(assignment) => assignment,
        };
        // Drawn with the feature that has the rule, so that all features that use the rule treat a user alike.
        let holds = |rule: &CompiledRule| rule.condition.holds(caller, source, &rule.id);
        Ok(Decision {
            feature: &feature.name,
            source_feature: source,
            rule: assignment.rules.iter().position(holds),
        })
    }

    /// Returns the models that may answer, in the order in which they are tried: the decided model, then the fallbacks.
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
        // A rule may name a model that is also a fallback: it is tried only once.
        let others = fallbacks.filter(move |name| Some(*name) != first);
        first_of_all
            .into_iter()
            .chain(others.map(|name| self.candidate(name, None, SelectionReason::Failover)))
    }

    /// Returns the rules of the decision's setting in order, each with whether it decided.
    pub fn rules<'a>(&'a self, decision: &Decision) -> impl Iterator<Item = (&'a CompiledRule, bool)> + use<'a> {
        let rules = self.assignment(decision).map(|assignment| assignment.rules.as_slice());
        let decided = decision.rule;
        let numbered = rules.unwrap_or_default().iter().enumerate();
        numbered.map(move |(index, rule)| (rule, Some(index) == decided))
    }

    /// Returns the limit of concurrent calls of the decision's feature. `None`: no limit.
    #[must_use]
    pub fn max_concurrency(&self, decision: &Decision) -> Option<usize> {
        self.assignment(decision)?.limits.max_concurrency.map(Count::count)
    }

    /// Returns the delay after which a call without a token gets a second attempt in parallel. `None`: it gets none.
    #[must_use]
    pub fn hedge_delay(&self, decision: &Decision) -> Option<Duration> {
        self.assignment(decision)?.hedge_delay.map(HedgeDelay::get)
    }

    /// Returns how many places of a model each feature reserves. Only features whose own `model` it is reserve any.
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

    /// Returns the rule that decided. `None`: no rule decided.
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
