//! One resource of the stream: the bytes that are hashed, and their content as far as this build can decode it.
//!
//! Pure. A resource that cannot be decoded is still kept with its digest, because the digest of the state must match
//! even if this build does not understand every resource.

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
    /// Its bytes, and its revisions in the history.
    pub raw: Raw,
    /// The digest of [`Self::raw`].
    pub digest: ItemDigest,
    /// The content as far as this build can decode it.
    pub content: Content,
}

/// The parts of a resource that are hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The name of the resource, of any kind.
    pub name: Arc<str>,
    /// The revision at which the resource was created.
    pub create_revision: Revision,
    /// The revision of its last change.
    pub revision: Revision,
    /// Type URL of the payload.
    pub type_url: Box<str>,
    /// The payload as it was received. It is never encoded again.
    pub value: Bytes,
    /// The capabilities that a router needs to use the resource, sorted.
    pub requires: Vec<String>,
}

/// The content of a resource as this build decodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A model.
    Model(ModelName, Box<ModelContent>),
    /// A feature of this build's catalogue. `Err`: its setting cannot be used.
    Feature(FeatureName, Result<CompiledSetting, Refusal>),
    /// The settings: whether self-hosted inference is paused. `Err`: the settings cannot be used.
    Settings(Result<bool, Refusal>),
    /// A resource that a router does not use: of a kind or a feature that this build does not know.
    Other,
}

/// The content of a model. Fields that take something away are decoded even if the rest of the model is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelContent {
    /// Whether the model is disabled.
    pub disabled: bool,
    /// The model's credential. `None`: it is unreadable, and [`Self::spec`] is an error.
    pub credential: Option<CredentialSpec>,
    /// How to call the model. `Err`: this build cannot use it.
    pub spec: Result<Arc<ModelSpec>, Refusal>,
}

/// The credential of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSpec {
    /// The model has no credential.
    None,
    /// The model has a credential, which must be fetched.
    Set(CredentialRef),
    /// The credential was dropped, and no other one was given.
    Dropped,
}

/// Identifies a credential without containing the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRef {
    /// The id of the token. A new token has a new id.
    pub id: CredentialId,
    /// The origins to which it may be sent.
    pub origins: BTreeSet<Origin>,
}

/// Why this build cannot use a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The invalid field, as a path inside the resource. Empty: the resource as a whole.
    pub field: String,
    /// The reason, for programs.
    pub reason: FieldReason,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    /// Creates a refusal of one field.
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
    /// Creates a resource and computes its digest. `content` is the decoded content.
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
