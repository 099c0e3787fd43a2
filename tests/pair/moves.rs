//! A model that moves to another server with another token while no call needs it: its old server is called no more.

use switchboard::pb::registry::{CreateModelRequest, Model, WaitForRevisionRequest};
use tokio::time::Instant;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{PATIENCE, Pair, infer, reason_of},
    proxy::{Proxy, Weather},
    routing::Load,
};

const MOVES: usize = 40;
const CALLERS: usize = 6;

/// What calls say that come to the model which has the feature meanwhile.
const SPARE: &str = "spare";

/// A model under load, with its newest server.
struct Moved {
    pair: Pair,
    proxy: Proxy,
    load: Load,
    servers: Vec<FakeUpstream>,
    /// When each move was in force: from then on calls come to no earlier server.
    in_force: Vec<Instant>,
}

/// Each server says which one it is.
async fn server(number: usize) -> FakeUpstream {
    FakeUpstream::always(Script::answer([&*number.to_string()])).await
}

impl Moved {
    async fn start() -> Self {
        let mut way = None;
        let pair = Pair::start_by(|registry| way.insert(Proxy::start(registry)).addr()).await;
        let servers = vec![server(0).await];
        pair.configure(&servers[0].url(), Some("sk-0")).await;
        pair.wait_until_routed("code_generations").await;
        let load = Load::start(&pair, CALLERS);
        Self {
            pair,
            proxy: way.unwrap(),
            load,
            servers,
            in_force: Vec::new(),
        }
    }

    async fn update(&self, model: Model) -> i64 {
        self.pair.update_model(model).await.unwrap().revision
    }

    async fn set_disabled(&self, disabled: bool) -> i64 {
        self.update(Model {
            disabled: Some(disabled),
            ..Default::default()
        })
        .await
    }

    async fn assign(&self, model: &str) -> i64 {
        self.pair.assign("code_generations", model).await.revision
    }

    async fn wait(&self, revision: i64) {
        let request = WaitForRevisionRequest {
            revision,
            timeout: prost_types::Duration::try_from(PATIENCE).ok(),
            ..Default::default()
        };
        self.pair.config().wait_for_revision(request).await.unwrap();
    }

    /// Moves the model to a new server with a new token while it takes no calls, and waits until that is in force.
    async fn move_on(&mut self) {
        let number = self.servers.len();
        self.servers.push(server(number).await);
        let moved = Model {
            endpoint: Some(self.servers[number].url()),
            api_token: Some(format!("sk-{number}")),
            ..Default::default()
        };
        let revision = self.update(moved).await;
        self.wait(revision).await;
        self.in_force.push(Instant::now());
    }

    /// Waits until the newest server has answered some calls.
    async fn is_answered(&self) {
        let newest = self.servers.last().unwrap();
        self.pair.wait_until(async || newest.requests().len() >= CALLERS).await;
    }

    /// Stops the load and returns how many calls came to each of the newer, and to a replaced server.
    async fn finish(self) -> (usize, usize) {
        let calls = self.load.finish().await;
        let (mut right, mut replaced) = (0, 0);
        for call in &calls {
            // The moves that were in force when the call began.
            let moves = self.in_force.iter().filter(|at| **at <= call.began).count();
            match &call.result {
                Ok(answer) if answer.text == SPARE => {}
                Ok(answer) if answer.text.parse::<usize>().unwrap() < moves => replaced += 1,
                Ok(_) => right += 1,
                Err(_) => {
                    let reason = reason_of(&call.result).unwrap();
                    assert!(
                        ["MODEL_DISABLED", "MODEL_NOT_READY"].contains(&&*reason),
                        "{:?}",
                        call.result
                    );
                }
            }
        }
        self.pair.finish().await;
        eprintln!(
            "{} calls, {right} at the newest server, {replaced} at a replaced one",
            calls.len()
        );
        (right, replaced)
    }
}

async fn a_server_that_was_replaced_while_its_model_took_no_calls_is_called_no_more() {
    let mut moved = Moved::start().await;
    let spare = with_spare(&moved.pair).await;
    for number in 0..MOVES {
        if number % 2 == 0 {
            moved.set_disabled(true).await;
            moved.move_on().await;
            moved.set_disabled(false).await;
        } else {
            moved.assign("models/spare").await;
            moved.move_on().await;
            moved.assign("models/mistral").await;
        }
        moved.is_answered().await;
    }
    let (right, replaced) = moved.finish().await;
    assert_eq!(replaced, 0);
    assert!(right >= MOVES * CALLERS, "{right} calls at the new servers");
    drop(spare);
}

async fn nor_is_it_called_while_the_registry_cannot_be_asked_for_the_new_token() {
    let mut moved = Moved::start().await;
    for number in 0..MOVES {
        moved.set_disabled(true).await;
        moved.move_on().await;
        // What the registry says still arrives, and nothing that the router asks.
        moved.proxy.set(Weather::Holding { up: true, down: false });
        moved.set_disabled(false).await;
        moved
            .pair
            .wait_until(async || {
                let result = infer(&mut moved.pair.inference(), "code_generations", "hello").await;
                reason_of(&result).as_deref() != Some("MODEL_DISABLED")
            })
            .await;
        if number % 20 == 19 {
            moved.proxy.set(Weather::Refusing);
            moved.proxy.cut();
            for _ in 0..20 {
                let result = infer(&mut moved.pair.inference(), "code_generations", "hello").await;
                assert_eq!(reason_of(&result).as_deref(), Some("MODEL_NOT_READY"));
            }
        }
        moved.proxy.set(Weather::Fair);
        moved.is_answered().await;
    }
    let (right, replaced) = moved.finish().await;
    assert_eq!(replaced, 0);
    assert!(right >= MOVES * CALLERS, "{right} calls at the new servers");
}

/// A second model, which takes the calls while the first has no feature.
async fn with_spare(pair: &Pair) -> FakeUpstream {
    let upstream = FakeUpstream::always(Script::answer([SPARE])).await;
    let model = Model {
        name: "models/spare".to_owned(),
        display_name: Some("Spare".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some(upstream.url()),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    pair.models().create_model(request).await.unwrap();
    upstream
}

tests! {
    a_server_that_was_replaced_while_its_model_took_no_calls_is_called_no_more,
    nor_is_it_called_while_the_registry_cannot_be_asked_for_the_new_token,
}
