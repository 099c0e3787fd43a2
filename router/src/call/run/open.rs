//! Attempts up to the first token: one at a time, or two in parallel if the call is hedged.

use std::pin::pin;

use switchboard::service::request_id::RequestId;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use crate::{
    call::{
        CallError, Calls, Walk,
        attempt::{Attempt, FailedAttempt},
        walk::Hedge,
        within,
    },
    relay::{self, AnswerProgress},
    upstream::{UpstreamError, answer::Answer, dialect::Event},
};

/// An attempt whose first token has arrived.
pub(super) struct Opened<'a> {
    pub(super) attempt: Attempt<'a>,
    pub(super) answer: Answer,
    pub(super) first: Event,
    pub(super) progress: AnswerProgress,
}

/// Makes attempts of `walk` until one has its first token.
pub(super) async fn open<'a>(
    calls: &'a Calls,
    walk: &mut Walk,
    request_id: &'a RequestId,
) -> Result<Opened<'a>, CallError> {
    loop {
        let attempt = walk.next(calls, request_id).await?;
        match open_hedged(calls, walk, request_id, attempt).await {
            Ok(opened) => return Ok(opened),
            Err(failed) => walk.failed(*failed)?,
        }
    }
}

/// Makes an attempt of `walk`, and a second one in parallel if the first has no token in time. The first token wins;
/// the other attempt is dropped, which closes its connection and says nothing about its server.
async fn open_hedged<'a>(
    calls: &'a Calls,
    walk: &mut Walk,
    request_id: &'a RequestId,
    attempt: Attempt<'a>,
) -> Result<Opened<'a>, Box<FailedAttempt>> {
    let Some(delay) = walk.hedge_delay() else {
        return open_one(calls, attempt).await;
    };
    let mut first = pin!(Box::pin(open_one(calls, attempt)));
    tokio::select! {
        biased;
        opened = &mut first => return opened,
        () = sleep(delay) => {}
    }
    let Some(Hedge { attempt, slot }) = walk.hedge(calls, request_id) else {
        return first.await;
    };
    let mut second = pin!(Box::pin(open_one(calls, attempt)));
    // If one attempt fails, the result is that of the other.
    let (mut opened, is_second) = tokio::select! {
        biased;
        opened = &mut first => match opened {
            Ok(opened) => (opened, false),
            Err(_failed) => (second.await?, true),
        },
        opened = &mut second => match opened {
            Ok(opened) => (opened, true),
            Err(_failed) => (first.await?, false),
        },
    };
    walk.settle(&mut opened.attempt, is_second.then_some(slot));
    Ok(opened)
}

async fn open_one<'a>(calls: &Calls, mut attempt: Attempt<'a>) -> Result<Opened<'a>, Box<FailedAttempt>> {
    let mut progress = AnswerProgress::default();
    let limits = attempt.limits;
    let opening = async {
        let mut answer = calls.upstream.post(attempt.outgoing(), &attempt.post).await?;
        let first = relay::first_token(&mut answer, &mut progress).await?;
        Ok((answer, first))
    };
    let in_time = async {
        let opened = timeout(limits.first_token, opening).await;
        opened
            .unwrap_or(Err(UpstreamError::FirstTokenTimeout(limits.first_token)))
            .map_err(CallError::from)
    };
    match within(limits.deadline, in_time).instrument(attempt.span()).await {
        Ok((answer, first)) => {
            attempt.first_token();
            Ok(Opened {
                attempt,
                answer,
                first,
                progress,
            })
        }
        Err(error) => Err(attempt.fail(error)),
    }
}
