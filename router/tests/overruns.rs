//! A deadline is kept in every stage of a call, whether or not the caller reads the answer.
#![expect(clippy::print_stderr, reason = "the test prints its measurements")]

use std::time::Duration;

use switchboard::service::deadline::less_margin;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, number, percentile, prompt},
};

/// The deadline that a caller sets.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Number of concurrent calls.
const AT_ONCE: usize = 20;

/// `SWITCHBOARD_TEST_DEADLINES` sets the number of calls at each stage. With hundreds of them the time limit is strict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_kept_in_every_stage_of_a_call() {
    let count: usize = number("SWITCHBOARD_TEST_DEADLINES", AT_ONCE);
    let allowed = Duration::from_millis(if count < 100 { 1000 } else { 50 });
    let piece = "x".repeat(8000);
    let flood = format!(r#"data: {{"choices":[{{"delta":{{"content":"{piece}"}}}}]}}"#) + "\n\n";
    for (name, script, is_read) in [
        ("before the answer", Script::silence(), true),
        ("before the first token", Script::stream().hang(), true),
        ("during the answer", Script::stream().text("one").hang(), true),
        ("with a full buffer", Script::stream().flood(flood), false),
    ] {
        let upstream = FakeUpstream::always(script).await;
        let router = Setup::at(upstream.url()).start().await.narrow().await;
        let mut begun = Vec::new();
        let mut over = Vec::new();
        for round in 0..count.div_ceil(AT_ONCE) {
            let mut calls = JoinSet::new();
            for number in round * AT_ONCE..(round + 1) * AT_ONCE {
                // The prompt identifies the call at the model server.
                let mut request = tonic::Request::new(prompt(&format!("call {number}.")));
                request.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
                let mut client = router.client.clone();
                let now = Instant::now();
                begun.push(now);
                calls.spawn(async move {
                    let mut stream = match client.stream_infer(request).await {
                        Ok(response) => response.into_inner(),
                        Err(status) => return (Some(status), now.elapsed(), None),
                    };
                    if !is_read {
                        return (None, Duration::ZERO, Some(stream));
                    }
                    loop {
                        match stream.message().await {
                            Ok(message) => assert!(message.is_some(), "the stream must end with a failure"),
                            Err(status) => return (Some(status), now.elapsed(), None),
                        }
                    }
                });
            }
            let ended = calls.join_all().await;
            router.settled().await;
            for (status, took, _unread) in &ended {
                if let Some(status) = status {
                    // On a machine so slow that the margin is used up, the failure comes from the transport's own
                    // timer.
                    assert!(
                        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
                        "{status:?}"
                    );
                    over.push(took.saturating_sub(less_margin(TIMEOUT)));
                }
            }
        }
        // The model is free by then, too.
        for received in upstream.requests() {
            let closed = upstream.closed(received.connection).await;
            let (_, number) = received.body.split_once("call ").unwrap();
            let (number, _) = number.split_once('.').unwrap();
            let due = begun[number.parse::<usize>().unwrap()] + less_margin(TIMEOUT);
            over.push(closed.saturating_duration_since(due));
        }
        let p99 = percentile(&over, 99);
        eprintln!("{name}: over by {:?}, p99 {p99:?}", percentile(&over, 50));
        assert!(p99 < allowed, "{name}: {p99:?}");
    }
}
