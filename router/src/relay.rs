//! Relays a model's answer to the caller.
//!
//! This module knows neither HTTP nor gRPC: it takes events of the answer and passes its pieces on. It records how much
//! was sent, so that an end at any point can be reported correctly.

pub mod coalesce;
pub mod pending;

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep, timeout_at};

use self::pending::{PendingError, Sender};
use crate::upstream::{
    UpstreamError,
    answer::Answer,
    dialect::{Event, FinishReason, Usage},
};

/// Time limits of a relay.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two events of the model, not counting the time in which the caller does not read.
    pub idle: Duration,
    /// For the caller to read a piece.
    pub slow_caller: Duration,
    /// For the usage and the end of the stream, once the answer is complete.
    pub finish: Duration,
}

/// How much of an answer has been relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerProgress {
    /// Number of pieces that were passed on. Close to the number of tokens, since servers send about one token per
    /// piece.
    pub sent: u64,
    /// Why the answer ended. Once set, the answer is complete, whatever happens to the connection.
    pub finish: Option<FinishReason>,
    /// Token counts of the answer, as far as the server has reported them.
    pub usage: Option<Usage>,
}

/// Why an answer was not relayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The model server failed.
    #[error("could not read the model's answer")]
    Upstream(#[from] UpstreamError),
    /// The caller read nothing for this long.
    #[error("the caller read nothing for {0:?}")]
    CallerTooSlow(Duration),
    /// The caller cancelled the call or disconnected.
    #[error("the caller cancelled the call or disconnected")]
    CallerGone,
}

impl From<PendingError> for RelayError {
    fn from(error: PendingError) -> Self {
        match error {
            PendingError::Gone => Self::CallerGone,
            PendingError::TooSlow(limit) => Self::CallerTooSlow(limit),
        }
    }
}

/// Waits for the first token: the first event that carries a piece of the answer or ends it.
///
/// # Errors
///
/// [`UpstreamError`], also if the body ends before the first token.
///
/// # Cancel safety
///
/// Nothing is lost.
pub async fn first_token(answer: &mut Answer, progress: &mut AnswerProgress) -> Result<Event, UpstreamError> {
    loop {
        match answer.next().await?.ok_or(UpstreamError::Truncated)? {
            // Servers often report the prompt's token count before they generate anything: that does not show that the
            // model answers.
            Event::Usage(usage) => progress.usage = Some(usage),
            Event::Alive => {}
            event @ (Event::Delta(_) | Event::Finish(_) | Event::Done) => return Ok(event),
        }
    }
}

/// Relays an answer from its first token to its end. It reads from the model server as long as the buffer has room.
///
/// # Errors
///
/// [`RelayError`]. Once the answer has a finish reason, a server that falls silent, closes the connection or sends data that
/// cannot be decoded is not an error: the answer is complete. An error that the server reports is one all the same.
///
/// # Cancel safety
///
/// Dropping the future is safe at any point; `progress` shows how much was relayed.
pub async fn relay(
    answer: &mut Answer,
    first: Event,
    caller: &Sender,
    patience: Patience,
    progress: &mut AnswerProgress,
) -> Result<(), RelayError> {
    let mut event = first;
    let mut silence = Silence::new(patience.idle);
    let mut finish_by = None;
    loop {
        match event {
            Event::Delta(delta) => {
                // An answer whose last piece was not handed over is not complete.
                let finish = progress.finish.take();
                // The idle timeout does not count the time in which the router itself does not read.
                caller.push(delta, patience.slow_caller).await?;
                progress.finish = finish;
                progress.sent += 1;
            }
            Event::Usage(usage) => progress.usage = Some(usage),
            // Restarts the idle timeout like any other event: models think for minutes, and platforms send pings
            // meanwhile.
            Event::Alive => {}
            // The last finish reason counts: some servers send one for each part of an answer.
            Event::Finish(reason) => {
                progress.finish = Some(reason);
                finish_by.get_or_insert_with(|| Instant::now() + patience.finish);
            }
            Event::Done => {
                progress.finish.get_or_insert(FinishReason::Other);
                return Ok(());
            }
        }
        event = match finish_by {
            None => silence
                .ended_by(answer.next())
                .await
                .ok_or(UpstreamError::IdleTimeout(patience.idle))??
                .ok_or(UpstreamError::Truncated)?,
            // Events after the finish reason still belong to the answer, if they arrive in time.
            Some(finish_by) => match timeout_at(finish_by, answer.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Err(error)) if error.is_reported() => {
                    progress.finish = None;
                    return Err(error.into());
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return Ok(()),
            },
        };
    }
}

/// The idle timeout of the model. There is one timer for a whole answer: it is reset when it fires, not at each event.
struct Silence {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            timer: Box::pin(sleep(limit)),
        }
    }

    /// Waits for `next`. `None`: it did not complete within the limit, counted from now.
    async fn ended_by<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let until = Instant::now() + self.limit;
        let mut next = std::pin::pin!(next);
        loop {
            tokio::select! {
                // In this order: an event that has already arrived is not late.
                biased;
                came = &mut next => return Some(came),
                () = &mut self.timer => {}
            }
            if Instant::now() >= until {
                return None;
            }
            self.timer.as_mut().reset(until);
        }
    }
}
