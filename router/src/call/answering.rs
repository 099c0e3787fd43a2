//! An answer on its way to the caller, as the caller's side sees it.

use tokio::sync::oneshot;

use super::{CallContext, CallError, CallFailure, Selected};
use crate::{
    relay::pending::Receiver,
    upstream::dialect::{AnswerDelta, FinishReason, Usage},
};

/// How an answer ended that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Why it ended.
    pub finish: FinishReason,
    /// What it cost. `None`: the server did not say.
    pub usage: Option<Usage>,
}

/// An answer that has begun. Dropping it stops the model.
#[derive(Debug)]
pub struct Answering {
    selected: Selected,
    context: CallContext,
    /// The piece that was waited for, with the number of its events.
    first: Option<(AnswerDelta, u64)>,
    deltas: Receiver,
    taken: u64,
    ended: oneshot::Receiver<Result<Completion, CallFailure>>,
    completion: Option<Completion>,
}

impl Answering {
    /// The answer that `selected` has begun: `deltas` are its pieces, and `ended` tells how it ends.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] when it has ended without a piece, and not as it should.
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

    /// The next piece. `None`: only the end is left.
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

    /// How the answer ended. To be asked when no piece is left, and not again after an error.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] when it is not whole.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn end(&mut self) -> Result<Completion, CallFailure> {
        if let Some(completion) = self.completion {
            return Ok(completion);
        }
        let completion = match (&mut self.ended).await {
            // What was handed over and not taken is not sent.
            Ok(result) => result.map_err(|failure| CallFailure {
                sent: self.taken,
                ..failure
            })?,
            // Only a panic leaves a call without an end.
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

    /// Who answers.
    #[must_use]
    pub const fn selected(&self) -> &Selected {
        &self.selected
    }
}
