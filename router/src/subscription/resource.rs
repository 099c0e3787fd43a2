//! One resource of the stream: the bytes that are hashed, and what this build reads in them.
//!
//! Pure. What cannot be read is still kept, under its digest: the state must add up whatever this build understands.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use switchboard::{
    digest::{ItemDigest, ItemParts},
    endpoint::Origin,
    names::{CredentialId, FeatureName, ModelName, Revision},
    reason::FieldReason,
    resource::model::ModelSpec,
};

use crate::catalog::CompiledSetting;

/// A resource as the registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its bytes and where they stand in the history.
    pub raw: Raw,
    /// The digest of [`Self::raw`].
    pub digest: ItemDigest,
    /// What this build reads in it.
    pub content: Content,
}

/// What is hashed of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Its name, of any kind.
    pub name: Arc<str>,
    /// The revision at which this life of the name began.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// Type URL of the payload.
    pub type_url: Box<str>,
    /// The payload, never encoded again.
    pub value: Bytes,
    /// The capabilities that a reader needs, sorted.
    pub requires: Vec<String>,
}

/// What this build reads in a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A model.
    Model(ModelName, Box<ModelContent>),
    /// A feature of this build's catalogue. An error: its setting cannot be used.
    Feature(FeatureName, Result<CompiledSetting, Refusal>),
    /// The settings: whether self-hosted inference is paused.
    Settings(Result<bool, Refusal>),
    /// Nothing that a router has a use for: a kind or a feature that this build does not know.
    Other,
}

/// What is read in a model. What takes something away is read even where the rest is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelContent {
    /// It was taken out of selection.
    pub disabled: bool,
    /// Its credential. `None`: unreadable, and [`Self::spec`] is an error.
    pub credential: Option<CredentialSpec>,
    /// How to call it.
    pub spec: Result<Arc<ModelSpec>, Refusal>,
}

/// Which credential a model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSpec {
    /// None is wanted.
    None,
    /// One that has to be fetched.
    Set(CredentialRef),
    /// It was dropped and no other was given.
    Dropped,
}

/// Names a credential without revealing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRef {
    /// The id of this very token.
    pub id: CredentialId,
    /// The origins to which it may be sent.
    pub origins: BTreeSet<Origin>,
}

/// Why this build cannot use a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field at fault, as a path inside the resource. Empty: the resource as a whole.
    pub field: String,
    /// The reason, for programs.
    pub reason: FieldReason,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal for one field.
    pub fn new(field: impl Into<String>, reason: FieldReason, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl Resource {
    /// Hashes a resource; `content` is what was read in it.
    #[must_use]
    pub fn new(mut raw: Raw, content: Content) -> Self {
        raw.requires.sort_unstable();
        let digest = ItemDigest::of(&ItemParts {
            name: &raw.name,
            create_revision: raw.create_revision,
            revision: raw.revision,
            type_url: &raw.type_url,
            value: &raw.value,
            requires: &raw.requires,
        });
        Self { raw, digest, content }
    }
}
