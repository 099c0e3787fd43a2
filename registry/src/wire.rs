//! The contract and the domain, one into the other: one file for each resource.
//!
//! Requests become writes that carry what is wrong around their fields; the writer reads the fields over what is stored then,
//! adds what does not fit the state, and answers once with all of it. Nothing here does I/O.

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

/// Parses a required name; `None` when it is bad, which is a violation by then.
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

/// An etag that was given: silence and an empty text are the same.
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

/// A number of entries as the contract has it.
#[must_use]
pub fn count(entries: usize) -> i32 {
    i32::try_from(entries).unwrap_or(i32::MAX)
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time.max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
