//! The caller's side of a streamed call.

use tokio::sync::oneshot;

use super::{CallContext, CallError, CallFailure, Selected};
use crate::{
    relay::pending::Receiver,
    upstream::dialect::{AnswerDelta, FinishReason, Usage},
};

/// How a complete answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Why the answer ended.
    pub finish: FinishReason,
    /// Token counts. `None`: the server reported none.
    pub usage: Option<Usage>,
}

/// A streamed answer that has begun. Dropping it cancels the call and closes the connection to the model server.
#[derive(Debug)]
pub struct Answering {
    selected: Selected,
    context: CallContext,
    /// The first piece, with the number of model events in it. `None`: already taken, or the answer has no pieces.
    first: Option<(AnswerDelta, u64)>,
    deltas: Receiver,
    taken: u64,
    ended: oneshot::Receiver<Result<Completion, CallFailure>>,
    completion: Option<Completion>,
}

impl Answering {
    /// Waits for the first piece of the answer of `selected`. `deltas` yields the pieces; `ended` yields the call's
    /// result.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] if the call failed before its first piece.
    pub(super) async fn begin(
        selected: Selected,
        context: CallContext,
        mut deltas: Receiver,
        ended: oneshot::Receiver<Result<Completion, CallFailure>>,
    ) -> Result<Self, CallFailure> {
        let mut answering = Self {
            selected,
            context,
            first: deltas.recv().await,
            deltas,
            taken: 0,
            ended,
            completion: None,
        };
        if answering.first.is_none() {
            answering.end().await?;
        }
        Ok(answering)
    }

    /// Returns the next piece. `None`: no pieces are left, and [`Self::end`] returns the result.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn delta(&mut self) -> Option<AnswerDelta> {
        let (delta, events) = match self.first.take() {
            Some(first) => first,
            None => self.deltas.recv().await?,
        };
        self.taken += events;
        Some(delta)
    }

    /// Returns how the answer ended. Call this when no piece is left, and not again after an error.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] if the answer is not complete.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn end(&mut self) -> Result<Completion, CallFailure> {
        if let Some(completion) = self.completion {
            return Ok(completion);
        }
        let completion = match (&mut self.ended).await {
            // Pieces that are still in the buffer were not sent: only those that were taken count.
            Ok(result) => result.map_err(|failure| CallFailure {
                sent: self.taken,
                ..failure
            })?,
            // The task drops the sender without a result only if it panics.
            Err(_gone) => {
                return Err(CallFailure {
                    error: CallError::Internal,
                    context: self.context.clone(),
                    sent: self.taken,
                });
            }
        };
        self.completion = Some(completion);
        Ok(completion)
    }

    /// Returns the model and server that answer.
    #[must_use]
    pub const fn selected(&self) -> &Selected {
        &self.selected
    }
}
