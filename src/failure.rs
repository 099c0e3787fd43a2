//! The failure of a call, as the caller receives it: reason, message, and the error details of `google.rpc`.
//!
//! The `status` module of each service chooses the reasons. This module only converts them to a gRPC status.

use std::{collections::HashMap, fmt, time::Duration};

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, ErrorInfo, FieldViolation, StatusExt as _, pb};

use crate::{
    reason::{DOMAIN, Reason, key},
    violation::Violations,
};

/// A failed call, before it is converted to a gRPC status.
///
/// The message is for people and may change; the reason is API. Neither may contain a secret, a prompt or an answer.
#[derive(Clone)]
pub struct Failure {
    code: Code,
    reason: Reason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    /// Boxed, because a failure is returned by value and the details are large.
    details: Box<ErrorDetails>,
    others: Vec<Any>,
}

impl Failure {
    /// The maximum number of invalid fields that a status lists. A status is sent in HTTP headers, and some clients
    /// accept only 8 KiB of headers.
    pub const FIELDS_MAX: usize = 16;

    /// Creates a failure with the gRPC code of `reason`.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            metadata: Vec::new(),
            details: Box::new(ErrorDetails::new()),
            others: Vec::new(),
        }
    }

    /// Creates the failure of a request with invalid fields. The message also describes the first violation, because
    /// not every client shows the details.
    ///
    /// If all violations share one reason that is also a [`Reason`], the failure has that reason; otherwise
    /// `VALIDATION_FAILED`.
    #[must_use]
    pub fn invalid(violations: &Violations) -> Self {
        let mut shared = violations.as_slice().iter().map(|violation| violation.reason.shared());
        let reason = match shared.next() {
            Some(first) if shared.all(|reason| reason == first) => first,
            _ => Reason::ValidationFailed,
        };
        let message = match violations.as_slice() {
            [] => "the request is invalid".to_owned(),
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => {
                format!(
                    "{}: {} (and {} more, see the details)",
                    first.field,
                    first.description,
                    rest.len()
                )
            }
        };
        let mut failure = Self::new(reason, message).with_fields(violations);
        failure.code = Code::InvalidArgument;
        failure
    }

    /// Adds the first [`Self::FIELDS_MAX`] violations to the details.
    #[must_use]
    pub fn with_fields(mut self, violations: &Violations) -> Self {
        let fields: Vec<FieldViolation> = violations
            .as_slice()
            .iter()
            .take(Self::FIELDS_MAX)
            .map(|violation| FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
                reason: violation.reason.as_str().to_owned(),
                localized_message: None,
            })
            .collect();
        self.details.set_bad_request(fields);
        self
    }

    /// Adds one entry to `ErrorInfo.metadata`. The module [`key`] has the keys.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Adds a precondition that `subject` does not meet and that the call needs to succeed.
    #[must_use]
    pub fn with_precondition(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details
            .add_precondition_failure_violation(self.reason.as_str(), subject, description);
        self
    }

    /// Adds a quota failure: the quota of `subject` is used up.
    #[must_use]
    pub fn with_quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    /// Adds the resource that the failure is about.
    #[must_use]
    pub fn with_resource(mut self, kind: &'static str, name: impl fmt::Display) -> Self {
        self.details.set_resource_info(kind, name.to_string(), "", "");
        self
    }

    /// Adds a detail of a type that is not part of `google.rpc`. Clients skip types that they do not know.
    #[must_use]
    pub fn with_any(mut self, detail: Any) -> Self {
        self.others.push(detail);
        self
    }

    /// Tells the client that it may repeat the call after `delay`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// The reason for the failure.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns the encoded details of `status` with the call's correlation id added to `ErrorInfo.metadata`, and the
    /// reason in these details. `CallLayer` sends them. `None`: the status was not created from a failure.
    #[must_use]
    pub fn stamp(status: &Status, request_id: &str) -> Option<(Vec<u8>, String)> {
        let mut rich = pb::Status::decode(status.details()).ok()?;
        let detail = rich
            .details
            .iter_mut()
            .find(|detail| detail.type_url == ErrorInfo::TYPE_URL)?;
        let mut info = pb::ErrorInfo::decode(&*detail.value).ok()?;
        info.metadata.insert(key::REQUEST_ID.to_owned(), request_id.to_owned());
        detail.value = info.encode_to_vec();
        Some((rich.encode_to_vec(), info.reason))
    }
}

