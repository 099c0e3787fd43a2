//! Reads the messages that a router sends, always and at once: a full window towards the router cannot delay it.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use switchboard::stream::{Hello, Report, RouterMessage, RouterMessageError};
use tokio::{sync::watch, time::timeout};

use super::Member;
use crate::domain::{items::Items, state::State};

/// Time limit for a router's `hello`.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Why a router's stream cannot continue: the rule that the router broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// A message is invalid.
    #[error(transparent)]
    Message(#[from] RouterMessageError),
    /// A message could not be received or decoded.
    #[error("a message could not be received or decoded")]
    Unreadable,
    /// The first message did not arrive in time.
    #[error("`hello` must arrive within 5 s")]
    HelloLate,
    /// The first message was not `hello`.
    #[error("the first message must be `hello`")]
    HelloMissing,
    /// The router sent `hello` again.
    #[error("`hello` must be sent only once")]
    HelloAgain,
    /// A report contains a cursor that is not part of this history.
    #[error("`{field}` must be a cursor of this registry's history")]
    ForeignCursor {
        /// Path of the field from the message.
        field: &'static str,
    },
    /// No message arrived for 2.5 heartbeats.
    #[error("a `report` must arrive at least every heartbeat")]
    Silent,
}

/// The messages of one router.
pub type Messages = Pin<Box<dyn Stream<Item = Result<RouterMessage, UplinkError>> + Send>>;

/// Waits for the `hello`. `None`: the router disconnected without one.
///
/// # Errors
///
/// [`UplinkError`] if another message arrives first, or none within 5 s.
///
/// # Cancel safety
///
/// Cancel safe: a message is either taken and returned, or not taken.
pub async fn greeting(messages: &mut Messages) -> Result<Option<Hello>, UplinkError> {
    let first = timeout(HELLO_WITHIN, messages.next())
        .await
        .map_err(|_elapsed| UplinkError::HelloLate)?;
    match first.transpose()? {
        None => Ok(None),
        Some(RouterMessage::Hello(hello)) => Ok(Some(hello)),
        Some(RouterMessage::Report(_) | RouterMessage::Findings(_)) => Err(UplinkError::HelloMissing),
    }
}

/// Processes reports and the findings of checks, until the router closes its side properly.
///
/// If `is_judged`, reports must fit the published history. A withheld router has another history by definition, so its
/// reports are not checked.
///
/// # Errors
///
/// [`UplinkError`] if a message breaks a rule, or if none arrives for `silence_max`.
///
/// # Cancel safety
///
/// Cancel safe: a report is either processed or not.
pub async fn listen(
    messages: &mut Messages,
    member: &Member,
    published: &watch::Receiver<Arc<State>>,
    is_judged: bool,
    silence_max: Duration,
) -> Result<(), UplinkError> {
    let life = published.borrow().items.incarnation();
    loop {
        let message = timeout(silence_max, messages.next())
            .await
            .map_err(|_elapsed| UplinkError::Silent)?;
        match message.transpose()? {
            None => return Ok(()),
            Some(RouterMessage::Findings(findings)) => member.check_findings(findings),
            Some(RouterMessage::Hello(_)) => return Err(UplinkError::HelloAgain),
            Some(RouterMessage::Report(report)) => {
                let state = Arc::clone(&published.borrow());
                // A new life ends the stream. Until then, the router still reports about the earlier life.
                if is_judged && life == state.items.incarnation() {
                    judge(&report, &state.items)?;
                }
                member.report(report, &state);
            }
        }
    }
}

/// Checks whether the cursors of a report can be true.
///
/// The state digests are not compared: a router that gets a snapshot because its state is wrong reports the wrong state
/// until it has the snapshot.
fn judge(report: &Report, items: &Items) -> Result<(), UplinkError> {
    let cursors = [
        ("report.applied", &report.applied),
        ("report.received", &report.received),
        ("report.persisted", &report.persisted),
    ];
    for (field, cursor) in cursors {
        if cursor.is_some_and(|cursor| !items.has_been_at(&cursor)) {
            return Err(UplinkError::ForeignCursor { field });
        }
    }
    Ok(())
}
