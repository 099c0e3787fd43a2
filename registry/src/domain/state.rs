//! The whole configuration at one revision: what readers, followers and the writer's checks go by.

use std::collections::BTreeMap;

use switchboard::names::ModelName;

use super::{credential::Credential, items::Items};

/// The whole configuration at one revision.
///
/// Published as an `Arc` and never changed: a clone is the working copy of the next revision.
#[derive(Debug, Clone)]
pub struct State {
    /// The resources as they are stored, streamed and hashed.
    pub items: Items,
    /// The credential of each model.
    pub credentials: BTreeMap<ModelName, Credential>,
}
