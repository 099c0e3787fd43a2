//! Converts the errors of the change stream into failures.

use std::time::Duration;

use switchboard::{
    failure::Failure,
    reason::{FieldReason, Reason, key},
    stream::RouterMessageError,
    violation::Violations,
};

use crate::{
    feed::{FeedError, credential::CredentialError, welcome::ResumeError},
    fleet::uplink::UplinkError,
};

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Self {
        let message = error.to_string();
        match error {
            FeedError::Resume(error) => error.into(),
            FeedError::Uplink(error) => error.into(),
            FeedError::FleetFull(_) | FeedError::TooManyWatchers => {
                Self::new(Reason::WatchLimitReached, message).retry_after(spread_delay())
            }
            FeedError::TooSlow => Self::new(Reason::WatchTooSlow, message).retry_after(spread_delay()),
            FeedError::Draining => Self::new(Reason::ServerDraining, message).retry_after(spread_delay()),
            FeedError::Broken => Self::new(Reason::InternalError, message),
        }
    }
}

impl From<ResumeError> for Failure {
    fn from(error: ResumeError) -> Self {
        let message = error.to_string();
        let out_of_range = |reason, oldest, newest| {
            Self::new(reason, message.clone())
                .with(key::OLDEST, oldest)
                .with(key::NEWEST, newest)
        };
        match error {
            ResumeError::Compacted { oldest, newest } => out_of_range(Reason::RevisionCompacted, oldest, newest),
            ResumeError::Ahead { oldest, newest } => out_of_range(Reason::RevisionInFuture, oldest, newest),
            ResumeError::OtherHistory { incarnation } => {
                Self::new(Reason::StoreIncarnationChanged, message).with(key::INCARNATION, incarnation.id)
            }
            ResumeError::Invalid(fault) => {
                let mut violations = Violations::new();
                violations.push("resume", FieldReason::CursorInvalid, fault.to_string());
                Self::invalid(&violations)
            }
        }
    }
}

impl From<UplinkError> for Failure {
    fn from(error: UplinkError) -> Self {
        match &error {
            UplinkError::Message(RouterMessageError::Malformed(violations)) => {
                let first = violations.as_slice().first();
                let first = first.map(|bad| format!(": `{}` {}", bad.field, bad.description));
                let message = format!("{error}{}", first.unwrap_or_default());
                Self::new(Reason::StreamProtocolViolation, message).with_fields(violations)
            }
            UplinkError::Message(RouterMessageError::UnknownKind | RouterMessageError::TooLarge)
            | UplinkError::Unreadable
            | UplinkError::HelloLate
            | UplinkError::HelloMissing
            | UplinkError::HelloAgain
            | UplinkError::ForeignCursor { .. }
            | UplinkError::Silent => Self::new(Reason::StreamProtocolViolation, error.to_string()),
        }
    }
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        let message = error.to_string();
        match error {
            CredentialError::UnknownModel(model) => {
                Self::new(Reason::ModelNotFound, message).with_resource("switchboard.registry.v1.Model", model)
            }
            CredentialError::CheckOver => Self::new(Reason::CredentialSuperseded, message),
            CredentialError::Superseded { model, current } => {
                let failure = Self::new(Reason::CredentialSuperseded, message).with(key::MODEL, model);
                match current {
                    Some(current) => failure.with(key::CREDENTIAL_ID, current),
                    None => failure,
                }
            }
        }
    }
}

/// Returns a random delay from 1 to 5 s, so that callers that were refused together do not retry together.
fn spread_delay() -> Duration {
    Duration::from_millis(fastrand::u64(1_000..5_000))
}

#[cfg(test)]
mod tests {
    use switchboard::{
        history::Incarnation,
        names::{CredentialId, IncarnationId, ModelName, Revision},
    };
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{feed::welcome::CursorFault, fleet::FleetFull};

    fn status(failure: impl Into<Failure>) -> Status {
        Status::from(failure.into())
    }

    fn reason(status: &Status) -> String {
        status.get_error_details().error_info().unwrap().reason.clone()
    }

    fn metadata(status: &Status, key: &str) -> Option<String> {
        let details = status.get_error_details();
        details.error_info().unwrap().metadata.get(key).cloned()
    }

