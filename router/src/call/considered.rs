//! The models that a call considered, and the outcome of each.

use switchboard::{
    names::{FeatureName, ModelName},
    resource::feature::RuleId,
};

use super::failure::{CallError, CallRefusal};
use crate::catalog::{Candidate, Unusable};

/// A model that was considered for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The model.
    pub model: ModelName,
    /// The feature whose setting names it.
    pub source_feature: &'static FeatureName,
    /// The rule that names it. `None`: the feature names it, as its model or as a fallback.
    pub rule: Option<RuleId>,
    /// What happened to it.
    pub outcome: Outcome,
}

impl Considered {
    /// Creates the record of a candidate and its outcome.
    #[must_use]
    pub fn new(candidate: &Candidate<'_>, source_feature: &'static FeatureName, outcome: Outcome) -> Self {
        Self {
            model: candidate.name.clone(),
            source_feature,
            rule: candidate.rule.cloned(),
            outcome,
        }
    }
}

/// What happened to a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Chosen,
    /// It could answer, but is not needed.
    Standby,
    /// Its rule does not decide this call.
    RuleNotMatched,
    /// It is disabled.
    Disabled,
    /// Its API token was dropped, and no other was set.
    CredentialMissing,
    /// Its servers take no calls at the moment.
    Ejected,
    /// It has no place for another call.
    Full,
    /// It cannot take the call, or an attempt failed. The text says why.
    Failed(String),
    /// This router has no usable version of it yet.
    NotReady,
}

impl From<&CallError> for Outcome {
    /// The outcome of a candidate that was passed over or failed.
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Refused(CallRefusal::Unusable { why, .. }) => (*why).into(),
            CallError::Refused(CallRefusal::Ejected { .. }) => Self::Ejected,
            CallError::Refused(CallRefusal::Overloaded { .. }) => Self::Full,
            CallError::Upstream(error) => Self::Failed(error.for_caller().to_string()),
            CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal => Self::Failed(error.to_string()),
        }
    }
}

impl From<Unusable> for Outcome {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Disabled => Self::Disabled,
            Unusable::CredentialMissing => Self::CredentialMissing,
            Unusable::NotReady => Self::NotReady,
        }
    }
}
