//! The answer of a model on its way to the caller.
//!
//! It knows neither HTTP nor gRPC: events come in, pieces go out, and what has been sent is written down, so that an end at
//! any point can be told truthfully.

pub mod coalesce;
pub mod pending;

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep, timeout};

use self::pending::{PendingError, Sender};
use crate::upstream::{
    UpstreamError,
    answer::Answer,
    dialect::{Event, FinishReason, Usage},
};

/// How long the relay waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two events of the model, not counting while the caller does not read.
    pub idle: Duration,
    /// For the caller to take a piece.
    pub slow_caller: Duration,
    /// For usage and the end of the stream, once the answer is complete.
    pub finish: Duration,
}

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerProgress {
    /// How many pieces were handed over: near enough to tokens, since servers send about one at a time.
    pub sent: u64,
    /// Why the answer ended. From then on it is complete, whatever happens to the connection.
    pub finish: Option<FinishReason>,
    /// What it cost, as far as the server told.
    pub usage: Option<Usage>,
}

/// Why an answer was not relayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The model server's fault.
    #[error("read the model's answer")]
    Upstream(#[from] UpstreamError),
    /// The caller took nothing for this long.
    #[error("the caller took nothing for {0:?}")]
    CallerTooSlow(Duration),
    /// The caller is gone.
    #[error("the caller is gone")]
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

/// Waits for the first token: the first event that is a piece of the answer, or its end.
///
/// # Errors
///
/// [`UpstreamError`], also when the body ends before.
///
/// # Cancel safety
///
/// Nothing is lost.
pub async fn first_token(answer: &mut Answer, progress: &mut AnswerProgress) -> Result<Event, UpstreamError> {
    loop {
        match answer.next().await?.ok_or(UpstreamError::Truncated)? {
            // What a prompt costs is often told before anything is generated: no reason to believe that the model answers.
            Event::Usage(usage) => progress.usage = Some(usage),
            Event::Alive => {}
            event @ (Event::Delta(_) | Event::Finish(_) | Event::Done) => return Ok(event),
        }
    }
}

/// Relays an answer from its first token to its end. The model's server is read as long as the buffer has room.
///
/// # Errors
///
/// [`RelayError`]. Once `progress` has a finish reason there are none.
///
/// # Cancel safety
///
/// It may be dropped anywhere; `progress` tells how far it came.
pub async fn relay(
    answer: &mut Answer,
    first: Event,
    caller: &Sender,
    patience: Patience,
    progress: &mut AnswerProgress,
) -> Result<(), RelayError> {
    let mut event = first;
    let mut silence = Silence::new(patience.idle);
    loop {
        match event {
            Event::Delta(delta) => {
                // The model's silence is not counted while it is we who do not read.
                caller.push(delta, patience.slow_caller).await?;
                progress.sent += 1;
            }
            Event::Usage(usage) => progress.usage = Some(usage),
            // It starts the clock of silence anew like any other: models think for minutes, and platforms send pings meanwhile.
            Event::Alive => {}
            Event::Finish(reason) => {
                progress.finish = Some(reason);
                // What still comes is welcome, not needed.
                timeout(patience.finish, epilogue(answer, progress)).await.ok();
                return Ok(());
            }
            Event::Done => {
                progress.finish = Some(FinishReason::Other);
                return Ok(());
            }
        }
        event = silence
            .ended_by(answer.next())
            .await
            .ok_or(UpstreamError::IdleTimeout(patience.idle))??
            .ok_or(UpstreamError::Truncated)?;
    }
}

/// How long the model may be silent. One timer for a whole answer: it is moved on when it fires, not at each event.
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

    /// What comes next. `None`: it does not come in time, counted from now.
    async fn ended_by<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let until = Instant::now() + self.limit;
        let mut next = std::pin::pin!(next);
        loop {
            tokio::select! {
                // In this order: what is there already is not late.
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

/// Reads what servers send behind the finish reason: usage, and the mark of the end.
async fn epilogue(answer: &mut Answer, progress: &mut AnswerProgress) {
    while let Ok(Some(event)) = answer.next().await {
        match event {
            Event::Usage(usage) => progress.usage = Some(usage),
            Event::Done => return,
            Event::Delta(_) | Event::Finish(_) | Event::Alive => {}
        }
    }
}
