//! A call that is answered whole: several times cheaper for the model's server than a stream.
//!
//! Nothing comes before the end, so only dialling and the whole call have a limit: another server is tried when one fails,
//! never because one is slow. It needs no task of its own: a caller that goes drops the call, and with it the connection to
//! the model.

use std::time::Duration;

use switchboard::service::request_id::RequestId;
use tokio::time::sleep_until;
use tracing::Instrument as _;

use super::{CallContext, CallError, CallFailure, Calls, Interruption, Selected, Walk, within};
use crate::{catalog::Scope, endpoints::Shape, prompt::Request, upstream::dialect::Whole};

/// A whole answer.
#[derive(Debug)]
pub struct Answered {
    /// Who answered.
    pub selected: Selected,
    /// The answer.
    pub whole: Whole,
}

impl Calls {
    /// Makes a call for `scope` and waits for its whole answer. `timeout` is what is allowed for it.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] for everything that goes wrong.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the model.
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

    /// Attempts until a server has answered.
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
