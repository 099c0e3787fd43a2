//! One failure of one call, as it goes to the caller: reason, message, and the details of `google.rpc`.
//!
//! The services' `status.rs` choose reasons; here they only take their shape on the wire.

use std::{fmt, time::Duration};

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};

use crate::{
    reason::{DOMAIN, Reason, key},
    violation::Violations,
};

/// A failure on its way to the caller.
///
/// The message is for people and may change; the reason is API. Neither may carry a secret, a prompt or an answer.
#[derive(Clone)]
pub struct Failure {
    code: Code,
    reason: Reason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    /// Boxed: a failure is returned by value, and the details are large.
    details: Box<ErrorDetails>,
    others: Vec<Any>,
}

impl Failure {
    /// The most bad fields that are listed: a status travels in headers, and some clients take only 8 KiB of them.
    pub const FIELDS_MAX: usize = 16;

    /// A failure with the code of its reason.
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

    /// A request with bad fields: all of them, the first also in the message, since not every client shows details.
    ///
    /// The reason is that of the fields when they share one, else `VALIDATION_FAILED`.
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

    /// Adds bad fields to the details: the first [`Self::FIELDS_MAX`] of them.
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

    /// Adds one entry to `ErrorInfo.metadata`; the keys are those of [`key`].
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Adds what would have to be true for the call to succeed.
    #[must_use]
    pub fn with_precondition(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details
            .add_precondition_failure_violation(self.reason.as_str(), subject, description);
        self
    }

    /// Adds whose quota is used up.
    #[must_use]
    pub fn with_quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    /// Adds the resource that the call is about.
    #[must_use]
    pub fn with_resource(mut self, kind: &'static str, name: impl fmt::Display) -> Self {
        self.details.set_resource_info(kind, name.to_string(), "", "");
        self
    }

    /// Adds a detail of our own kind. Readers that do not know it skip it.
    #[must_use]
    pub fn with_any(mut self, detail: Any) -> Self {
        self.others.push(detail);
        self
    }

    /// Says that repeating the call helps, after this long.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The status to answer with. `request_id` is the correlation id of the call.
    #[must_use]
    pub fn into_status(mut self, request_id: &str) -> Status {
        self.metadata.push((key::REQUEST_ID, request_id.to_owned()));
        let metadata: std::collections::HashMap<String, String> = self
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        self.details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        let pushback = self.details.retry_info().and_then(|info| info.retry_delay);
        let status = Status::with_error_details(self.code, self.message, *self.details);
        let mut status = with_others(status, self.others);
        // gRPC clients with a retry policy read this trailer; it says the same as `RetryInfo`.
        if let Some(delay) = pushback
            && let Ok(value) = delay.as_millis().to_string().parse()
        {
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
        }
        status
    }
}

/// The status with further details behind those of `google.rpc`.
fn with_others(status: Status, others: Vec<Any>) -> Status {
    if others.is_empty() {
        return status;
    }
    // It was encoded a moment ago.
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
    fn fields_that_share_a_listed_reason_give_it_to_the_whole() {
        let mut violations = Violations::new();
        violations.push(
            "model.family",
            FieldReason::FamilyUnknown,
            "`x` is not in the catalogue",
        );
        let status = Failure::invalid(&violations).into_status("r1");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "FAMILY_UNKNOWN");
        assert_eq!(info.metadata["request_id"], "r1");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "model.family: `x` is not in the catalogue");

        violations.push("model.endpoint", FieldReason::EndpointHasQuery, "no query");
        let status = Failure::invalid(&violations).into_status("r1");
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
    fn a_request_with_very_many_bad_fields_still_fits_into_a_header() {
        let mut violations = Violations::new();
        for place in 0..1000 {
            let field = format!("chat.messages[{place}].role");
            violations.push(field, FieldReason::ValueUnknown, "must be a role");
        }
        let status = Failure::invalid(&violations).into_status("r1");
        let fields = status.get_error_details().bad_request().unwrap().field_violations.len();
        assert_eq!(fields, Failure::FIELDS_MAX);
        assert!(status.details().len() < 2048, "{}", status.details().len());
        assert!(status.message().ends_with("(and 999 more, see the details)"));
    }

    #[test]
    fn a_detail_of_our_own_stands_beside_the_usual_ones() {
        let detail = Any {
            type_url: "type.googleapis.com/switchboard.router.v1.Candidates".to_owned(),
            value: vec![1, 2, 3],
        };
        let failure = Failure::new(Reason::ModelDisabled, "off").retry_after(Duration::from_secs(1));
        let status = failure.with_any(detail.clone()).into_status("r1");
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
    fn a_missing_reference_in_a_field_is_an_invalid_argument() {
        let mut violations = Violations::new();
        violations.push("feature.model", FieldReason::ModelNotFound, "`models/x` does not exist");
        let status = Failure::invalid(&violations).into_status("r1");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "MODEL_NOT_FOUND"
        );
    }
}
