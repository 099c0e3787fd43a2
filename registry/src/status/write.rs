//! What can go wrong with writes, and with reads of single resources.

use std::time::Duration;

use switchboard::{
    failure::Failure,
    names::ResourceName,
    reason::{Reason, key},
};

use crate::{
    commit::CommitError,
    domain::write::WriteError,
    store::{Kind, StoreError},
};

/// When repeating a write may help.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const MODEL: &str = "switchboard.registry.v1.Model";
const FEATURE: &str = "switchboard.registry.v1.Feature";
const SETTINGS: &str = "switchboard.registry.v1.Settings";

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused(error) => error.into(),
            CommitError::Store(error) => store(&error),
            CommitError::OutcomeUnknown => Self::new(
                Reason::WriteOutcomeUnknown,
                "the write could not be confirmed; read the resource to see whether it was made",
            )
            .retry_after(RETRY_AFTER),
            CommitError::Ended => {
                Self::new(Reason::ServerDraining, "the registry is shutting down").retry_after(RETRY_AFTER)
            }
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        match error {
            WriteError::Invalid(violations) => Self::invalid(&violations),
            WriteError::NotFound(name) => not_found(&name),
            WriteError::Conflict { name, revision } => Self::new(Reason::RevisionConflict, message)
                .with(key::REVISION, revision)
                .with_resource(kind(&name), &name),
            WriteError::NameTaken { field, holder } => Self::new(Reason::ModelNameTaken, message)
                .with(key::FIELD, field)
                .with_resource(MODEL, holder),
            WriteError::BetaNotEnabled(subjects) => {
                let failure = Self::new(Reason::BetaNotEnabled, message);
                subjects.into_iter().fold(failure, |failure, subject| {
                    failure.with_precondition(subject, "needs `settings.beta_enabled`")
                })
            }
        }
    }
}

/// The failure of a call about a resource that does not exist.
#[must_use]
pub fn not_found(name: &ResourceName) -> Failure {
    let message = format!("`{name}` does not exist");
    match name {
        ResourceName::Model(_) => Failure::new(Reason::ModelNotFound, message).with(key::MODEL, name),
        ResourceName::Feature(_) => Failure::new(Reason::FeatureNotFound, message).with(key::FEATURE, name),
        // The settings always exist.
        ResourceName::Settings => Failure::new(Reason::InternalError, message),
    }
    .with_resource(kind(name), name)
}

fn store(error: &StoreError) -> Failure {
    match error.kind() {
        Kind::Full => Failure::new(Reason::StorageFull, "the registry's disk is full"),
        Kind::Busy => Failure::new(
            Reason::StorageBusy,
            "the registry's database is held by another program",
        )
        .retry_after(RETRY_AFTER),
        Kind::Corrupt => Failure::new(Reason::StorageCorrupt, "the registry's database is damaged"),
        Kind::ReadOnly => Failure::new(Reason::StorageReadOnly, "the registry's database cannot be written"),
        Kind::Other => Failure::new(Reason::InternalError, "the write could not be stored"),
    }
}

const fn kind(name: &ResourceName) -> &'static str {
    match name {
        ResourceName::Model(_) => MODEL,
        ResourceName::Feature(_) => FEATURE,
        ResourceName::Settings => SETTINGS,
    }
}
