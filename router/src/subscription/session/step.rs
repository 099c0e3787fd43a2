//! The events that a session processes, and the actions that it requests.

use std::sync::Arc;

use switchboard::{
    history::Cursor,
    names::Revision,
    stream::{CheckRequest, WelcomeMode},
};

use super::StreamMessage;
use crate::subscription::received::Received;

/// An event for the session.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are messages")]
pub enum SessionEvent {
    /// The time of [`Session::wake_at`](super::Session::wake_at) has come. An early event has no effect.
    Timer,
    /// A message was received.
    Message(StreamMessage),
    /// A message was received that cannot be decoded.
    Unreadable,
    /// The stream ended, or could not be opened.
    Ended(End),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the status OK.
    Ok,
    /// With an error status, or because the connection broke.
    Failed,
}

/// An action for the driver of the session.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Connect to an address, and open a stream with a hello of this content.
    Dial {
        /// Index of the address, counted from 0.
        address: usize,
        /// The cursor of the newest state that was received completely. `None`: none was.
        resume: Option<Cursor>,
        /// Whether a snapshot is wanted even if the registry could resume at that cursor.
        want_snapshot: bool,
    },
    /// Log that the registry has answered.
    Opened(WelcomeMode),
    /// Compile this state and put it in use.
    Install(Arc<Received>),
    /// Log that the changes up to this revision had already been received.
    Repeated(Revision),
    /// Run this check in a task of its own.
    Check(CheckRequest),
    /// Log that the registry's writer makes no progress. Holds the newest revision.
    Stalled(Revision),
    /// Log that the registry's writer makes progress again.
    Unstalled,
    /// Close the stream after the newest report.
    Close(Closed),
}

/// Why the router closed a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The registry sent a goodbye.
    #[error("the registry closed the stream with a goodbye")]
    Goodbye,
    /// The registry sent a goodbye because this router reads too slowly.
    #[error("the registry closed the stream because this router reads too slowly")]
    TooSlow,
    /// The registry sent a goodbye because a new incarnation of its store has begun.
    #[error("a new incarnation of the registry's store has begun")]
    Moved,
    /// The registry did not answer in time.
    #[error("the registry did not answer in time")]
    Opening,
    /// No message was received for 2.5 heartbeats.
    #[error("the registry sent no message for too long")]
    Silent,
    /// A change does not follow the received state.
    #[error("a change is missing from the stream")]
    Gap,
    /// A snapshot or a delta did not have the digest of its cursor.
    #[error("the state does not have the digest that the registry sent")]
    Mismatch,
    /// A message cannot be decoded, or the protocol does not allow it at this point.
    #[error("the registry violated the protocol of the stream")]
    Protocol,
    /// The registry's history is refused, and other registries can be tried.
    #[error("the registry's history is refused")]
    Refused,
}
