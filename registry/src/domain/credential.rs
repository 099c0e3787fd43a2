//! A model's credential: the API token, its id, and the origins that it is bound to.

use std::collections::BTreeSet;

use switchboard::{endpoint::Origin, names::CredentialId, secret::ApiToken};

/// Whether a model has an API token.
#[derive(Debug, Clone, Default)]
pub enum ModelCredential {
    /// None is wanted: calls carry none.
    #[default]
    None,
    /// There is one.
    Set(SetCredential),
    /// It was dropped because an origin was added: calls fail until one is given or cleared.
    Dropped,
}

/// An API token and where it may be sent.
#[derive(Debug, Clone)]
pub struct SetCredential {
    /// New at each set, never used again.
    pub id: CredentialId,
    /// The origins of the write that set it. They never change for one id.
    pub origins: BTreeSet<Origin>,
    /// The token.
    pub token: ApiToken,
}
