//! What can happen to a session, and what it says to do.

use std::sync::Arc;

use switchboard::{
    history::Cursor,
    names::Revision,
    stream::{CheckRequest, WelcomeMode},
};

use super::StreamMessage;
use crate::subscription::received::Received;

/// Something that happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are messages")]
pub enum SessionEvent {
    /// The time of [`Session::wake_at`](super::Session::wake_at) has come. Harmless when it has not.
    Timer,
    /// The stream brought a message.
    Message(StreamMessage),
    /// The stream brought something that cannot be read.
    Unreadable,
    /// The stream ended, or could not be opened.
    Ended(End),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With OK.
    Ok,
    /// With an error, or the connection broke.
    Failed,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a stream to an address, with this hello.
    Dial {
        /// Which address, counted from 0.
        address: usize,
        /// What has been received whole.
        resume: Option<Cursor>,
        /// Whether a snapshot is wanted all the same.
        want_snapshot: bool,
    },
    /// The registry has answered: for the logs.
    Opened(WelcomeMode),
    /// Compile and use this state.
    Install(Arc<Received>),
    /// The delta up to this revision had come before: for the logs.
    Repeated(Revision),
    /// Make this check aside.
    Check(CheckRequest),
    /// The registry's writer does not get on, with the newest revision that there is: for the logs.
    Stalled(Revision),
    /// It gets on again: for the logs.
    Unstalled,
    /// End the stream, once the newest report is on its way.
    Close(Closed),
}

/// Why the router ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The registry said goodbye.
    #[error("the registry said goodbye")]
    Goodbye,
    /// The registry said goodbye because this router reads too slowly.
    #[error("the registry gave up on this router, which reads too slowly")]
    TooSlow,
    /// The registry said goodbye because a new incarnation of its store has begun.
    #[error("a new incarnation of the registry's store has begun")]
    Moved,
    /// The registry has not answered in time.
    #[error("the registry did not answer")]
    Opening,
    /// Nothing has come for 2.5 heartbeats.
    #[error("the registry fell silent")]
    Silent,
    /// What came does not go on from what was received.
    #[error("a change is missing from the stream")]
    Gap,
    /// A snapshot or a delta did not have the digest that it claimed.
    #[error("the state does not have the digest that the registry claimed")]
    Mismatch,
    /// A message that is unreadable or not due.
    #[error("the registry broke the rules of the stream")]
    Protocol,
    /// This registry's history is refused, and there are others to ask.
    #[error("the registry's history is refused")]
    Refused,
}
