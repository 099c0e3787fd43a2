//! Before the first token a call may try other servers and other models, within its limits; after the first token it
//! never does.

use std::time::Duration;

use switchboard::pb::router::{CandidateOutcome, Selection, SelectionReason};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, assigned, prompt},
};

fn failing() -> Script {
    Script::response(500, &[], "")
}

/// Returns a base URL that refuses connections.
#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
async fn refusing() -> String {
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    format!("http://{}", unused.local_addr().unwrap())
}

#[tokio::test]
async fn a_fault_is_repeated_at_another_server_or_model_or_not_at_all() {
    // Faults after which a call tries the model's other server and then the fallback, faults after which it goes to the
    // fallback at once, and faults after which it fails.
    let login = Script::response(200, &[("content-type", "text/html")], "");
    let other_server = [
        ("500", failing()),
        ("429", Script::response(429, &[], "")),
        ("404", Script::response(404, &[], "")),
        ("a login page", login),
        ("a redirect", Script::response(307, &[("location", "/x")], "")),
        ("a close", Script::closed()),
        ("an empty body", Script::stream().end()),
        ("no JSON", Script::stream().event("{").hang()),
        ("silence", Script::silence()),
    ];
    let other_model = [
        ("401", Script::response(401, &[], "")),
        ("403", Script::response(403, &[], "")),
    ];
    let nowhere = [
        ("400", Script::response(400, &[], "")),
        ("413", Script::response(413, &[], "")),
        ("422", Script::response(422, &[], "")),
    ];
    let rows = other_server
        .map(|row| (row, "models/m"))
        .into_iter()
        .chain(other_model.map(|row| (row, "models/b")))
        .chain(nowhere.map(|row| (row, "")));
    for ((name, script), answering) in rows {
        // Both servers of the model fail their first request; the fallback always answers.
        let (one, two) = (FakeUpstream::start().await, FakeUpstream::start().await);
        let fallback = FakeUpstream::start().await;
        let router = Setup::at(one.url())
            .and_at(two.url())
            .other("b", fallback.url())
            .fallbacks(&["b"])
            .limits(|limits| limits.first_token = Duration::from_millis(500))
            .start()
            .await;
        // The call may reach either server first, so both get the script.
        let (scripted_one, scripted_two) = (script.clone(), script);
        one.then(scripted_one);
        two.then(scripted_two);
        let answer = router.ask(prompt("hi")).await;
        let asked = one.requests().len() + two.requests().len();
        match answering {
            "models/m" => {
                // Both servers of the model fail in the same way, then the fallback answers.
                assert_eq!((asked, fallback.requests().len()), (2, 1), "{name}");
                let selection = answer.selection.unwrap();
                assert_eq!(selection.attempt_count, 3, "{name}");
                assert_eq!(selection.model, "models/b", "{name}");
            }
            "models/b" => {
                assert_eq!((asked, fallback.requests().len()), (1, 1), "{name}");
                let selection = answer.selection.unwrap();
                assert_eq!(selection.attempt_count, 2, "{name}");
                assert_eq!(selection.reason(), SelectionReason::Failover, "{name}");
            }
            _ => {
                assert_eq!((asked, fallback.requests().len()), (1, 0), "{name}");
                assert_eq!(answer.told().metadata["attempts"], "1", "{name}");
            }
        }
    }
}

#[tokio::test]
async fn another_server_of_the_model_answers_without_a_failover() {
    let up = FakeUpstream::start().await;
    let router = Setup::at(refusing().await).and_at(up.url()).start().await;
    for _ in 0..8 {
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello");
        let selection = answer.selection.unwrap();
        assert_eq!(selection.reason(), SelectionReason::Assigned);
        assert!((1..=2).contains(&selection.attempt_count));
        assert!(up.url().contains(&selection.endpoint));
    }
}

#[tokio::test]
async fn a_call_makes_three_attempts_and_its_failure_names_every_candidate() {
    let (one, two) = (
        FakeUpstream::always(failing()).await,
        FakeUpstream::always(failing()).await,
    );
    let (b, c) = (FakeUpstream::always(failing()).await, FakeUpstream::start().await);
    let router = Setup::at(one.url())
        .and_at(two.url())
        .other("b", b.url())
        .other("c", c.url())
        .fallbacks(&["gone", "b", "c"])
        .start()
        .await;
    let answer = router.ask(prompt("hi")).await;
    let told = answer.told();
    assert_eq!(told.reason, "UPSTREAM_SERVER_ERROR");
    assert_eq!(told.metadata["attempts"], "3");
    assert_eq!(told.metadata["model"], "models/b", "the last model that was tried");
    assert_eq!(c.requests().len(), 0, "the call makes no fourth attempt");
    let expected = [
        ("models/m", CandidateOutcome::Failed),
        ("models/gone", CandidateOutcome::NotReady),
        ("models/b", CandidateOutcome::Failed),
        ("models/c", CandidateOutcome::Standby),
    ];
    assert_eq!(
        told.candidates,
        expected.map(|(model, outcome)| (model.to_owned(), outcome))
    );
    let status = answer.failure.unwrap();
    assert!(status.details().len() < 2048, "{}", status.details().len());
}

