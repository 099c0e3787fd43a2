//! Answers without end, and panics in the router: one call fails, and no other call is affected.

use switchboard::pb::router::{InferRequest, StreamInferResponse, infer_request::Input, stream_infer_response::Event};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, infer, reason_of},
    observability::metric,
};

/// Memory in KiB that a router may use for one endless answer: its limits, and data in flight.
const ANSWER_KIB: u64 = 24 * 1024;
const FEATURE: &str = "code_generations";
const PROMPT: &str = "canary-prompt-44af";

fn request() -> InferRequest {
    InferRequest {
        feature: FEATURE.to_owned(),
        input: Some(Input::Prompt(PROMPT.to_owned())),
        ..Default::default()
    }
}

async fn event(stream: &mut Streaming<StreamInferResponse>) -> Event {
    stream.message().await.unwrap().unwrap().event.unwrap()
}

async fn start(env: &[(&str, &str)], upstream: &FakeUpstream) -> Pair {
    let pair = Pair::start_under(env).await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed(FEATURE).await;
    pair
}

async fn an_endless_answer_uses_bounded_memory() {
    let upstream = FakeUpstream::start().await;
    let pair = start(&[], &upstream).await;
    infer(&mut pair.inference(), FEATURE, PROMPT).await.unwrap();
    let chunked = ("transfer-encoding", "chunked");
    let json = [("content-type", "application/json"), chunked];
    let kib = "x".repeat(64 * 1024);
    let endless = [
        (
            "header",
            Script::default().raw("HTTP/1.1 200 OK\r\nx: ").flood_raw(kib.as_str()),
        ),
        ("line", Script::stream().text("one").flood(kib.as_str())),
        ("event", Script::stream().text("one").flood(format!("data: {kib}\n"))),
        ("answer", Script::stream().text("one").flood(format!(": {kib}\n\n"))),
        ("refusal", Script::head(400, &json).flood(kib.as_str())),
    ];
    let mut peak = pair.router.peak_kib();
    for (name, script) in endless {
        upstream.then(script);
        let told = reason_of(&infer(&mut pair.inference(), FEATURE, PROMPT).await).unwrap();
        let expected = match name {
            "refusal" => "UPSTREAM_REJECTED_REQUEST",
            _ => "UPSTREAM_RESPONSE_TOO_LARGE",
        };
        assert_eq!(told, expected, "{name}");
        let now = pair.router.peak_kib();
        assert!(now < peak + ANSWER_KIB, "{name}: {peak} KiB, then {now}");
        peak = now;
    }
    upstream.then(Script::head(200, &json).flood(kib));
    let whole = pair.inference().infer(request()).await;
    assert_eq!(reason_of(&whole).unwrap(), "UPSTREAM_RESPONSE_TOO_LARGE");
    let now = pair.router.peak_kib();
    assert!(now < peak + ANSWER_KIB, "a whole answer: {peak} KiB, then {now}");
    pair.finish().await;
}

async fn a_panic_fails_only_its_own_call() {
    // The calls with which a pair detects that it is configured must not reach these counts.
    let points = "infer.handler=panic@100;infer.task=panic@100;infer.answer=panic@100";
    let upstream = FakeUpstream::start().await;
    let pair = start(&[("SWITCHBOARD_FAILPOINTS", points)], &upstream).await;
    upstream.then(Script::stream().text("one").text("two").hang());
    let mut other = pair.inference().stream_infer(request()).await.unwrap().into_inner();
    assert!(matches!(event(&mut other).await, Event::Selection(_)));
    assert!(matches!(event(&mut other).await, Event::Delta(_)));

    let mut client = pair.inference();
    let mut failed = 0;
    for number in 0..150 {
        let id = format!("call-{number}");
        let mut request = tonic::Request::new(request());
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        let ended = async {
            let mut answer = client.stream_infer(request).await?.into_inner();
            let mut last = None;
            while let Some(message) = answer.message().await? {
                last = message.event;
            }
            Ok::<_, Status>(last)
        };
        match ended.await {
            Ok(last) => assert!(
                matches!(last, Some(Event::Completion(_))),
                "OK never comes without a completion"
            ),
            Err(status) => {
                failed += 1;
                let info = status.get_error_details().error_info().unwrap().clone();
                assert_eq!(
                    (status.code(), info.reason.as_str()),
                    (Code::Internal, "INTERNAL_ERROR")
                );
                assert_eq!(info.metadata["request_id"], id);
                assert!(
                    !status.message().contains("failpoint"),
                    "the status does not contain the panic message"
                );
            }
        }
    }
    assert_eq!(failed, 3);
    for place in ["infer.handler", "infer.task", "infer.answer"] {
        assert!(pair.router.log().contains(&format!("failpoint {place}")), "{place}");
    }
    let count = "switchboard_calls_finished_total{method=\"switchboard.router.v1.InferenceService/StreamInfer\",\
                 code=\"INTERNAL\",reason=\"INTERNAL_ERROR\"}";
    pair.wait_until(async || metric(&pair.router, count) == 3.0).await;
    assert_eq!(
        infer(&mut pair.inference(), FEATURE, PROMPT).await.unwrap().text,
        "hello"
    );
    drop(other);
    // The connection of the other stream was not closed before.
    upstream.closed(upstream.request(0).await.connection).await;
    assert!(!pair.router.log().contains(PROMPT));
    pair.finish().await;
}

tests! {
    an_endless_answer_uses_bounded_memory,
    a_panic_fails_only_its_own_call,
}
