//! Connections to model servers: which are reused, what is sent on them, and when they are closed.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, Setup, TOKEN, Told, event, prompt},
};

/// The time within which a cancellation must reach the model server.
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_connection_is_reused_for_later_calls() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for _ in 0..3 {
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
        router.settled().await;
    }
    let connections: Vec<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0]);
}

#[tokio::test]
async fn a_stale_connection_does_not_fail_a_call() {
    for stale in [Script::closed(), Script::broken()] {
        let upstream = FakeUpstream::start().await;
        let router = Setup::at(upstream.url()).start().await;
        router.ask(prompt("first")).await;
        router.settled().await;

        upstream.then(stale);
        let answer = router.ask(prompt("second")).await;
        assert_eq!(answer.text, "hello", "{:?}", answer.failure);
        let requests = upstream.requests();
        let connections: Vec<usize> = requests.iter().map(|request| request.connection).collect();
        assert_eq!(
            connections,
            [0, 0, 1],
            "the second call was sent again on a new connection"
        );
        assert_eq!(requests[1].body, requests[2].body);
    }
}

#[tokio::test]
async fn a_reused_connection_that_breaks_during_an_answer_fails_the_call() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    router.ask(prompt("first")).await;
    router.settled().await;

    upstream.then(Script::default().raw("HTTP/1.1 200").close());
    let told = router.ask(prompt("second")).await.told();
    assert_eq!(told.reason, "UPSTREAM_STREAM_TRUNCATED");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_request_that_fails_twice_is_not_sent_a_third_time() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    router.ask(prompt("first")).await;
    router.settled().await;

    upstream.then(Script::closed()).then(Script::closed());
    let told = router.ask(prompt("second")).await.told();
    assert_eq!(told.reason, "UPSTREAM_STREAM_TRUNCATED");
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn calls_succeed_at_a_server_that_closes_after_each_answer_unannounced() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for round in 0..100 {
        upstream.then(Script::answer(["hello"]).close());
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello", "round {round}: {:?}", answer.failure);
    }
}

#[tokio::test]
async fn a_token_is_sent_only_to_the_origins_that_it_is_bound_to() {
    let (own, other) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let router = Setup::at(own.url()).token_for(&[&own.url()]).start().await;
    router.ask(prompt("hi")).await;
    assert_eq!(own.request(0).await.headers["authorization"], format!("Bearer {TOKEN}"));

    let router = Setup::at(own.url()).token_for(&[&other.url()]).start().await;
    router.ask(prompt("hi")).await;
    assert_eq!(own.request(1).await.headers.get("authorization"), None);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    first.then(Script::response(308, &[("location", &second.url())], ""));
    let router = Setup::at(first.url()).token_for(&[&first.url()]).start().await;
    assert_eq!(
        router.ask(prompt("hi")).await.told().reason,
        "UPSTREAM_REDIRECT_REFUSED"
    );
    assert_eq!(second.requests().len(), 0);
}

#[tokio::test]
async fn a_cancellation_before_the_first_token_closes_the_connection_to_the_model() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for (number, script) in [Script::silence(), Script::stream().hang()].into_iter().enumerate() {
        upstream.then(script);
        let mut client = router.client.clone();
        let call = client.stream_infer(prompt("hi"));
        tokio::select! {
            _ = call => panic!("the call must not be answered"),
            _ = upstream.request(number) => {}
        }
        let gone = Instant::now();
        upstream.closed(number).await;
        assert!(gone.elapsed() < AT_ONCE, "{:?}", gone.elapsed());
    }
    router.settled().await;
}

#[tokio::test]
async fn a_cancellation_mid_stream_closes_the_connection_to_the_model() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").hang());
    let router = Setup::at(upstream.url()).start().await;
    let stream = router.begin().await;
    let gone = Instant::now();
    drop(stream);
    upstream.closed(0).await;
    assert!(gone.elapsed() < AT_ONCE, "{:?}", gone.elapsed());
    router.settled().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_frees_the_model_and_gets_a_failure() {
    let piece = format!(
        r#"{{"choices":[{{"index":0,"delta":{{"content":"{}"}}}}]}}"#,
        "x".repeat(8000)
    );
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").flood(format!("data: {piece}\n\n")));
    let router = Setup::at(upstream.url())
        .limits(|limits| limits.patience.slow_caller = Duration::from_millis(300))
        .start()
        .await;
    let stream = router.begin().await;
    upstream.closed(0).await;

    let mut answer = Answer {
        selection: Some(Default::default()),
        ..Answer::default()
    };
    answer.read(stream).await;
    let told = answer.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::ResourceExhausted, "CLIENT_TOO_SLOW")
    );
    assert_eq!(told.metadata["partial"], "true");
}

#[tokio::test]
async fn running_calls_end_when_the_router_shuts_down() {
    let upstream = FakeUpstream::start().await;
    upstream
        .then(Script::stream().text("one").hang())
        .then(Script::silence());
    let router = Setup::at(upstream.url()).start().await;
    let mut streaming = router.begin().await;
    let waiting = router.ask(prompt("hi"));
    let drained = async {
        upstream.request(1).await;
        router.drain.cancel();
    };
    let (waiting, ()) = tokio::join!(waiting, drained);

    let told = waiting.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::Unavailable, "SERVER_DRAINING")
    );
    assert!(told.retry.is_some());
    let status = streaming.message().await.unwrap_err();
    let told = Told::of(&status);
    assert_eq!(told.reason, "SERVER_DRAINING");
    assert_eq!((told.metadata["partial"].as_str(), told.retry), ("true", None));
    assert_eq!(
        router.ask(prompt("hi")).await.told().reason,
        "SERVER_DRAINING",
        "a new call is refused"
    );
    upstream.closed(0).await;
    upstream.closed(1).await;
    router.settled().await;
}

#[tokio::test]
async fn a_slow_epilogue_does_not_delay_the_completion() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").finish("stop").hang());
    let router = Setup::at(upstream.url()).start().await;
    let mut stream = router.begin().await;
    let completion = timeout(Duration::from_secs(1), event(&mut stream)).await;
    completion.expect("the router waits only half a second for usage and the end marker");
    upstream.closed(0).await;
}

/// Each response frames the same stream of events in a different way that HTTP permits, some after informational
/// responses.
#[tokio::test]
async fn an_answer_is_read_in_every_http_framing() {
    let event = |data: &str| format!("data: {data}\n\n");
    let body = [
        event(r#"{"choices":[{"index":0,"delta":{"content":"hello"}}]}"#),
        event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
        event("[DONE]"),
    ]
    .concat();
    let length = body.len();
    let kind = "content-type: text/event-stream";
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for head in [
        format!("HTTP/1.0 200 OK\r\n{kind}\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{kind}\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{kind}\r\n\r\n{body}"),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{kind}\r\n\r\n{length:X};a=\"b\"\r\n{body}\r\n\
             0;last\r\nserver-timing: x\r\n\r\n"
        ),
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
             HTTP/1.1 200\r\ncontent-length: {length}\r\n{kind}\r\n\r\n{body}"
        ),
    ] {
        upstream.then(Script::default().raw(head.clone()).close());
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello", "{head}: {:?}", answer.failure);
        router.settled().await;
    }
}

#[tokio::test]
async fn a_status_without_an_answer_is_a_protocol_error() {
    for head in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let upstream = FakeUpstream::always(Script::default().raw(head)).await;
        let router = Setup::at(upstream.url()).start().await;
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(told.reason, "UPSTREAM_PROTOCOL_ERROR", "{head}");
        router.settled().await;
    }
}
