//! What the registry asks to be checked, and what is answered.

use std::time::Duration;

use switchboard::names::{CheckId, CredentialId, ModelName, Revision};

use super::resource::{ModelSpec, Refusal};
use crate::check::{Finding, Identifier, Spec};

/// A check that the registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Names it, and is the key to its credential.
    pub id: CheckId,
    /// What to check.
    pub target: Target,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
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
pub struct Answer {
    /// The check.
    pub id: CheckId,
    /// The revision of the configuration that it went by.
    pub revision: Revision,
    /// What was found, server by server.
    pub findings: Vec<Finding>,
}

/// What a check needs of how a model is called. `name`: that of the model, if it has one.
pub(crate) fn check_spec(spec: &ModelSpec, name: Option<&ModelName>) -> Spec {
    let identifier = match (&spec.identifier, name) {
        (Some(given), _) => Identifier::Given(given.clone()),
        (None, Some(name)) => Identifier::Default(name.id().to_owned()),
        (None, None) => Identifier::None,
    };
    Spec {
        family: spec.family,
        platform: spec.platform.clone(),
        identifier,
        endpoints: spec.endpoints.iter().map(|endpoint| endpoint.uri.clone()).collect(),
        infill_mode: spec.infill_mode,
        limits: spec.limits,
        tls: spec.tls.clone(),
    }
}
