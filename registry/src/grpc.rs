//! The gRPC handlers: they parse, call and convert. Reads are answered from the published state, writes by the writer.

pub mod config;
pub mod feature;
mod fleet;
pub mod history;
pub mod model;
pub mod settings;

use switchboard::{
    failure::Failure,
    reason::header::{INCARNATION, REVISION},
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
};

use crate::{
    commit::{Commit, CommitError, Written},
    wire::write::{ParsedWrite, WriteRequest},
};

/// Submits a write and returns its answer.
async fn write<R: WriteRequest>(commit: &Commit, request: Request<R>) -> Result<Response<R::Answer>, Status> {
    let asked = ParsedWrite::read(request.into_inner());
    let done = commit.submit(asked).await.map_err(failure)?;
    Ok(written(done))
}

/// Returns the answer of a write, with its revision and incarnation in the metadata.
fn written<A>(written: Written<A>) -> Response<A> {
    let mut response = Response::new(written.answer);
    let metadata = response.metadata_mut();
    metadata.insert(REVISION, MetadataValue::<Ascii>::from(written.revision.get()));
    if let Ok(incarnation) = written.incarnation.to_string().parse() {
        metadata.insert(INCARNATION, incarnation);
    }
    response
}

/// Logs failures that a person should look at. A refusal only concerns the caller.
fn failure(error: CommitError) -> Failure {
    match &error {
        CommitError::Refused(_) | CommitError::RequestIdReused | CommitError::Ended => {}
        CommitError::Store(_) | CommitError::OutcomeUnknown => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a write could not be stored or confirmed"
            );
        }
    }
    error.into()
}

#[cfg(test)]
mod tests;
