//! Converts between the contract and the domain, one file for each resource.
//!
//! A request becomes a write that carries the violations outside the resource's fields. The writer merges the fields
//! into the stored resource of that moment, adds the violations against the state, and answers once with all of them.
//! This module does no I/O.

pub mod batch;
pub mod check;
pub mod configuration;
pub mod credential;
pub mod delete;
pub mod feature;
pub mod fleet;
pub mod history;
mod item;
pub mod model;
pub mod page;
pub mod settings;
pub mod stored;
pub mod write;

use std::time::{SystemTime, UNIX_EPOCH};

use switchboard::{catalogue::Stage, names::NameError, pb::registry, reason::FieldReason, violation::Violations};

/// Parses a required name. `None`: the name is invalid, and a violation was added.
fn name<N>(text: &str, field: &str, parse: fn(&str) -> Result<N, NameError>, violations: &mut Violations) -> Option<N> {
    if text.is_empty() {
        violations.push(field, FieldReason::FieldRequired, "must be given");
        return None;
    }
    match parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            violations.push(field, error.reason(text), error.to_string());
            None
        }
    }
}

/// Returns the etag in a request. `None`: the text is empty, which means that no etag was given.
fn etag(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

const fn stage(stage: Stage) -> registry::ReleaseStage {
    match stage {
        Stage::Ga => registry::ReleaseStage::Ga,
        Stage::Beta => registry::ReleaseStage::Beta,
        Stage::Experiment => registry::ReleaseStage::Experiment,
    }
}

/// Converts a number of entries into the contract's type.
#[must_use]
pub fn count(entries: usize) -> i32 {
    i32::try_from(entries).unwrap_or(i32::MAX)
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time.max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
