//! A caller that cancels, at any stage and in any way, stops the model at once and leaves nothing behind.
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its measurements"
)]

use std::time::Duration;

use switchboard::resource::model::{self, Count, Timeout};
use tokio::time::Instant;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, number, percentile, prompt},
    peer::{Call, Method, Peer, Stream},
};

/// Places of the model, all of which must be free again in the end.
const PLACES: usize = 2;

/// The stage of a call at which its caller cancels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The call waits for a place at the model.
    Queued,
    /// The server has accepted the connection and does not answer the TLS handshake.
    Dialling,
    /// The request was sent.
    Waiting,
    Streaming,
    /// The answer is complete, but its body has not ended.
    Complete,
}

/// The way in which a caller cancels.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By resetting the call's stream.
    Reset,
    /// By closing its connection.
    Cut,
}

/// A call as its caller holds it.
enum Held {
    Call(Call),
    Stream(Stream),
}

impl Held {
    fn reset(self) {
        match self {
            Self::Call(call) => call.reset(),
            Self::Stream(stream) => stream.reset(),
        }
    }
}

async fn router(stage: Stage) -> (FakeUpstream, Router) {
    let upstream = FakeUpstream::always(match stage {
        Stage::Queued | Stage::Dialling | Stage::Waiting => Script::silence(),
        Stage::Streaming => Script::stream().text("one").hang(),
        Stage::Complete => Script::stream().text("one").finish("stop").hang(),
    })
    .await;
    let url = upstream.url();
    let endpoint = match stage {
        Stage::Dialling => url.replacen("http://", "https://", 1),
        Stage::Queued | Stage::Waiting | Stage::Streaming | Stage::Complete => url,
    };
    let minute = Duration::from_secs(60);
    let router = Setup::at(endpoint)
        .model_limits(model::Limits {
            max_concurrency: Count::parse(i32::try_from(PLACES).unwrap()).ok(),
            max_queue: Count::parse(8).ok(),
            connect_timeout: Timeout::parse(minute).ok(),
            queue_timeout: Timeout::parse(minute).ok(),
            ..model::Limits::default()
        })
        // Only the caller ends a call.
        .limits(|limits| {
            limits.patience.finish = minute;
            limits.drain = minute;
        })
        .start()
        .await;
    (upstream, router)
}

/// Makes a call, cancels it at this stage, and returns how long afterwards the model was free.
async fn cancelled(upstream: &FakeUpstream, router: &Router, stage: Stage, method: Method, way: Way) -> Duration {
    let peer = Peer::connect(router.address).await;
    let (connection, running) = (upstream.connections(), router.tasks.len());
    let call = peer.call(method, &prompt("hi")).await;
    let held = match stage {
        Stage::Queued => {
            router.running(running + 1).await;
            Held::Call(call)
        }
        Stage::Dialling => {
            upstream.opened(connection).await;
            Held::Call(call)
        }
        Stage::Waiting => {
            upstream.request(connection).await;
            Held::Call(call)
        }
        Stage::Streaming | Stage::Complete => {
            let mut stream = call.begun().await.unwrap();
            for _selection_and_piece in 0..2 {
                stream.message().await.unwrap().unwrap();
            }
            Held::Stream(stream)
        }
    };
    let gone = Instant::now();
    match way {
        Way::Reset => held.reset(),
        Way::Cut => drop(peer),
    }
    let free = match stage {
        // No server has received the call, so its end is the end of its task.
        Stage::Queued => {
            router.running(running).await;
            Instant::now()
        }
        Stage::Dialling | Stage::Waiting | Stage::Streaming | Stage::Complete => upstream.closed(connection).await,
    };
    free.saturating_duration_since(gone)
}

/// `SWITCHBOARD_TEST_CANCELS` sets the number of callers for each stage and way. With hundreds of them the time limit
/// is strict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_free_at_once_after_its_caller_cancels() {
    use Stage::{Complete, Dialling, Queued, Streaming, Waiting};
    let count = number("SWITCHBOARD_TEST_CANCELS", 20);
    let at_once = Duration::from_millis(if count < 100 { 1000 } else { 100 });
    for (method, stages) in [
        (
            Method::StreamInfer,
            [Queued, Dialling, Waiting, Streaming, Complete].as_slice(),
        ),
        // A unary call has no stage between its tokens.
        (Method::Infer, [Queued, Dialling, Waiting].as_slice()),
    ] {
        for &stage in stages {
            for way in [Way::Reset, Way::Cut] {
                let (upstream, router) = router(stage).await;
                let holding = Peer::connect(router.address).await;
                let mut held = Vec::new();
                if stage == Queued {
                    for place in 0..PLACES {
                        held.push(holding.call(Method::StreamInfer, &prompt("hi")).await);
                        upstream.request(place).await;
                    }
                }
                let mut took = Vec::new();
                for _ in 0..count {
                    took.push(cancelled(&upstream, &router, stage, method, way).await);
                }
                drop((held, holding));
                router.settled().await;
                // No connection stays open.
                let opened = upstream.connections();
                for connection in 0..opened {
                    upstream.closed(connection).await;
                }

                // Every place is free again: as many calls as there are places reach the server at once.
                let caller = Peer::connect(router.address).await;
                let mut calls = Vec::new();
                for _ in 0..PLACES {
                    calls.push(caller.call(method, &prompt("hi")).await);
                }
                upstream.opened(opened + PLACES - 1).await;
                drop((calls, caller));
                router.settled().await;

                let p99 = percentile(&took, 99);
                eprintln!(
                    "{method:?}, {stage:?}, {way:?}: free after {:?}, p99 {p99:?}",
                    percentile(&took, 50)
                );
                assert!(p99 < at_once, "{method:?}, {stage:?}, {way:?}: {p99:?}");
            }
        }
    }
}
