//! Reads fields of messages and checks their bounds.

use std::time::Duration;

use super::RegistryMessageError;
use crate::{
    duration,
    history::{Cursor, View},
    names::Revision,
    pb::types,
    reason::FieldReason,
    violation::Violations,
};

/// The maximum length of a build version, of a resource name and of a field path, in characters.
pub(super) const TEXT_MAX: usize = 255;

/// The maximum length of a reason, in characters.
pub(super) const REASON_MAX: usize = 63;

/// Reads the fields of a message from a router and collects the violations.
#[derive(Default)]
pub(super) struct ReportFields {
    pub(super) violations: Violations,
}

impl ReportFields {
    pub(super) fn take<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .map_err(|error| {
                self.violations
                    .push(field, FieldReason::ValueMalformed, error.to_string());
            })
            .ok()
    }

    pub(super) fn text(&mut self, field: &str, text: &str, length_max: usize) -> Option<Box<str>> {
        if text.chars().count() > length_max {
            let description = format!("must have at most {length_max} characters");
            self.violations.push(field, FieldReason::ValueOutOfRange, description);
            return None;
        }
        // These texts are logged, and a control character could forge a log line.
        if text.chars().any(char::is_control) {
            self.violations.push(
                field,
                FieldReason::ValueMalformed,
                "must not contain control characters",
            );
            return None;
        }
        Some(text.into())
    }

    pub(super) fn cursor(&mut self, field: &str, wire: Option<&types::Cursor>) -> Option<Cursor> {
        self.take(field, Cursor::try_from(wire?))
    }

    pub(super) fn revision(&mut self, field: &str, number: i64) -> Option<Revision> {
        let revision = Revision::new(number);
        if revision.is_none() {
            self.violations
                .push(field, FieldReason::ValueOutOfRange, "must not be negative");
        }
        revision
    }

    pub(super) fn duration(&mut self, field: &str, wire: Option<prost_types::Duration>) -> Duration {
        wire.map_or(Some(Duration::ZERO), duration::read).unwrap_or_else(|| {
            self.violations.push(
                field,
                FieldReason::ValueOutOfRange,
                "must be a valid duration that is not negative",
            );
            Duration::ZERO
        })
    }

    pub(super) fn unknown(&mut self, field: &str) {
        self.violations
            .push(field, FieldReason::ValueUnknown, "must be a known value of the enum");
    }
}

/// Reads a cursor in a message from the registry. A cursor of a view other than the stream's is an error.
pub(super) fn cursor_of(wire: Option<&types::Cursor>, view: View) -> Result<Cursor, RegistryMessageError> {
    wire.and_then(|wire| Cursor::try_from(wire).ok())
        .filter(|cursor| cursor.view == view)
        .ok_or(RegistryMessageError)
}

/// Reads a duration in a message from the registry. A negative or malformed one counts as absent, which means zero.
pub(super) fn span(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(duration::read).unwrap_or_default()
}

pub(super) fn from_span(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

pub(super) fn from_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
