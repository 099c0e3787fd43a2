//! Probes of model servers: their requests, and the health that follows from the responses.

use switchboard::reason::Reason;
use switchboard_router::endpoints::Health;
use tokio::time::{advance, pause, resume};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, TOKEN, prompt},
};

const HEALTH: &str = "GET /health HTTP/1.1";
const MODELS: &str = "GET /v1/models HTTP/1.1";
const METRICS: &str = "GET /metrics HTTP/1.1";

fn status(status: u16) -> Script {
    Script::response(status, &[], "")
}

fn models(names: &[&str]) -> Script {
    let entries: Vec<String> = names.iter().map(|name| format!(r#"{{"id":"{name}"}}"#)).collect();
    Script::json(&format!(r#"{{"object":"list","data":[{}]}}"#, entries.join(",")))
}

fn page(waiting: u32) -> Script {
    let page = format!("llamacpp:requests_processing 1\nllamacpp:requests_deferred {waiting}\n");
    Script::response(200, &[("content-type", "text/plain")], &page)
}

fn asked(upstream: &FakeUpstream) -> Vec<String> {
    upstream.probes().into_iter().map(|request| request.line).collect()
}

#[tokio::test]
async fn a_probe_requests_health_then_the_model_list_and_never_a_generation() {
    let failing = Health::Recovering(Reason::UpstreamServerError);
    let truncated = Health::Recovering(Reason::UpstreamStreamTruncated);
    let list = || models(&["m"]);
    let rows = [
        (vec![status(200)], Health::Healthy),
        (vec![status(204)], Health::Healthy),
        (vec![status(503)], failing),
        (vec![status(500)], failing),
        (vec![Script::closed()], truncated),
        (vec![status(404), list()], Health::Healthy),
        (vec![status(405), list()], Health::Healthy),
        (vec![status(501), list()], Health::Healthy),
        (vec![status(401), list()], Health::Healthy),
        (vec![status(404), status(404)], Health::Healthy),
        (vec![status(404), status(401)], Health::Healthy),
        (vec![status(404), status(503)], failing),
        (vec![status(404), Script::closed()], truncated),
    ];
    for (scripts, health) in rows {
        let upstream = FakeUpstream::start().await;
        let expected = &[HEALTH, MODELS][..scripts.len()];
        let shown = format!("{scripts:?}");
        for script in scripts {
            upstream.probed(script);
        }
        let router = Setup::at(upstream.url()).start().await;
        assert_eq!(router.probe().await, [Some(health)], "{shown}");
        assert_eq!(asked(&upstream), expected, "{shown}");
        assert!(upstream.requests().is_empty(), "a probe never requests a generation");
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_hangs_fails_its_probe() {
    let refusing = Setup::at("http://127.0.0.1:1").start().await;
    let refused = Health::Recovering(Reason::UpstreamConnectFailed);
    assert_eq!(refusing.probe().await, [Some(refused)]);

    let upstream = FakeUpstream::start().await;
    upstream.probed(Script::silence());
    let router = Setup::at(upstream.url()).start().await;
    let (health, ()) = tokio::join!(router.probe(), async {
        upstream.is_probed().await;
        pause();
        advance(std::time::Duration::from_secs(5)).await;
        resume();
    });
    let late = Health::Recovering(Reason::UpstreamFirstByteTimeout);
    assert_eq!(health, [Some(late)]);
}

#[tokio::test]
async fn a_probe_sends_the_token_only_for_the_model_list_and_only_to_its_origin() {
    for (bound, is_sent) in [(true, true), (false, false)] {
        let upstream = FakeUpstream::start().await;
        let origin = if bound {
            upstream.url()
        } else {
            "http://elsewhere".to_owned()
        };
        let router = Setup::at(upstream.url()).token_for(&[&origin]).start().await;
        router.probe().await;
        let requests = upstream.probes();
        assert_eq!(asked(&upstream), [HEALTH, MODELS]);
        assert_eq!(requests[0].headers.get("authorization"), None);
        let expected = is_sent.then(|| format!("Bearer {TOKEN}"));
        assert_eq!(requests[1].headers.get("authorization"), expected.as_ref());
    }
}

#[tokio::test]
async fn a_model_without_an_identifier_uses_the_name_in_the_servers_list() {
    for (list, name) in [
        (models(&["org/Served"]), "org/Served"),
        (models(&["a", "m"]), "m"),
        (models(&["a", "b"]), "m"),
        (status(404), "m"),
    ] {
        let upstream = FakeUpstream::start().await;
        upstream.probed(status(200)).probed(list);
        let router = Setup::at(upstream.url()).without_identifier().start().await;
        router.probe().await;
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.selection.unwrap().identifier, name);
        let sent = upstream.request(0).await.body;
        assert!(sent.contains(&format!(r#""model":"{name}""#)), "{sent}");
    }
}

#[tokio::test]
async fn the_name_from_a_list_is_kept_until_another_list_changes_it() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).without_identifier().start().await;
    let named = async || router.ask(prompt("hi")).await.selection.unwrap().identifier;
    assert_eq!(named().await, "m", "a call does not fetch the model list");
    for (list, name) in [
        (models(&["one"]), "one"),
        (status(500), "one"),
        (Script::closed(), "one"),
        (models(&["two"]), "two"),
    ] {
        upstream.probed(status(200)).probed(list);
        router.probe().await;
        assert_eq!(named().await, name);
    }
}

#[tokio::test]
async fn engine_load_is_probed_only_if_a_model_has_several_servers() {
    let alone = FakeUpstream::start().await;
    alone.probed(status(200));
    Setup::at(alone.url()).start().await.probe().await;
    assert_eq!(asked(&alone), [HEALTH]);

    let (busy, bare) = (FakeUpstream::start().await, FakeUpstream::start().await);
    busy.probed(status(200)).probed(status(503));
    busy.probed(status(200)).probed(page(4));
    busy.probed(status(200)).probed(page(2));
    bare.probed(status(200)).probed(status(404));
    bare.probed(status(200)).probed(status(200));
    let router = Setup::at(busy.url()).and_at(bare.url()).start().await;
    for requests in [None, Some(5.0), Some(3.0)] {
        router.probe().await;
        let servers = router.servers();
        assert_eq!(servers[0].engine.map(|load| load.requests), requests);
        assert_eq!(servers[1].engine, None, "the load is unknown, not zero");
    }
    assert_eq!(asked(&busy), [HEALTH, METRICS].repeat(3));
    assert_eq!(
        asked(&bare),
        [HEALTH, METRICS, HEALTH, HEALTH],
        "the router remembers that the server has no metrics"
    );
}
