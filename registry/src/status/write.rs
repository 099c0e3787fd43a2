//! Converts the errors of writes, and of reads of single resources, into failures.

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

/// After this time, repeating a write may succeed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const MODEL: &str = "switchboard.registry.v1.Model";
const FEATURE: &str = "switchboard.registry.v1.Feature";
const SETTINGS: &str = "switchboard.registry.v1.Settings";

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused(error) => error.into(),
            CommitError::RequestIdReused => Self::new(
                Reason::IdempotencyKeyReused,
                "`request_id` was already used for another write of this method; choose a new one",
            ),
            CommitError::Store(error) => store(&error, "the write could not be stored"),
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
            WriteError::InFuture { oldest, newest } => Self::new(Reason::RevisionInFuture, message)
                .with(key::OLDEST, oldest)
                .with(key::NEWEST, newest),
            WriteError::Compacted { oldest, newest } => Self::new(Reason::RevisionCompacted, message)
                .with(key::OLDEST, oldest)
                .with(key::NEWEST, newest),
            WriteError::NameTaken { field, holder } => Self::new(Reason::ModelNameTaken, message)
                .with(key::FIELD, field)
                .with_resource(MODEL, holder),
            WriteError::InUse { name, features } => {
                let failure = Self::new(Reason::ModelInUse, message)
                    .with(key::MODEL, &name)
                    .with_resource(MODEL, &name);
                features.into_iter().fold(failure, |failure, feature| {
                    failure.with_precondition(feature.to_string(), format!("must not name `{name}`"))
                })
            }
            WriteError::BetaNotEnabled(subjects) => {
                let failure = Self::new(Reason::BetaNotEnabled, message);
                subjects.into_iter().fold(failure, |failure, subject| {
                    failure.with_precondition(subject, "needs `settings.beta_enabled`")
                })
            }
        }
    }
}

/// Returns the failure of a call about a resource that does not exist.
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

/// Returns the failure of a call for which the history could not be read.
#[must_use]
pub fn unreadable_history(error: &StoreError) -> Failure {
    store(error, "the history could not be read")
}

fn store(error: &StoreError, other: &str) -> Failure {
    match error.kind() {
        Kind::Full => Failure::new(Reason::StorageFull, "the registry's disk is full"),
        Kind::Busy => Failure::new(
            Reason::StorageBusy,
            "the registry's database is held by another program",
        )
        .retry_after(RETRY_AFTER),
        Kind::Corrupt => Failure::new(Reason::StorageCorrupt, "the registry's database is damaged"),
        Kind::ReadOnly => Failure::new(Reason::StorageReadOnly, "the registry's database cannot be written"),
        Kind::Io | Kind::Other => Failure::new(Reason::InternalError, other),
    }
}

