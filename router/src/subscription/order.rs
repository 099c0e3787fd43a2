//! Checks as the registry requests them, and the answers.

use std::time::Duration;

use switchboard::names::{CheckId, CredentialId, ModelName, Revision};

use super::resource::Refusal;
use crate::check::{Finding, Spec};

/// A check that the registry requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedCheck {
    /// Identifies the check, and authorizes fetching its credential.
    pub id: CheckId,
    /// The model to check.
    pub target: RequestedTarget,
    /// Time limit of the check.
    pub timeout: Duration,
}

/// The model to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedTarget {
    /// A registered model. The newest received version of it is checked.
    Registered(ModelName),
    /// A model that is not saved.
    Unsaved {
        /// How to call the model. Boxed, because most requests are smaller.
        spec: Result<Box<Spec>, Refusal>,
        /// The credential to fetch. `None`: the model has none.
        credential: Option<CredentialId>,
        /// Whether the model has a credential that must not be sent to its servers.
        is_token_dropped: bool,
    },
}

/// The result of a check.
#[derive(Debug)]
pub struct CheckAnswer {
    /// The id of the check.
    pub id: CheckId,
    /// The revision of the configuration on which the check is based.
    pub revision: Revision,
    /// The findings for each server.
    pub findings: Vec<Finding>,
}