#[tokio::test]
async fn repeats_are_limited_to_a_fifth_of_the_calls() {
    const CALLS: usize = 150;
    let (one, two) = (
        FakeUpstream::always(failing()).await,
        FakeUpstream::always(failing()).await,
    );
    let router = Setup::at(one.url()).and_at(two.url()).start().await;
    let mut attempts = 0;
    for _ in 0..CALLS {
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(
            told.reason, "UPSTREAM_SERVER_ERROR",
            "the last attempt determines the reason"
        );
        attempts += told.metadata["attempts"].parse::<usize>().unwrap();
    }
    let asked = one.requests().len() + two.requests().len();
    assert_eq!(attempts, asked, "an attempt that the budget refuses is not counted");
    assert!((CALLS + 10..=CALLS * 6 / 5).contains(&asked), "{asked}");
    let refused = refusing().await;
    let (good, router) = (FakeUpstream::start().await, Setup::at(refused));
    let router = router.and_at(good.url()).start().await;
    for _ in 0..CALLS {
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello", "a request that was never sent costs no budget");
    }
}

#[tokio::test]
async fn an_attempt_is_counted_once_with_its_outcome() {
    const OUTCOMES: [&str; 5] = ["answered", "failed", "truncated", "unreachable", "abandoned"];
    let (server, other) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let router = Setup::at(refusing().await)
        .and_at(server.url())
        .other("b", other.url())
        .fallbacks(&["b"])
        .start()
        .await;
    // Some of the calls reach the server that refuses connections first.
    let before = |selection: Option<Selection>| u64::try_from(selection.unwrap().attempt_count).unwrap() - 1;
    let streamed = router.ask(prompt("hi")).await;
    assert_eq!(streamed.text, "hello");
    server.then(Script::whole("hello"));
    let whole = router.infer(prompt("hi")).await.unwrap().into_inner();
    let mut refused = before(streamed.selection) + before(whole.selection);
    assert_eq!(router.counted(OUTCOMES), ([2, 0, 0, refused, 0], 0));

    server.then(failing());
    let repeated = router.ask(prompt("hi")).await;
    assert_eq!(repeated.text, "hello");
    refused += before(repeated.selection) - 1;
    assert_eq!(router.counted(OUTCOMES), ([3, 1, 0, refused, 0], 0));

    server.then(Script::stream().text("one").close());
    let cut = router.ask(prompt("hi")).await;
    assert_eq!(cut.told().metadata["partial"], "true");
    refused += before(cut.selection);
    assert_eq!(router.counted(OUTCOMES), ([3, 1, 1, refused, 0], 0));

    server.then(Script::stream().text("one").hang());
    drop(router.begin().await);
    router.settled().await;
    let ([answered, failed, truncated, _, abandoned], active) = router.counted(OUTCOMES);
    assert_eq!(((answered, failed, truncated, abandoned), active), ((3, 1, 1, 1), 0));
}

#[tokio::test]
async fn nothing_is_repeated_after_the_first_token() {
    let broken = Script::stream().text("one").close();
    let (one, b) = (FakeUpstream::always(broken).await, FakeUpstream::start().await);
    let router = Setup::at(one.url()).other("b", b.url()).fallbacks(&["b"]).start().await;
    let answer = router.ask(prompt("hi")).await;
    assert_eq!(answer.text, "one");
    assert_eq!(answer.told().metadata["partial"], "true");
    assert_eq!((one.requests().len(), b.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_silent_server_gets_only_half_of_the_remaining_time() {
    let (one, b) = (
        FakeUpstream::always(Script::silence()).await,
        FakeUpstream::start().await,
    );
    let router = Setup::at(one.url()).other("b", b.url()).fallbacks(&["b"]).start().await;
    let mut request = tonic::Request::new(prompt("hi"));
    request.metadata_mut().insert("grpc-timeout", "2000m".parse().unwrap());
    let begun = Instant::now();
    let answer = router.ask(request).await;
    assert_eq!(answer.text, "hello");
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_millis(1500)).contains(&took),
        "{took:?}"
    );
    one.closed(0).await;
}

#[tokio::test]
async fn a_rule_matches_by_the_scope_of_the_call() {
    let (m, pilot) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let setting = assigned(&[("beta-group", "42", "pilot")], &[]);
    let router = Setup::at(m.url())
        .other("pilot", pilot.url())
        .setting("duo_chat", setting)
        .start()
        .await;
    for (key, value, rule) in [
        ("x-gitlab-namespace-id", "42", "beta-group"),
        ("x-gitlab-root-namespace-id", "42", "beta-group"),
        ("x-gitlab-project-id", "42", ""),
        ("x-gitlab-namespace-id", "421", ""),
    ] {
        let mut request = tonic::Request::new(prompt("hi"));
        request.metadata_mut().insert(key, value.parse().unwrap());
        let answer = router.ask(request).await;
        let reason = if rule.is_empty() { "ASSIGNED" } else { "RULE" };
        let told = answer.metadata.unwrap();
        assert_eq!(told.get("x-switchboard-reason").unwrap(), reason, "{key}");
        assert_eq!(answer.selection.unwrap().rule, rule, "{key}");
    }
    assert_eq!((m.requests().len(), pilot.requests().len()), (2, 2));
}

#[tokio::test]
async fn self_hosted_inference_can_be_paused() {
    let m = FakeUpstream::start().await;
    let router = Setup::at(m.url()).paused().start().await;
    let told = router.ask(prompt("hi")).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::FailedPrecondition, "INFERENCE_PAUSED")
    );
    assert_eq!(m.requests().len(), 0);
}
