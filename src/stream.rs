//! The messages that the registry and a router exchange on the change stream.
//!
//! Each message has its own file with its type, the bounds of its fields, and the conversions to and from the message
//! of the contract. A value of such a type is always valid. The two services use different types for a resource, so the
//! messages that carry resources are generic over the resource type.
//!
//! This module does not decide when a message is sent, nor what its receiver does.

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

/// The maximum size of a message from a router, in bytes: enough for a report of a thousand servers with the longest
/// addresses.
const ROUTER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message from a router to the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all messages are reports")]
pub enum RouterMessage {
    /// The first message of the stream, sent once: the router introduces itself.
    Hello(Hello),
    /// The progress and the state of the router.
    Report(Report),
    /// The result of a check.
    Findings(Findings),
}

/// Why a message from a router is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterMessageError {
    /// The message has invalid fields.
    #[error("the message has invalid fields")]
    Malformed(Violations),
    /// The kind of the message is unknown to this version.
    #[error("each message must be a `hello`, a `report` or a `check_result`")]
    UnknownKind,
    /// The message is too large.
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

/// A message from the registry to a router or a watcher, with resources of type `R`.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistryMessage<R> {
    /// The first message of the stream, sent once: how the stream continues.
    Welcome(Welcome),
    /// The beginning of a snapshot.
    SnapshotBegin(SnapshotBegin),
    /// A part of a snapshot.
    SnapshotPart(SnapshotPart<R>),
    /// The end of a snapshot, with the same cursor as its beginning.
    SnapshotEnd(Cursor),
    /// Changes between two revisions.
    Delta(Delta<R>),
    /// A periodic message with the position of the stream.
    Bookmark(Bookmark),
    /// The registry is about to end the stream in an orderly way.
    Goodbye(Goodbye),
    /// A request to check a model. Sent to routers only.
    Check(CheckRequest),
}

/// This build cannot decode a message from the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not decode a message of the change stream")]
pub struct RegistryMessageError;

impl<R: Streamed> RegistryMessage<R> {
    /// Encodes the message. The bytes are valid for watchers and for routers: both response types have the same fields
    /// with the same numbers.
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
    /// Converts a message of a stream with the view `view`.
    ///
    /// # Errors
    ///
    /// [`RegistryMessageError`] if any part of the message is malformed, or a cursor is of another view.
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
