//! A short call without a token in time is hedged: a second attempt starts, and the first token wins.

use std::time::Duration;

use switchboard::{
    pb::router::{InferRequest, Tool},
    resource::model::{Count, Limits},
};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, hedged, limited, prompt},
};

const DELAY: Duration = Duration::from_millis(50);

/// Two servers of one model.
struct Servers([FakeUpstream; 2]);

impl Servers {
    async fn always(script: Script) -> Self {
        Self([
            FakeUpstream::always(script.clone()).await,
            FakeUpstream::always(script).await,
        ])
    }

    fn setup(&self) -> Setup {
        let [one, two] = &self.0;
        Setup::at(one.url())
            .and_at(two.url())
            .setting("duo_chat", hedged(DELAY))
    }

    /// Returns the number of requests that both servers received.
    fn requests(&self) -> usize {
        self.0.iter().map(|server| server.requests().len()).sum()
    }
}

#[tokio::test]
async fn the_first_token_wins_and_the_other_connection_is_closed() {
    // The first attempt may reach either server: one never answers, the other does.
    for _ in 0..8 {
        let servers = Servers([
            FakeUpstream::always(Script::silence()).await,
            FakeUpstream::start().await,
        ]);
        let router = servers.setup().start().await;
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello");
        let selection = answer.selection.unwrap();
        let [silent, good] = &servers.0;
        assert!(good.url().contains(&selection.endpoint));
        assert_eq!(good.requests().len(), 1);
        let hedges = silent.requests().len();
        assert_eq!(usize::try_from(selection.attempt_count).unwrap(), 1 + hedges);
        if hedges > 0 {
            silent.closed(0).await;
            return router.settled().await;
        }
    }
    panic!("the silent server is never called first");
}

#[tokio::test]
async fn only_short_calls_without_tools_are_hedged_and_only_with_a_free_place() {
    let slow = || {
        Script::stream()
            .pause(4 * DELAY)
            .text("hello")
            .finish("stop")
            .done()
            .end()
    };
    let with_tools = InferRequest {
        tools: vec![Tool {
            name: "f".to_owned(),
            ..Tool::default()
        }],
        ..prompt("hi")
    };
    let places = |max_concurrency| Limits {
        max_concurrency: Count::parse(max_concurrency).ok(),
        ..Limits::default()
    };
    let plain = || prompt("hi");
    for (name, request, limits, reserved, requests) in [
        ("a short call", plain(), places(2), 0, 2),
        ("a long call", prompt(&"x".repeat(5000)), places(2), 0, 1),
        ("a call with tools", with_tools, places(2), 0, 1),
        ("a model with one place", plain(), places(1), 0, 1),
        ("a place reserved for another feature", plain(), places(2), 1, 1),
    ] {
        let servers = Servers::always(slow()).await;
        let setup = servers.setup().model_limits(limits);
        let router: Router = setup.setting("code_generations", limited(None, reserved)).start().await;
        let answer = router.ask(request).await;
        assert_eq!(answer.text, "hello", "{name}");
        assert_eq!(servers.requests(), requests, "{name}");
        router.settled().await;
        assert_eq!(
            router.ask(prompt("hi")).await.text,
            "hello",
            "{name}: every place is free again"
        );
    }
}

#[tokio::test]
async fn one_call_in_twenty_is_hedged() {
    let slow = || {
        Script::stream()
            .pause(3 * DELAY)
            .text("hello")
            .finish("stop")
            .done()
            .end()
    };
    let servers = Servers::always(slow()).await;
    let router = servers.setup().start().await;
    let calls = (0..15).map(|_| router.ask(prompt("hi")));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.text == "hello"));
    assert_eq!(servers.requests(), 16);
    let attempts = answers.iter().flat_map(|answer| &answer.selection);
    let attempts: i32 = attempts.map(|selection| selection.attempt_count).sum();
    assert_eq!(attempts, 16, "a hedge that is not made is not counted");
}
