//! Failures name the server and the cause, each once, wherever an administrator or a caller reads of them.

use std::net::TcpListener;

use prost::Message as _;
use serde_json::Value;
use switchboard::pb::{
    registry::{CheckModelRequest, CheckOutcome},
    router::{Candidates, GetStatusRequest},
};
use tonic::{Code, Request, Status};
use tonic_types::{StatusExt as _, pb};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, Service, asking, infer},
};

/// The model's API token, which must not be seen in any text.
const CANARY: &str = "sk-canary-7d1e";

/// Returns the URL of a server that does not listen.
fn not_listening() -> String {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", unused.local_addr().unwrap())
}

/// Checks that a text names the server and the cause, each once.
fn names_once(text: &str, server: &str, cause: &str) {
    for part in [server, cause] {
        assert_eq!(text.matches(part).count(), 1, "`{part}` in: {text}");
    }
}

/// Returns the log lines of a service that logs JSON.
fn lines(service: &Service) -> Vec<Value> {
    let log = service.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Makes a call whose access line [`access_line`] finds.
async fn infer_as(pair: &Pair, request_id: &str) -> Result<(), Status> {
    let mut request = Request::new(asking("code_generations", "hello"));
    request
        .metadata_mut()
        .insert("x-request-id", request_id.parse().unwrap());
    let mut stream = pair.inference().stream_infer(request).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

/// Waits for the access line of the call with this id.
async fn access_line(pair: &Pair, request_id: &str) -> Value {
    let mut line = None;
    pair.wait_until(async || {
        let is_it = |line: &Value| line["target"] == "switchboard::access" && line["request_id"] == request_id;
        line = lines(&pair.router).into_iter().find(is_it);
        line.is_some()
    })
    .await;
    line.unwrap()
}

fn endpoint_of(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["endpoint"].clone()
}

async fn a_server_that_does_not_listen_is_named_with_the_cause_everywhere() {
    let pair = Pair::start_with(&["--log-format=json".to_owned()]).await;
    let server = not_listening();
    let cause = "connection refused";
    pair.configure(&format!("{server}/secret-path/v1"), Some(CANARY)).await;
    pair.wait_until_routed("code_generations").await;

    let status = infer_as(&pair, "refused").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let message = format!("could not connect to {server}: {cause}");
    assert_eq!(status.message(), message);
    names_once(status.message(), &server, cause);
    assert_eq!(endpoint_of(&status), server);
    let rich = pb::Status::decode(status.details()).unwrap();
    let details = rich.details.iter();
    let candidates = details.filter(|detail| detail.type_url.ends_with("switchboard.router.v1.Candidates"));
    let candidates = candidates.map(|detail| Candidates::decode(&*detail.value).unwrap());
    let shown: Vec<String> = candidates
        .flat_map(|list| list.candidates)
        .map(|model| model.detail)
        .collect();
    assert_eq!(shown, [message.as_str()]);

    let line = access_line(&pair, "refused").await;
    assert_eq!(
        (&line["endpoint"], &line["error"]),
        (&server.clone().into(), &message.clone().into())
    );

    // Three failures in a row take the server out.
    for _ in 0..3 {
        infer(&mut pair.inference(), "code_generations", "hello")
            .await
            .unwrap_err();
    }
    for text in [
        "an attempt has failed",
        "a server failed repeatedly: it gets no calls at the moment",
    ] {
        let line = lines(&pair.router).into_iter().find(|line| line["message"] == text);
        assert_eq!(line.unwrap_or_else(|| panic!("no line `{text}`"))["error"], message);
    }

    let shown = pair.routing().get_status(GetStatusRequest {}).await.unwrap();
    let endpoints = shown.into_inner().endpoints;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(
        (endpoints[0].reason.as_str(), endpoints[0].detail.as_str()),
        ("UPSTREAM_CONNECT_FAILED", message.as_str())
    );

    let request = CheckModelRequest {
        name: "models/mistral".to_owned(),
        ..Default::default()
    };
    let checked = pair.models().check_model(request).await.unwrap().into_inner();
    let mut steps = checked.checks.into_iter().flat_map(|check| check.steps);
    let failed = steps.find(|step| step.outcome() == CheckOutcome::Failed).unwrap();
    assert_eq!(
        (failed.step.as_str(), failed.message.as_str()),
        ("tcp", message.as_str())
    );

    for secret in [CANARY, "secret-path"] {
        assert!(!format!("{status:?}").contains(secret), "{secret}");
    }
    assert!(!pair.router.log().contains(CANARY));
    pair.finish().await;
}

async fn a_connection_that_breaks_is_named_with_its_server_within_and_before_an_answer() {
    let pair = Pair::start_with(&["--log-format=json".to_owned()]).await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let server = format!("http://{}", upstream.addr());
    for (id, script, message) in [
        (
            "cut",
            Script::stream().text("one").close(),
            format!("the connection to {server} closed before the answer was complete"),
        ),
        // This call opens a new connection: a pooled connection that breaks is not an error.
        (
            "reset",
            Script::broken(),
            format!("lost the connection to {server} before it answered: connection reset"),
        ),
    ] {
        upstream.then(script);
        let status = infer_as(&pair, id).await.unwrap_err();
        assert_eq!(
            (status.message(), endpoint_of(&status)),
            (message.as_str(), server.clone())
        );
        let line = access_line(&pair, id).await;
        assert_eq!(
            (&line["endpoint"], &line["error"]),
            (&server.clone().into(), &message.into())
        );
    }
    infer_as(&pair, "well").await.unwrap();
    let line = access_line(&pair, "well").await;
    assert_eq!((&line["endpoint"], &line["error"]), (&server.into(), &Value::Null));
    pair.finish().await;
}

async fn a_registry_that_cannot_be_reached_is_named_with_the_cause() {
    for (registry, cause) in [
        (not_listening(), "connection refused"),
        (
            "http://name.invalid:50051".to_owned(),
            "the host name does not resolve (",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let args = [
            "--listen-addr=127.0.0.1:0".to_owned(),
            format!("--registry-addr={registry}"),
            "--log-format=json".to_owned(),
        ];
        let mut router = Service::start("switchboard-router", folder.path(), &args).await;
        let begins = format!("could not connect to the registry {registry}: {cause}");
        router.wait_for_log(&begins).await;
        let messages = lines(&router).into_iter().map(|line| line["message"].clone());
        let warned: Vec<_> = messages
            .filter_map(|message| Some(message.as_str()?.to_owned()))
            .filter(|message| message.starts_with("could not connect"))
            .collect();
        assert_eq!(warned.len(), 1, "{warned:?}");
        names_once(&warned[0], &registry, cause);
        assert!(router.terminate().await.success());
    }
}

tests! {
    a_server_that_does_not_listen_is_named_with_the_cause_everywhere,
    a_connection_that_breaks_is_named_with_its_server_within_and_before_an_answer,
    a_registry_that_cannot_be_reached_is_named_with_the_cause,
}
