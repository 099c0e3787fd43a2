//! A call that is answered whole: several times cheaper for the model's server than a stream.
//!
//! Nothing comes before the end, so only dialling and the whole call have a limit. It needs no task of its own: a caller that
//! goes drops the call, and with it the connection to the model.

use std::time::Duration;

use switchboard::service::request_id::RequestId;
use tokio::time::sleep_until;

use super::{CallError, CallFailure, Calls, Context, Plan, Selected};
use crate::{
    prompt::Request,
    upstream::{Outgoing, dialect::Whole},
};

/// A whole answer.
#[derive(Debug)]
pub struct Answered {
    /// Who answered.
    pub selected: Selected,
    /// The answer.
    pub whole: Whole,
}

impl Calls {
    /// Makes a call and waits for its whole answer. `timeout` is what the caller allows for it.
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
        request_id: &RequestId,
    ) -> Result<Answered, CallFailure> {
        let mut context = Context::new(request.input.field());
        let answered = match self.plan(&request, timeout, &mut context) {
            Ok(plan) => self.tasks.track_future(self.whole(plan, request_id)).await,
            Err(error) => Err(error),
        };
        answered.map_err(|error| CallFailure {
            error,
            context,
            sent: 0,
        })
    }

    async fn whole(&self, plan: Plan, request_id: &RequestId) -> Result<Answered, CallError> {
        let Plan {
            deadline,
            selected,
            post,
        } = plan;
        let outgoing = Outgoing {
            endpoint: &selected.endpoint.uri,
            credential: selected.model.credential.as_deref(),
            request_id,
        };
        let whole = tokio::select! {
            biased;
            () = self.drain.cancelled() => return Err(CallError::Draining),
            () = sleep_until(deadline) => return Err(CallError::DeadlinePassed),
            whole = self.upstream.ask(outgoing, &post) => whole?,
        };
        Ok(Answered { selected, whole })
    }
}
