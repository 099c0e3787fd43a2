//! The models that a call considered, and the outcome of each.

use switchboard::{
    names::{FeatureName, ModelName},
    resource::feature::RuleId,
};

use super::failure::{CallError, CallRefusal};
use crate::catalog::{Candidate, Unusable};

/// A model that was considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The model.
    pub model: ModelName,
    /// The feature whose setting names it.
    pub source_feature: &'static FeatureName,
    /// The rule that names it.
    pub rule: Option<RuleId>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Considered {
    /// A candidate and what became of it.
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

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Chosen,
    /// It could answer, and is not needed.
    Standby,
    /// Its rule does not decide.
    RuleNotMatched,
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped.
    CredentialMissing,
    /// Its servers take no calls for now.
    Ejected,
    /// It has no place for another call.
    Full,
    /// It cannot take the call or failed it, for this reason.
    Failed(String),
    /// There is no usable version of it here yet.
    NotReady,
}

impl From<&CallError> for Outcome {
    /// The outcome of a candidate that was passed over or failed.
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Refused(CallRefusal::Unusable { why, .. }) => (*why).into(),
            CallError::Refused(CallRefusal::Ejected { .. }) => Self::Ejected,
            CallError::Refused(CallRefusal::Overloaded { .. }) => Self::Full,
            CallError::Refused(_) | CallError::Interrupted(_) | CallError::Upstream(_) | CallError::Internal => {
                Self::Failed(error.to_string())
            }
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
