//! A model's credential: the API token, its id, and the origins that it is bound to.

use std::collections::BTreeSet;

use switchboard::{endpoint::Origin, names::CredentialId, secret::ApiToken};

/// The state of a model's API token.
#[derive(Debug, Clone, Default)]
pub enum ModelCredential {
    /// The model needs no API token. Calls carry none.
    #[default]
    None,
    /// The model has an API token.
    Set(SetCredential),
    /// The API token was dropped because an origin was added. Calls fail until a token is set, or the model is set to
    /// need none.
    Dropped,
}

/// An API token and the origins to which it may be sent.
#[derive(Debug, Clone)]
pub struct SetCredential {
    /// New each time a token is set, and never used again.
    pub id: CredentialId,
    /// The origins of the model when the token was set. They never change for one id.
    pub origins: BTreeSet<Origin>,
    /// The token.
    pub token: ApiToken,
}
