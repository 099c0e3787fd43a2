//! What the registry asks to be checked, and what is answered.

use std::time::Duration;

use switchboard::names::{CheckId, CredentialId, ModelName, Revision};

use super::resource::Refusal;
use crate::check::{Finding, Spec};

/// A check that the registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedCheck {
    /// Names it, and is the key to its credential.
    pub id: CheckId,
    /// What to check.
    pub target: RequestedTarget,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedTarget {
    /// A model that is registered: what has been received of it.
    Registered(ModelName),
    /// A model that is not saved.
    Unsaved {
        /// How to call it. Boxed: most orders are smaller.
        spec: Result<Box<Spec>, Refusal>,
        /// The credential to fetch.
        credential: Option<CredentialId>,
        /// There is a credential, but not for its servers.
        is_token_dropped: bool,
    },
}

/// What a check has found.
#[derive(Debug)]
pub struct CheckAnswer {
    /// The check.
    pub id: CheckId,
    /// The revision of the configuration that it went by.
    pub revision: Revision,
    /// What was found, server by server.
    pub findings: Vec<Finding>,
}
