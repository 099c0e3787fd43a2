//! The contract and the domain, one into the other: one file for each resource.
//!
//! Requests become writes that carry what is wrong with their fields, all of it; the writer adds what does not fit the
//! state and answers once. Nothing here does I/O.

pub mod batch;
pub mod change;
pub mod check;
pub mod configuration;
pub mod credential;
pub mod delete;
pub mod feature;
pub mod fleet;
pub mod history;
pub mod mask;
pub mod model;
pub mod page;
pub mod report;
pub mod settings;
pub mod stored;
pub mod write;

use std::time::{SystemTime, UNIX_EPOCH};

use switchboard::{
    catalogue::Stage,
    endpoint::EndpointError,
    names::{ModelName, NameError},
    pb::registry,
    reason::FieldReason,
    secret::ApiTokenError,
    violation::Violations,
};

use crate::domain::{feature::FeaturePartError, model::ModelPartError};

/// What is wrong with one value, before it is known where the value stands.
#[derive(Debug)]
struct Flaw {
    reason: FieldReason,
    description: String,
}

impl Flaw {
    fn new(reason: FieldReason, description: impl Into<String>) -> Self {
        Self {
            reason,
            description: description.into(),
        }
    }
}

impl From<ModelPartError> for Flaw {
    fn from(error: ModelPartError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<FeaturePartError> for Flaw {
    fn from(error: FeaturePartError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<EndpointError> for Flaw {
    fn from(error: EndpointError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<ApiTokenError> for Flaw {
    fn from(error: ApiTokenError) -> Self {
        let reason = match error {
            ApiTokenError::Empty => FieldReason::FieldRequired,
            ApiTokenError::TooLong => FieldReason::ValueOutOfRange,
            ApiTokenError::NotVisibleAscii => FieldReason::CredentialNotAscii,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<NameError> for Flaw {
    fn from(error: NameError) -> Self {
        Self::new(FieldReason::ValueMalformed, error.to_string())
    }
}

/// Parses a required name; `None` when it is bad, which is a violation by then.
fn name<N>(text: &str, field: &str, parse: fn(&str) -> Result<N, NameError>, violations: &mut Violations) -> Option<N> {
    if text.is_empty() {
        violations.push(field, FieldReason::FieldRequired, "must be given");
        return None;
    }
    match parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            let flaw = name_flaw(text.rsplit('/').next().unwrap_or_default(), error);
            violations.push(field, flaw.reason, flaw.description);
            None
        }
    }
}

/// What is wrong with a name; an id that is only too long is told apart.
fn name_flaw(id: &str, error: NameError) -> Flaw {
    match error {
        NameError::Id { .. } if id.len() > 63 => Flaw::new(FieldReason::NameTooLong, error.to_string()),
        NameError::Id { .. } | NameError::Collection { .. } => error.into(),
    }
}

/// The name of a model, where another field than `name` gives it.
fn model_reference(text: &str) -> Result<ModelName, Flaw> {
    ModelName::parse(text).map_err(|error| name_flaw(text.rsplit('/').next().unwrap_or_default(), error))
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
