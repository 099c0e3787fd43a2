//! What the registry and a router say to each other on the change stream.
//!
//! Each message has one file: its type, which is valid once it exists, the bounds of its fields, and both conversions, from
//! the type to the message of the contract and back. The two services differ only in what a resource is to them: the
//! messages that carry resources are generic over it.
//!
//! It does not know when a message is due, nor what follows from it.

mod bookmark;
mod check;
mod configuration;
mod fields;
mod goodbye;
mod hello;
mod report;
mod welcome;

use bytes::Bytes;
use prost::Message as _;

pub use self::{
    bookmark::Bookmark,
    check::{CheckRequest, CheckTarget, CheckedStep, Culprit, EndpointCheck, Findings, StepEnd},
    configuration::{Deleted, Delta, SnapshotBegin, SnapshotPart, Streamed},
    goodbye::{Goodbye, GoodbyeWhy},
    hello::{Hello, Resume},
    report::{EndpointReport, EndpointState, HeldKind, HeldReport, HistoryRefusal, HistoryRefusalWhy, Report},
    welcome::{SnapshotWhy, Welcome, WelcomeMode, WithheldWhy},
};
use crate::{
    history::{Cursor, View},
    pb::registry::{self, subscribe_request, subscribe_response},
    violation::Violations,
};

/// The most bytes of a message from a router: more than a thousand servers with the longest addresses take.
const ROUTER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One message of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "all but the first are reports")]
pub enum RouterMessage {
    /// First, once.
    Hello(Hello),
    /// How far the router is.
    Report(Report),
    /// What a check has found.
    Findings(Findings),
}

/// A message of a router cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterMessageError {
    /// It has bad fields.
    #[error("a message has bad fields")]
    Malformed(Violations),
    /// It is of a kind that this version does not know.
    #[error("each message must be a `hello`, a `report` or a `check_result`")]
    UnknownKind,
    /// It is larger than any that a router has reason to send.
    #[error("each message must have at most 4 MiB")]
    TooLarge,
}

impl TryFrom<registry::SubscribeRequest> for RouterMessage {
    type Error = RouterMessageError;

    fn try_from(wire: registry::SubscribeRequest) -> Result<Self, RouterMessageError> {
        use subscribe_request::Kind;
        if wire.encoded_len() > ROUTER_MESSAGE_BYTES_MAX {
            return Err(RouterMessageError::TooLarge);
        }
        match wire.kind {
            Some(Kind::Hello(hello)) => Hello::try_from(&hello).map(Self::Hello),
            Some(Kind::Report(report)) => Report::try_from(&report).map(Self::Report),
            Some(Kind::CheckResult(result)) => Findings::try_from(&result).map(Self::Findings),
            None => return Err(RouterMessageError::UnknownKind),
        }
        .map_err(RouterMessageError::Malformed)
    }
}

impl From<&RouterMessage> for registry::SubscribeRequest {
    fn from(message: &RouterMessage) -> Self {
        use subscribe_request::Kind;
        let kind = match message {
            RouterMessage::Hello(hello) => Kind::Hello(hello.into()),
            RouterMessage::Report(report) => Kind::Report(report.into()),
            RouterMessage::Findings(findings) => Kind::CheckResult(findings.into()),
        };
        Self { kind: Some(kind) }
    }
}

/// One message of the registry, with resources as `R`.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistryMessage<R> {
    /// First, once.
    Welcome(Welcome),
    /// A snapshot begins.
    SnapshotBegin(SnapshotBegin),
    /// A part of it.
    SnapshotPart(SnapshotPart<R>),
    /// It is complete: the cursor of its beginning again.
    SnapshotEnd(Cursor),
    /// What changed.
    Delta(Delta<R>),
    /// A sign of life.
    Bookmark(Bookmark),
    /// The stream ends in order.
    Goodbye(Goodbye),
    /// A model is to be checked. Only routers get it.
    Check(CheckRequest),
}

/// A message of the registry that this build cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message on the change stream cannot be read")]
pub struct RegistryMessageError;

impl<R: Streamed> RegistryMessage<R> {
    /// The message as bytes, for watchers and routers alike: both have the same kinds under the same numbers.
    #[must_use]
    pub fn encode(self) -> Bytes {
        use subscribe_response::Kind;
        let kind = match self {
            Self::Welcome(welcome) => Kind::Welcome(welcome.into()),
            Self::SnapshotBegin(begin) => Kind::SnapshotBegin(begin.into()),
            Self::SnapshotPart(part) => Kind::SnapshotPart(part.into()),
            Self::SnapshotEnd(at) => Kind::SnapshotEnd(registry::SnapshotEnd { at: Some((&at).into()) }),
            Self::Delta(delta) => Kind::Delta(delta.into()),
            Self::Bookmark(bookmark) => Kind::Bookmark(bookmark.into()),
            Self::Goodbye(goodbye) => Kind::Goodbye(goodbye.into()),
            Self::Check(request) => Kind::CheckRequest(request.into()),
        };
        registry::SubscribeResponse { kind: Some(kind) }.encode_to_vec().into()
    }
}

impl<R: TryFrom<registry::Resource>> RegistryMessage<R> {
    /// Reads a message of a stream that shows `view`.
    ///
    /// # Errors
    ///
    /// [`RegistryMessageError`] if anything in it cannot be read, or is of another view.
    pub fn read(wire: registry::SubscribeResponse, view: View) -> Result<Self, RegistryMessageError> {
        use subscribe_response::Kind;
        Ok(match wire.kind.ok_or(RegistryMessageError)? {
            Kind::Welcome(welcome) => Self::Welcome(Welcome::read(&welcome, view)?),
            Kind::SnapshotBegin(begin) => Self::SnapshotBegin(SnapshotBegin::read(&begin, view)?),
            Kind::SnapshotPart(part) => Self::SnapshotPart(SnapshotPart::read(part)?),
            Kind::SnapshotEnd(end) => Self::SnapshotEnd(fields::cursor_of(end.at.as_ref(), view)?),
            Kind::Delta(delta) => Self::Delta(Delta::read(delta, view)?),
            Kind::Bookmark(bookmark) => Self::Bookmark(Bookmark::read(&bookmark, view)?),
            Kind::Goodbye(goodbye) => Self::Goodbye(Goodbye::read(&goodbye)),
            Kind::CheckRequest(request) => Self::Check(CheckRequest::read(request).ok_or(RegistryMessageError)?),
        })
    }
}

#[cfg(test)]
mod tests;
