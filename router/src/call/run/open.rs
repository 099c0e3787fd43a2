//! Attempts up to the first token: one, or two where a call is hedged.

use std::pin::pin;

use switchboard::service::request_id::RequestId;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use crate::{
    call::{Attempt, CallError, Calls, Walk, walk::Hedge, within},
    relay::{self, Progress},
    upstream::{UpstreamError, answer::Answer, dialect::Event, metrics::AttemptWatch},
};

/// An attempt whose first token has come.
pub(super) struct Opened {
    pub(super) attempt: Attempt,
    pub(super) watch: AttemptWatch,
    pub(super) answer: Answer,
    pub(super) first: Event,
    pub(super) progress: Progress,
}

/// An attempt that has failed, and why. It is judged.
pub(super) type Failed = (Box<Attempt>, CallError);

/// Makes an attempt of `walk`, and a second one beside it when the first has no token in time. The first token wins; the
/// loser's connection is closed, which says nothing of its server.
pub(super) async fn open(
    calls: &Calls,
    walk: &mut Walk,
    request_id: &RequestId,
    attempt: Attempt,
) -> Result<Opened, Failed> {
    let Some(delay) = walk.hedge_delay() else {
        return open_one(calls, request_id, attempt).await;
    };
    let mut first = pin!(Box::pin(open_one(calls, request_id, attempt)));
    tokio::select! {
        biased;
        opened = &mut first => return opened,
        () = sleep(delay) => {}
    }
    let Some(Hedge { attempt, place }) = walk.hedge() else {
        return first.await;
    };
    let mut second = pin!(Box::pin(open_one(calls, request_id, attempt)));
    // One that fails leaves it to the other.
    let (mut opened, is_second) = tokio::select! {
        biased;
        opened = &mut first => match opened {
            Ok(opened) => (opened, false),
            Err(_judged) => (second.await?, true),
        },
        opened = &mut second => match opened {
            Ok(opened) => (opened, true),
            Err(_judged) => (first.await?, false),
        },
    };
    walk.settle(&mut opened.attempt, is_second.then_some(place));
    Ok(opened)
}

async fn open_one(calls: &Calls, request_id: &RequestId, mut attempt: Attempt) -> Result<Opened, Failed> {
    let mut progress = Progress::default();
    let metrics = calls.upstream.metrics();
    let mut watch = metrics.begin(&attempt.selected.model.name, &attempt.selected.endpoint.uri, request_id);
    let opening = async {
        let mut answer = calls.upstream.post(attempt.outgoing(request_id), &attempt.post).await?;
        let first = relay::first_token(&mut answer, &mut progress).await?;
        Ok((answer, first))
    };
    let in_time = async {
        let opened = timeout(attempt.first_token, opening).await;
        opened
            .unwrap_or(Err(UpstreamError::FirstTokenTimeout(attempt.first_token)))
            .map_err(CallError::from)
    };
    match within(attempt.deadline, in_time).instrument(watch.span()).await {
        Ok((answer, first)) => {
            watch.first_token();
            calls.permits.accept(&attempt.selected.model);
            attempt.in_flight.first_token();
            Ok(Opened {
                attempt,
                watch,
                answer,
                first,
                progress,
            })
        }
        Err(error) => {
            watch.ended(Some(&error));
            attempt.judge(Some(&error));
            Err((Box::new(attempt), error))
        }
    }
}
