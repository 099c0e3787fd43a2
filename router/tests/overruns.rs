//! A deadline is kept wherever the call stands, whether or not anybody looks at it.
#![expect(clippy::print_stderr, reason = "what was measured is told")]

use std::time::Duration;

use switchboard::service::deadline::less_margin;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, number, percentile, prompt},
};

/// What a caller allows.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How many calls run at a time.
const AT_ONCE: usize = 20;

/// `SWITCHBOARD_TEST_DEADLINES` calls at each stage; with hundreds of them the time is judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deadline_is_overrun_wherever_the_call_stands() {
    let count: usize = number("SWITCHBOARD_TEST_DEADLINES", AT_ONCE);
    let allowed = Duration::from_millis(if count < 100 { 1000 } else { 50 });
    let piece = "x".repeat(8000);
    let flood = format!(r#"data: {{"choices":[{{"delta":{{"content":"{piece}"}}}}]}}"#) + "\n\n";
    for (name, script, is_read) in [
        ("before the answer", Script::silence(), true),
        ("before the first token", Script::stream().hang(), true),
        ("within the answer", Script::stream().text("one").hang(), true),
        ("behind a full buffer", Script::stream().flood(flood), false),
    ] {
        let upstream = FakeUpstream::always(script).await;
        let router = Setup::at(upstream.url()).start().await.narrow().await;
        let mut begun = Vec::new();
        let mut over = Vec::new();
        for round in 0..count.div_ceil(AT_ONCE) {
            let mut calls = JoinSet::new();
            for number in round * AT_ONCE..(round + 1) * AT_ONCE {
                // By its prompt a call is known where it arrives.
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
                            Ok(message) => assert!(message.is_some(), "it does not end well"),
                            Err(status) => return (Some(status), now.elapsed(), None),
                        }
                    }
                });
            }
            let ended = calls.join_all().await;
            router.settled().await;
            for (status, took, _unread) in &ended {
                if let Some(status) = status {
                    // Where the machine is so slow that the margin was used up, the transport's own timer says it.
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
