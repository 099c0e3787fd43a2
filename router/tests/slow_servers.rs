//! The router waits for slow or dead model servers only as long as its limits allow.

use std::time::Duration;

use switchboard::resource::model::Platform;
use tokio::{net::TcpListener, time::Instant};
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, Setup, prompt},
};

const PAUSE: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(300);
const TOTAL: Duration = Duration::from_secs(1);

/// Makes a call with this script and returns the answer and its duration.
async fn answer_of(script: Script) -> (Answer, Duration) {
    answer_from(Platform::OpenAiCompatible, script).await
}

async fn answer_from(platform: Platform, script: Script) -> (Answer, Duration) {
    let upstream = FakeUpstream::always(script).await;
    let router = Setup::at(upstream.url())
        .platform(platform, "m")
        .limits(|limits| {
            limits.first_token = IDLE;
            limits.patience.idle = IDLE;
            limits.total = TOTAL;
        })
        .start()
        .await;
    let begun = Instant::now();
    let answer = router.ask(prompt("hi")).await;
    let took = begun.elapsed();
    upstream.closed(0).await;
    router.settled().await;
    (answer, took)
}

fn dripping(begun: Script, bytes: &str) -> Script {
    (0..100).fold(begun, |script, _| script.chunk(bytes).pause(PAUSE))
}

#[tokio::test]
async fn a_slow_drip_of_events_is_ended_only_by_the_deadline() {
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let (answer, took) = answer_of(dripping(Script::stream(), event)).await;
    let told = answer.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    assert_eq!(told.metadata["tokens_sent"], answer.deltas.to_string());
    assert!(took >= TOTAL);
}

#[tokio::test]
async fn bytes_without_an_event_do_not_count_as_a_sign_of_life() {
    for bytes in ["x", "data: "] {
        let (answer, took) = answer_of(dripping(Script::stream().text("one"), bytes)).await;
        let told = answer.told();
        assert_eq!(told.reason, "UPSTREAM_IDLE_TIMEOUT", "{bytes}");
        assert_eq!(told.metadata["tokens_sent"], "1", "{bytes}");
        assert!(took < TOTAL, "{bytes}: {took:?}");

        let (answer, took) = answer_of(dripping(Script::stream(), bytes)).await;
        assert_eq!(answer.told().reason, "UPSTREAM_FIRST_BYTE_TIMEOUT", "{bytes}");
        assert!(took < TOTAL, "{bytes}: {took:?}");
    }
}

/// A model that is still reasoning may send no piece for minutes, while its platform keeps sending pings.
#[tokio::test]
async fn an_empty_event_or_a_comment_is_a_sign_of_life_but_not_a_first_token() {
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let piece = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"one"}}"#;
    let one = Script::stream().event(piece);
    for (platform, one, bytes) in [
        (Platform::Anthropic, one, ping),
        (
            Platform::OpenAiCompatible,
            Script::stream().text("one"),
            "data: {\"choices\":[]}\n\n",
        ),
        (
            Platform::OpenAiCompatible,
            Script::stream().text("one"),
            ": keep-alive\n\n",
        ),
        (
            Platform::OpenAiCompatible,
            Script::stream().text("one"),
            ": keep-alive\n",
        ),
        (Platform::OpenAiCompatible, Script::stream().text("one"), "\n"),
        (Platform::OpenAiCompatible, Script::stream().text("one"), "data:\n\n"),
        (
            Platform::OpenAiCompatible,
            Script::stream().text("one"),
            "event: heartbeat\n\n",
        ),
        (
            Platform::OpenAiCompatible,
            Script::stream().text("one"),
            "data: \"ping\"\n\n",
        ),
    ] {
        let (answer, took) = answer_from(platform.clone(), dripping(one, bytes)).await;
        let told = answer.told();
        assert_eq!(told.reason, "DEADLINE_EXCEEDED", "{bytes}");
        assert_eq!(told.metadata["tokens_sent"], "1", "{bytes}");
        assert!(took >= TOTAL, "{bytes}: {took:?}");

        let (answer, took) = answer_from(platform, dripping(Script::stream(), bytes)).await;
        assert_eq!(answer.told().reason, "UPSTREAM_FIRST_BYTE_TIMEOUT", "{bytes}");
        assert!(took < TOTAL, "{bytes}: {took:?}");
    }
}

/// The kernel accepts the connection and buffers data, but no server reads it.
#[tokio::test]
async fn a_dead_server_times_out_even_if_the_request_cannot_be_written() {
    let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let router = Setup::at(format!("http://{}", gone.local_addr().unwrap()))
        .limits(|limits| limits.first_token = IDLE)
        .start()
        .await;
    // The maximum number of characters, with four bytes each.
    let told = router.ask(prompt(&"🦀".repeat(400_000))).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (Code::Unavailable, "UPSTREAM_FIRST_BYTE_TIMEOUT")
    );
    router.settled().await;
}