impl From<Failure> for Status {
    /// Converts the failure to the status of the response. `CallLayer` adds the call's correlation id later.
    fn from(failure: Failure) -> Self {
        let Failure {
            code,
            reason,
            message,
            metadata,
            mut details,
            others,
        } = failure;
        let metadata: HashMap<String, String> = metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        details.set_error_info(reason.as_str(), DOMAIN, metadata);
        let pushback = details.retry_info().and_then(|info| info.retry_delay);
        let status = Self::with_error_details(code, message, *details);
        let mut status = with_others(status, others);
        // gRPC clients with a retry policy read this trailer; it has the same delay as `RetryInfo`.
        if let Some(delay) = pushback
            && let Ok(value) = delay.as_millis().to_string().parse()
        {
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
        }
        status
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        Self::invalid(&violations)
    }
}

/// Returns the status with `others` appended to its details.
fn with_others(status: Status, others: Vec<Any>) -> Status {
    if others.is_empty() {
        return status;
    }
    // Decoding cannot fail: the details were encoded by the caller of this function.
    let mut rich = pb::Status::decode(status.details()).unwrap_or_default();
    rich.details.extend(others);
    Status::with_details(status.code(), status.message(), rich.encode_to_vec().into())
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("reason", &self.reason)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::FieldReason;

    #[test]
    fn a_failure_has_the_reason_that_all_its_violations_share() {
        let mut violations = Violations::new();
        violations.push(
            "model.family",
            FieldReason::FamilyUnknown,
            "`x` is not in the catalogue",
        );
        let status = Status::from(Failure::invalid(&violations));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "FAMILY_UNKNOWN");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "model.family: `x` is not in the catalogue");

        violations.push("model.endpoint", FieldReason::EndpointHasQuery, "no query");
        let status = Status::from(Failure::invalid(&violations));
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "VALIDATION_FAILED"
        );
        assert_eq!(
            status.get_error_details().bad_request().unwrap().field_violations.len(),
            2
        );
    }

    #[test]
    fn a_status_with_very_many_invalid_fields_still_fits_into_a_header() {
        let mut violations = Violations::new();
        for index in 0..1000 {
            let field = format!("chat.messages[{index}].role");
            violations.push(field, FieldReason::ValueUnknown, "must be a role");
        }
        let status = Status::from(Failure::invalid(&violations));
        let fields = status.get_error_details().bad_request().unwrap().field_violations.len();
        assert_eq!(fields, Failure::FIELDS_MAX);
        assert!(status.details().len() < 2048, "{}", status.details().len());
        assert!(status.message().ends_with("(and 999 more, see the details)"));
    }

    #[test]
    fn a_detail_of_another_type_is_added_to_the_details_of_google_rpc() {
        let detail = Any {
            type_url: "type.googleapis.com/switchboard.router.v1.Candidates".to_owned(),
            value: vec![1, 2, 3],
        };
        let failure = Failure::new(Reason::ModelDisabled, "off").retry_after(Duration::from_secs(1));
        let status = Status::from(failure.with_any(detail.clone()));
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "off"));
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "MODEL_DISABLED"
        );
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
        let rich = pb::Status::decode(status.details()).unwrap();
        assert!(rich.details.contains(&detail));
    }

    #[test]
    fn stamp_adds_the_correlation_id_and_changes_nothing_else() {
        let others = Any {
            type_url: "type.googleapis.com/switchboard.router.v1.Candidates".to_owned(),
            value: vec![1, 2, 3],
        };
        let failure = Failure::new(Reason::ModelNotReady, "not yet")
            .with(key::MODEL, "models/a")
            .retry_after(Duration::from_secs(2))
            .with_any(others);
        let status = Status::from(failure);
        let (stamped, reason) = Failure::stamp(&status, "r1").unwrap();
        assert_eq!(reason, "MODEL_NOT_READY");
        let before = pb::Status::decode(status.details()).unwrap();
        let after = pb::Status::decode(&*stamped).unwrap();
        assert_eq!((after.code, &after.message), (before.code, &before.message));
        assert_eq!(after.details.len(), before.details.len());
        for (before, after) in before.details.iter().zip(&after.details) {
            assert_eq!(before.type_url, after.type_url);
            if before.type_url == ErrorInfo::TYPE_URL {
                let mut info = pb::ErrorInfo::decode(&*before.value).unwrap();
                assert!(info.metadata.insert("request_id".to_owned(), "r1".to_owned()).is_none());
                assert_eq!(pb::ErrorInfo::decode(&*after.value).unwrap(), info);
            } else {
                assert_eq!(before.value, after.value);
            }
        }
        assert!(Failure::stamp(&Status::internal("a library's own"), "r1").is_none());
    }

    #[test]
    fn a_missing_reference_in_a_field_is_an_invalid_argument() {
        let mut violations = Violations::new();
        violations.push("feature.model", FieldReason::ModelNotFound, "`models/x` does not exist");
        let status = Status::from(Failure::invalid(&violations));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "MODEL_NOT_FOUND"
        );
    }
}