const fn kind(name: &ResourceName) -> &'static str {
    match name {
        ResourceName::Model(_) => MODEL,
        ResourceName::Feature(_) => FEATURE,
        ResourceName::Settings => SETTINGS,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchboard::{
        names::{FeatureName, ModelName, Revision},
        reason::FieldReason,
        violation::Violations,
    };
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;

    fn status(failure: impl Into<Failure>) -> Status {
        Status::from(failure.into())
    }

    fn reason(status: &Status) -> String {
        status.get_error_details().error_info().unwrap().reason.clone()
    }

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        let model = ModelName::parse("models/a").unwrap();
        let mut violations = Violations::new();
        violations.push("model.family", FieldReason::FamilyUnknown, "is not in the catalogue");
        for (error, code, expected) in [
            (WriteError::Invalid(violations), Code::InvalidArgument, "FAMILY_UNKNOWN"),
            (
                WriteError::NotFound(model.clone().into()),
                Code::NotFound,
                "MODEL_NOT_FOUND",
            ),
            (
                WriteError::NotFound(ResourceName::parse("features/x").unwrap()),
                Code::NotFound,
                "FEATURE_NOT_FOUND",
            ),
            (
                WriteError::Conflict {
                    name: model.clone().into(),
                    revision: Revision::ZERO,
                },
                Code::Aborted,
                "REVISION_CONFLICT",
            ),
            (
                WriteError::InFuture {
                    oldest: Revision::ZERO,
                    newest: Revision::ZERO,
                },
                Code::OutOfRange,
                "REVISION_IN_FUTURE",
            ),
            (
                WriteError::Compacted {
                    oldest: Revision::ZERO,
                    newest: Revision::ZERO,
                },
                Code::OutOfRange,
                "REVISION_COMPACTED",
            ),
            (
                WriteError::NameTaken {
                    field: "model_id",
                    holder: model,
                },
                Code::AlreadyExists,
                "MODEL_NAME_TAKEN",
            ),
            (
                WriteError::InUse {
                    name: ModelName::parse("models/a").unwrap(),
                    features: Vec::new(),
                },
                Code::FailedPrecondition,
                "MODEL_IN_USE",
            ),
            (
                WriteError::BetaNotEnabled(vec!["family `qwen`".to_owned()]),
                Code::FailedPrecondition,
                "BETA_NOT_ENABLED",
            ),
        ] {
            let status = status(CommitError::Refused(error));
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
        }
    }

    #[test]
    fn refusals_name_their_subjects() {
        let model = ModelName::parse("models/a").unwrap();
        let taken = status(WriteError::NameTaken {
            field: "model.display_name",
            holder: model.clone(),
        });
        let details = taken.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["field"], "model.display_name");
        assert_eq!(details.resource_info().unwrap().resource_name, "models/a");

        let conflict = status(WriteError::Conflict {
            name: model.into(),
            revision: Revision::new(7).unwrap(),
        });
        assert_eq!(
            conflict.get_error_details().error_info().unwrap().metadata["revision"],
            "7"
        );

        let in_use = status(WriteError::InUse {
            name: ModelName::parse("models/a").unwrap(),
            features: vec![FeatureName::parse("features/duo_chat").unwrap()],
        });
        let details = in_use.get_error_details();
        let condition = &details.precondition_failure().unwrap().violations[0];
        assert_eq!(condition.subject, "features/duo_chat");
        assert_eq!(condition.r#type, "MODEL_IN_USE");
        let compacted = status(WriteError::Compacted {
            oldest: Revision::new(3).unwrap(),
            newest: Revision::new(7).unwrap(),
        });
        let details = compacted.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!((&*metadata["oldest"], &*metadata["newest"]), ("3", "7"));
        let reused = status(CommitError::RequestIdReused);
        assert_eq!(
            (reused.code(), reason(&reused).as_str()),
            (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED")
        );

        let subjects = vec!["feature `x`".to_owned(), "family `qwen`".to_owned()];
        let beta = status(WriteError::BetaNotEnabled(subjects));
        assert!(beta.message().starts_with("feature `x` and family `qwen` are in beta"));
        let details = beta.get_error_details();
        let conditions = &details.precondition_failure().unwrap().violations;
        assert_eq!((conditions.len(), conditions[0].subject.as_str()), (2, "feature `x`"));
    }

    #[test]
    fn a_store_failure_is_reported_by_kind_and_with_advice_to_retry() {
        let failing = |kind| {
            CommitError::Store(Arc::new(StoreError::Sql {
                during: "commit",
                kind,
                source: sqlx::Error::WorkerCrashed,
            }))
        };
        for (error, code, expected, is_retried) in [
            (failing(Kind::Full), Code::ResourceExhausted, "STORAGE_FULL", false),
            (failing(Kind::Busy), Code::Unavailable, "STORAGE_BUSY", true),
            (failing(Kind::Corrupt), Code::DataLoss, "STORAGE_CORRUPT", false),
            (
                failing(Kind::ReadOnly),
                Code::FailedPrecondition,
                "STORAGE_READ_ONLY",
                false,
            ),
            (failing(Kind::Other), Code::Internal, "INTERNAL_ERROR", false),
            (
                CommitError::OutcomeUnknown,
                Code::Unavailable,
                "WRITE_OUTCOME_UNKNOWN",
                true,
            ),
            (CommitError::Ended, Code::Unavailable, "SERVER_DRAINING", true),
        ] {
            let status = status(error);
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
            assert_eq!(
                status.get_error_details().retry_info().is_some(),
                is_retried,
                "{expected}"
            );
            assert!(
                !status.message().contains("worker"),
                "the cause is not shown to the caller"
            );
        }
    }
}