    #[test]
    fn each_failure_has_its_code_and_reason() {
        let (oldest, newest) = (Revision::new(5).unwrap(), Revision::new(9).unwrap());
        let incarnation = Incarnation {
            number: 2,
            id: IncarnationId::random(),
        };
        let rows: [(FeedError, Code, &str); 18] = [
            (
                ResumeError::Compacted { oldest, newest }.into(),
                Code::OutOfRange,
                "REVISION_COMPACTED",
            ),
            (
                ResumeError::Ahead { oldest, newest }.into(),
                Code::OutOfRange,
                "REVISION_IN_FUTURE",
            ),
            (
                ResumeError::OtherHistory { incarnation }.into(),
                Code::FailedPrecondition,
                "STORE_INCARNATION_CHANGED",
            ),
            (
                ResumeError::Invalid(CursorFault::Unreadable).into(),
                Code::InvalidArgument,
                "CURSOR_INVALID",
            ),
            (
                ResumeError::Invalid(CursorFault::View).into(),
                Code::InvalidArgument,
                "CURSOR_INVALID",
            ),
            (
                ResumeError::Invalid(CursorFault::State).into(),
                Code::InvalidArgument,
                "CURSOR_INVALID",
            ),
            (
                UplinkError::from(RouterMessageError::UnknownKind).into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::Unreadable.into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::from(RouterMessageError::TooLarge).into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::HelloLate.into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::HelloMissing.into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::HelloAgain.into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (
                UplinkError::Silent.into(),
                Code::InvalidArgument,
                "STREAM_PROTOCOL_VIOLATION",
            ),
            (FleetFull.into(), Code::ResourceExhausted, "WATCH_LIMIT_REACHED"),
            (
                FeedError::TooManyWatchers,
                Code::ResourceExhausted,
                "WATCH_LIMIT_REACHED",
            ),
            (FeedError::TooSlow, Code::ResourceExhausted, "WATCH_TOO_SLOW"),
            (FeedError::Draining, Code::Unavailable, "SERVER_DRAINING"),
            (FeedError::Broken, Code::Internal, "INTERNAL_ERROR"),
        ];
        for (error, code, expected) in rows {
            let status = status(error);
            assert_eq!((status.code(), &*reason(&status)), (code, expected));
        }
    }

    #[test]
    fn a_refused_cursor_reports_the_revisions_that_can_be_resumed() {
        let (oldest, newest) = (Revision::new(5).unwrap(), Revision::new(9).unwrap());
        for error in [
            ResumeError::Compacted { oldest, newest },
            ResumeError::Ahead { oldest, newest },
        ] {
            let status = status(error);
            assert_eq!(metadata(&status, "oldest").as_deref(), Some("5"));
            assert_eq!(metadata(&status, "newest").as_deref(), Some("9"));
        }
        let incarnation = Incarnation {
            number: 2,
            id: IncarnationId::random(),
        };
        let other = status(ResumeError::OtherHistory { incarnation });
        assert_eq!(metadata(&other, "incarnation"), Some(incarnation.id.to_string()));
        let invalid = status(ResumeError::Invalid(CursorFault::View)).get_error_details();
        assert_eq!(invalid.bad_request().unwrap().field_violations[0].field, "resume");
    }

    #[test]
    fn a_broken_rule_is_named() {
        let status = status(UplinkError::ForeignCursor {
            field: "report.received",
        });
        assert_eq!(reason(&status), "STREAM_PROTOCOL_VIOLATION");
        assert!(status.message().contains("report.received"), "{}", status.message());
    }

    #[test]
    fn invalid_fields_of_a_message_are_named() {
        let mut violations = Violations::new();
        violations.push(
            "report.held_total",
            FieldReason::ValueOutOfRange,
            "must not be negative",
        );
        let status = status(UplinkError::from(RouterMessageError::Malformed(violations)));
        assert_eq!(reason(&status), "STREAM_PROTOCOL_VIOLATION");
        assert_eq!(
            status.message(),
            "the message has invalid fields: `report.held_total` must not be negative"
        );
        let details = status.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "report.held_total"
        );
    }

    #[test]
    fn a_superseded_credential_names_the_current_one() {
        let model = ModelName::parse("models/a").unwrap();
        let id = CredentialId::random();
        let superseded = |current| {
            status(CredentialError::Superseded {
                model: model.clone(),
                current,
            })
        };
        assert_eq!(reason(&superseded(None)), "CREDENTIAL_SUPERSEDED");
        assert_eq!(superseded(None).code(), Code::FailedPrecondition);
        assert_eq!(metadata(&superseded(None), "credential_id"), None);
        assert_eq!(metadata(&superseded(Some(id)), "credential_id"), Some(id.to_string()));

        let unknown = status(CredentialError::UnknownModel(model.clone()));
        assert_eq!(
            (unknown.code(), &*reason(&unknown)),
            (Code::NotFound, "MODEL_NOT_FOUND")
        );
        let details = unknown.get_error_details();
        assert_eq!(details.resource_info().unwrap().resource_name, "models/a");
    }
}
