//! Reads what a router sends up its stream, always and at once: no full window downwards can hold it up.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use switchboard::stream::{Hello, Report, RouterMessage, RouterMessageError};
use tokio::{sync::watch, time::timeout};

use super::Member;
use crate::domain::{items::Items, state::State};

/// How long a router may take for its `hello`.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Why a router's stream cannot go on: the rule that it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// A message cannot be used.
    #[error(transparent)]
    Message(#[from] RouterMessageError),
    /// A message could not be received or decoded.
    #[error("each message must be readable")]
    Unreadable,
    /// The first message did not come in time.
    #[error("`hello` must come within 5 s")]
    HelloLate,
    /// The first message was not `hello`.
    #[error("`hello` must come first")]
    HelloMissing,
    /// `hello` came again.
    #[error("`hello` must come once only")]
    HelloAgain,
    /// A report names a cursor that this history does not have.
    #[error("`{field}` must be a place in the history of this registry")]
    ForeignCursor {
        /// The field, from the message down.
        field: &'static str,
    },
    /// Nothing came for 2.5 heartbeats.
    #[error("a `report` must come at least every heartbeat")]
    Silent,
}

/// Messages of one router.
pub type Messages = Pin<Box<dyn Stream<Item = Result<RouterMessage, UplinkError>> + Send>>;

/// Waits for the `hello`; `None` when the router left without one.
///
/// # Errors
///
/// [`UplinkError`] when something else came first, or nothing within 5 s.
///
/// # Cancel safety
///
/// Safe: a message is either taken and returned, or not taken.
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

/// Takes in reports, and what checks have found, until the router closes its side in order.
///
/// Reports must fit the published history where they are judged; a router from which the configuration is withheld has
/// another one by definition, and is not.
///
/// # Errors
///
/// [`UplinkError`] at the first message that breaks a rule, or when none comes for `silence_max`.
///
/// # Cancel safety
///
/// Safe: a report is either taken in or not.
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
                // A new life ends the stream, and what the router says until then is of the life before.
                if is_judged && life == state.items.incarnation() {
                    judge(&report, &state.items)?;
                }
                member.report(report, &state);
            }
        }
    }
}

/// Whether what a report claims can be true.
///
/// The state digests are not compared: a router that was given a snapshot because its own is wrong says so until it has the
/// snapshot.
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
