//! The fields of what routers say, each with its bound.

use std::time::Duration;

use switchboard::{duration, history::Cursor, names::Revision, pb::types, reason::FieldReason, violation::Violations};

/// The most characters of a reason.
pub(in crate::wire) const REASON_MAX: usize = 63;

/// Reads fields and collects what is wrong with them.
#[derive(Default)]
pub(in crate::wire) struct Fields {
    pub(in crate::wire) violations: Violations,
}

impl Fields {
    pub(in crate::wire) fn take<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .map_err(|error| {
                self.violations
                    .push(field, FieldReason::ValueMalformed, error.to_string());
            })
            .ok()
    }

    pub(in crate::wire) fn text(&mut self, field: &str, text: &str, length_max: usize) -> Option<Box<str>> {
        if text.chars().count() > length_max {
            let description = format!("must have at most {length_max} characters");
            self.violations.push(field, FieldReason::ValueOutOfRange, description);
            return None;
        }
        // These texts go to the log, where a control character could forge a line.
        if text.chars().any(char::is_control) {
            self.violations
                .push(field, FieldReason::ValueMalformed, "must have no control characters");
            return None;
        }
        Some(text.into())
    }

    pub(in crate::wire) fn cursor(&mut self, field: &str, wire: Option<&types::Cursor>) -> Option<Cursor> {
        self.take(field, Cursor::try_from(wire?))
    }

    pub(in crate::wire) fn revision(&mut self, field: &str, number: i64) -> Option<Revision> {
        let revision = Revision::new(number);
        if revision.is_none() {
            self.violations
                .push(field, FieldReason::ValueOutOfRange, "must not be negative");
        }
        revision
    }

    pub(in crate::wire) fn duration(&mut self, field: &str, wire: Option<prost_types::Duration>) -> Duration {
        wire.map_or(Some(Duration::ZERO), duration::read).unwrap_or_else(|| {
            self.violations
                .push(field, FieldReason::ValueOutOfRange, "must not be negative");
            Duration::ZERO
        })
    }

    pub(in crate::wire) fn unknown(&mut self, field: &str) {
        self.violations
            .push(field, FieldReason::ValueUnknown, "must be one of the listed values");
    }
}
