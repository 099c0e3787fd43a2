//! The handlers: parse, call, convert. Reads are answered from the published state, writes by the writer.

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

/// Has a write made and answers it.
async fn write<R: WriteRequest>(commit: &Commit, request: Request<R>) -> Result<Response<R::Answer>, Status> {
    let asked = ParsedWrite::read(request.into_inner());
    let done = commit.submit(asked).await.map_err(failure)?;
    Ok(written(done))
}

/// Answers a write, and says in the metadata which revision it was.
fn written<A>(written: Written<A>) -> Response<A> {
    let mut response = Response::new(written.answer);
    let metadata = response.metadata_mut();
    metadata.insert(REVISION, MetadataValue::<Ascii>::from(written.revision.get()));
    if let Ok(incarnation) = written.incarnation.to_string().parse() {
        metadata.insert(INCARNATION, incarnation);
    }
    response
}

/// Logs what a person should look at; a refusal is the caller's business.
fn failure(error: CommitError) -> Failure {
    match &error {
        CommitError::Refused(_) | CommitError::RequestIdReused | CommitError::Ended => {}
        CommitError::Store(_) | CommitError::OutcomeUnknown => {
            tracing::error!(error = &error as &dyn std::error::Error, "write was not stored");
        }
    }
    error.into()
}

#[cfg(test)]
mod tests;
