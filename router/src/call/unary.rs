//! A call whose answer comes as a whole: several times cheaper for the model server than a stream.
//!
//! Nothing arrives before the end of the answer, so only connecting and the whole call have a time limit: another
//! server is tried if one fails, never because one is slow. The call needs no task of its own: if the caller goes away,
//! the call is dropped, and with it the connection to the model.

use std::time::Duration;

use switchboard::service::request_id::RequestId;
use tokio::time::sleep_until;
use tracing::Instrument as _;

use super::{CallContext, CallError, CallFailure, Calls, Interruption, Selected, Walk, within};
use crate::{catalog::Scope, endpoints::Shape, prompt::Request, upstream::dialect::Whole};

/// A whole answer, and the model and server that gave it.
#[derive(Debug)]
pub struct Answered {
    /// The model and server that answered.
    pub selected: Selected,
    /// The answer.
    pub whole: Whole,
}

impl Calls {
    /// Makes a call for `scope` and waits for its whole answer. `timeout` is the time that the caller allows for it.
    /// `None`: the caller sets no limit.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] for everything that goes wrong.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call and closes the connection to the model server.
    pub async fn infer(
        &self,
        request: Request,
        timeout: Option<Duration>,
        scope: Scope<'_>,
        request_id: &RequestId,
    ) -> Result<Answered, CallFailure> {
        let mut context = CallContext::new(request.input.field());
        let mut walk = match self.admit(request, Shape::Whole, timeout, scope, request_id, &mut context) {
            Ok(walk) => walk,
            Err(error) => return Err(CallFailure::at_once(error, context)),
        };
        let deadline = walk.deadline();
        let call = async {
            tokio::select! {
                biased;
                () = self.drain.cancelled() => Err(Interruption::Draining.into()),
                () = sleep_until(deadline) => Err(Interruption::DeadlinePassed.into()),
                answered = self.whole(&mut walk, request_id) => answered,
            }
        };
        let answered = self.tasks.track_future(call).await;
        answered.map_err(|error| walk.failure(error, context, 0))
    }

    /// Makes attempts until a server has answered.
    async fn whole(&self, walk: &mut Walk, request_id: &RequestId) -> Result<Answered, CallError> {
        loop {
            let attempt = walk.next(self, request_id).await?;
            let asked = async {
                let asked = self.upstream.ask(attempt.outgoing(), &attempt.post).await;
                asked.map_err(CallError::from)
            };
            match within(attempt.limits.deadline, asked).instrument(attempt.span()).await {
                Ok(whole) => {
                    return Ok(Answered {
                        selected: attempt.end(),
                        whole,
                    });
                }
                Err(error) => walk.failed(*attempt.fail(error))?,
            }
        }
    }
}
