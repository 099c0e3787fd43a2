//! The handlers: parse, call, convert. Reads are answered from the published state, writes by the writer.

pub mod config;
pub mod feature;
pub mod model;
pub mod settings;

use switchboard::{
    failure::Failure,
    reason::header::{INCARNATION, REVISION},
    violation::Violations,
};
use tonic::{
    Response,
    metadata::{Ascii, MetadataValue},
};

use crate::commit::{CommitError, Written};

/// Answers a write, and says in the metadata which revision it was.
fn written<V, T>(written: Written<V>, convert: impl FnOnce(&V) -> T) -> Response<T> {
    let mut response = Response::new(convert(&written.view));
    let metadata = response.metadata_mut();
    metadata.insert(REVISION, MetadataValue::<Ascii>::from(written.revision.get()));
    if let Ok(incarnation) = written.incarnation.id.to_string().parse() {
        metadata.insert(INCARNATION, incarnation);
    }
    response
}

/// Logs what a person should look at; a refusal is the caller's business.
fn failure(error: CommitError) -> Failure {
    match &error {
        CommitError::Refused(_) | CommitError::Ended => {}
        CommitError::Store(_) | CommitError::OutcomeUnknown => {
            tracing::error!(error = &error as &dyn std::error::Error, "write was not stored");
        }
    }
    error.into()
}

fn invalid(violations: Violations) -> Failure {
    Failure::invalid(&violations)
}

/// A number of entries as the contract has it.
fn count(entries: usize) -> i32 {
    i32::try_from(entries).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
