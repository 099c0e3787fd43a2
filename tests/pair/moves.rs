//! A model moves to another server with another token while no call needs it. Its old server must not be called again.

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

/// The text of answers from the model that has the feature while the other one is unassigned.
const SPARE: &str = "spare";

/// A model under load, with all its servers.
struct Moved {
    pair: Pair,
    proxy: Proxy,
    load: Load,
    servers: Vec<FakeUpstream>,
    /// When each move came into force. Calls that begin later must not reach an earlier server.
    in_force: Vec<Instant>,
}

/// Starts a server that answers with its own number.
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

    /// Moves the model, while it takes no calls, to a new server with a new token, and waits until the move is in
    /// force.
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

    /// Stops the load. Returns the number of calls that reached the right server, and the number that reached a
    /// replaced one.
    async fn finish(self) -> (usize, usize) {
        let calls = self.load.finish().await;
        let (mut right, mut replaced) = (0, 0);
        for call in &calls {
            // The number of moves that were in force when the call began.
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

async fn a_server_replaced_while_its_model_takes_no_calls_is_never_called_again() {
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

async fn a_replaced_server_is_not_called_while_the_router_cannot_fetch_the_new_token() {
    let mut moved = Moved::start().await;
    for number in 0..MOVES {
        moved.set_disabled(true).await;
        moved.move_on().await;
        // The registry's messages still reach the router, but the router's requests do not reach the registry.
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

/// Creates a second model, which takes the calls while the first has no feature.
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
    a_server_replaced_while_its_model_takes_no_calls_is_never_called_again,
    a_replaced_server_is_not_called_while_the_router_cannot_fetch_the_new_token,
}
