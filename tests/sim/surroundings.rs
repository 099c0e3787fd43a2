//! The surroundings of a simulated router in the place of gRPC: connections that carry messages as bytes, and that can
//! delay them, break, work in one direction only, or fail.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::{StreamExt as _, future, stream::once};
use parking_lot::Mutex;
use prost::Message as _;
use switchboard::{
    pb::{
        registry::{self, subscribe_request},
        shared::config_service_server::ConfigService as _,
    },
    stream::RouterMessage,
};
use switchboard_registry::{feed::stream::Frames, fleet::uplink::UplinkError};
use switchboard_router::{
    current::Current,
    subscription::{
        compile::{Compiled, CredentialsById, Used},
        received::Received,
        surroundings::{self, Downward, Upward},
    },
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::{
    history::{Actor, Event, Process},
    mutants::{Compiler, Forger, Tokens},
    network::{Network, Way},
    registry::RunLink,
    time::{Clock, between},
};

/// The simulated world as one router process sees it.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    network: Network,
    process: Process,
    current: Arc<Current>,
    /// One random source for each activity, so that no activity depends on when another one draws.
    random: Arc<Mutex<Vec<Rng>>>,
    fetches: Arc<AtomicU64>,
    compiler: Arc<Compiler>,
    tokens: Arc<Tokens>,
}

/// A connection of one router process to one run of a registry.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    near: Surroundings,
    run: RunLink,
    epoch: u64,
}

impl Surroundings {
    pub(crate) fn new(network: Network, process: Process, current: Arc<Current>, seed: u64) -> Self {
        let mutant = network.mutant;
        Self {
            network,
            process,
            current,
            random: Arc::new(Mutex::new(
                (0..ACTIVITIES)
                    .map(|activity| Rng::with_seed(seed ^ activity))
                    .collect(),
            )),
            fetches: Arc::default(),
            compiler: Arc::new(Compiler::new(mutant)),
            tokens: Arc::new(Tokens::new(mutant)),
        }
    }

    /// Returns the pacer of one activity of the process, with a random source of its own.
    fn pacer(&self, activity: u64) -> Pacer {
        // Classes below 8 belong to the world, the registries and their clients.
        let router = u64::try_from(self.process.router).unwrap();
        Pacer {
            clock: self.network.clock,
            class: 8 + ACTIVITIES * router + activity,
            random: self.random.lock()[usize::try_from(activity).unwrap()].fork(),
        }
    }
}

/// Number of activities of a router that can run at the same time, each in milliseconds of its own.
const ACTIVITIES: u64 = FETCHES + FETCHES_AT_A_TIME;
const DIALS: u64 = 0;
const COMPILES: u64 = 1;
const SPEAKS: u64 = 2;
const LISTENS: u64 = 3;
const FETCHES: u64 = 4;
/// Several fetches for one model can run at the same time, the older ones for credentials that were replaced since.
const FETCHES_AT_A_TIME: u64 = 8;

/// Waits on behalf of one activity.
struct Pacer {
    clock: Clock,
    class: u64,
    random: Rng,
}

impl Pacer {
    async fn pause(&mut self, min: u64, max: u64) {
        let duration = between(&mut self.random, min, max.max(min));
        self.clock.pause(self.class, duration).await;
    }
}

impl surroundings::Surroundings for Surroundings {
    type Connection = Connection;

    async fn connect(&self, address: http::Uri) -> Result<Connection, String> {
        let host = address.host().unwrap();
        let address: usize = host.rsplit('.').next().unwrap().parse().unwrap();
        let mut weather = self.network.weather(self.process.router);
        let mut pacer = self.pacer(DIALS);
        pacer.pause(1, 30).await;
        let through = weather.wait_for(|weather| !weather.no_up && !weather.no_down);
        let limit = Duration::from_secs(5);
        let Ok(through) = tokio::time::timeout(limit, through).await else {
            return Err("timeout".to_owned());
        };
        let epoch = through.unwrap().epoch;
        pacer.pause(1, 30).await;
        let run = self.network.at(address).filter(|run| !run.dead.is_cancelled());
        let run = run.ok_or_else(|| "refused".to_owned())?;
        Ok(Connection {
            near: self.clone(),
            run,
            epoch,
        })
    }

    fn aside<T: Send + 'static>(&self, tasks: &mut JoinSet<T>, work: impl FnOnce() -> T + Send + 'static) {
        let mut pacer = self.pacer(COMPILES);
        tasks.spawn(async move {
            pacer.pause(1, 200).await;
            work()
        });
    }

    fn compile(&self, received: &Received, used: &Used, credentials: &CredentialsById) -> Compiled {
        self.compiler.compile(received, used, credentials)
    }
}

impl Connection {
    /// Resolves when the connection breaks; both sides notice at the same time.
    fn broken(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut weather = self.near.network.weather(self.near.process.router);
        let (epoch, dead) = (self.epoch, self.run.dead.clone());
        async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                _reset = weather.wait_for(|weather| weather.epoch != epoch) => {}
            }
        }
    }

    /// Waits for as long as the network takes to deliver one message.
    async fn travel(&self, way: Way, pacer: &mut Pacer) {
        let mut weather = self.near.network.weather(self.near.process.router);
        let delay_max = weather.borrow().delay_max;
        pacer.pause(1, delay_max).await;
        let is_shut = weather.borrow().is_shut(way);
        if is_shut {
            drop(weather.wait_for(|weather| !weather.is_shut(way)).await);
            pacer.pause(1, delay_max).await;
        }
    }

    /// Carries the router's messages until either side ends the stream.
    async fn carry_up(
        self,
        stream: usize,
        mut pacer: Pacer,
        upward: impl Upward,
        to: mpsc::Sender<Result<RouterMessage, UplinkError>>,
    ) {
        let (process, network) = (self.near.process, &self.near.network);
        let mut upward = std::pin::pin!(upward);
        while let Some(message) = upward.next().await {
            let bytes = network
                .mutant
                .map_or_else(|| message.clone(), |mutant| mutant.up(&message))
                .encode_to_vec();
            let message = registry::SubscribeRequest::decode(&*bytes).unwrap();
            let event = match message.kind.clone() {
                Some(subscribe_request::Kind::Hello(hello)) => Event::Hello {
                    stream,
                    process,
                    run: self.run.number,
                    hello,
                },
                Some(subscribe_request::Kind::Report(report)) => Event::Reported {
                    stream,
                    process,
                    report,
                    in_use: self.near.current.load().map(|catalog| catalog.cursor),
                },
                // The simulation requests no checks.
                Some(subscribe_request::Kind::CheckResult(_)) | None => Event::Closed {
                    stream,
                    why: "unexpected message",
                },
            };
            network.log.write(Actor::Up(stream), event);
            self.travel(Way::Up, &mut pacer).await;
            if to
                .send(RouterMessage::try_from(message).map_err(UplinkError::from))
                .await
                .is_err()
            {
                return;
            }
        }
        // The end of the router's stream travels like a message.
        self.travel(Way::Up, &mut pacer).await;
    }

    /// Carries the registry's messages.
    async fn carry_down(
        self,
        stream: usize,
        mut pacer: Pacer,
        mut frames: Frames,
        to: mpsc::Sender<Result<registry::SubscribeResponse, Status>>,
    ) {
        let network = &self.near.network;
        let closed = |why| network.log.write(Actor::Down(stream), Event::Closed { stream, why });
        let mut forger = Forger::new(network.mutant);
        while let Some(frame) = frames.next().await {
            let Ok(frame) = frame else {
                closed("with an error");
                self.travel(Way::Down, &mut pacer).await;
                let _gone = to.send(Err(Status::aborted("the registry ended the stream"))).await;
                return;
            };
            let message = registry::SubscribeResponse::decode(frame.encode()).unwrap();
            for message in forger.forge(message) {
                let event = Event::Said {
                    stream,
                    run: self.run.number,
                    message: message.clone(),
                };
                network.log.write(Actor::Down(stream), event);
                self.travel(Way::Down, &mut pacer).await;
                if to.send(Ok(message)).await.is_err() {
                    closed("by the router");
                    return;
                }
            }
        }
        closed("cleanly");
        self.travel(Way::Down, &mut pacer).await;
    }
}

impl surroundings::Connection for Connection {
    async fn subscribe(&self, upward: impl Upward) -> Result<Downward, Status> {
        let network = &self.near.network;
        let mut pacer = self.near.pacer(DIALS);
        pacer.pause(1, 20).await;
        let stream = network.next_stream();
        let (speaks, listens) = (self.near.pacer(SPEAKS), self.near.pacer(LISTENS));
        if self.run.dead.is_cancelled() {
            return Err(Status::unavailable("gone"));
        }
        let (up, messages) = mpsc::channel(16);
        let (down, answers) = mpsc::channel(4);
        let has_left = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&has_left);
        let end = once(async move { (!has_ended.load(Ordering::Relaxed)).then_some(Err(UplinkError::Unreadable)) });
        // If the connection breaks, the messages end with an error; only a router that leaves in order ends them
        // without one.
        let messages = ReceiverStream::new(messages).chain(end.filter_map(future::ready));
        let frames = self.run.feed.subscribe(messages.boxed());
        let (carrier, broken) = (self.clone(), self.broken());
        network.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = broken => {}
                () = carrier.carry_up(stream, speaks, upward, up) => has_left.store(true, Ordering::Relaxed),
            }
        });
        let (carrier, broken) = (self.clone(), self.broken());
        network.tasks.spawn(async move {
            let (near, reset) = (carrier.near.clone(), down.clone());
            tokio::select! {
                biased;
                () = broken => {
                    let event = Event::Closed { stream, why: "reset" };
                    near.network.log.write(Actor::Down(stream), event);
                    let _gone = reset.try_send(Err(Status::unavailable("reset")));
                }
                () = carrier.carry_down(stream, listens, frames, down) => {}
            }
        });
        Ok(ReceiverStream::new(answers).boxed())
    }

    async fn credential(
        &self,
        request: registry::GetModelCredentialRequest,
    ) -> Result<registry::GetModelCredentialResponse, Status> {
        let turn = self.near.fetches.fetch_add(1, Ordering::Relaxed) % FETCHES_AT_A_TIME;
        let mut pacer = self.near.pacer(FETCHES + turn);
        let ask = async {
            self.travel(Way::Up, &mut pacer).await;
            let answer = self.run.api.get_model_credential(Request::new(request.clone())).await;
            self.travel(Way::Down, &mut pacer).await;
            Ok(answer?.into_inner())
        };
        let answer = tokio::select! {
            biased;
            () = self.broken() => Err(Status::unavailable("reset")),
            answer = ask => answer,
        }?;
        let answer = self.near.tokens.answer(&request, answer);
        let process = self.near.process;
        let event = Event::Fetched {
            process,
            id: answer.credential_id.clone(),
            token: answer.api_token.clone(),
        };
        self.near.network.log.write(Actor::Fetcher(process.router), event);
        Ok(answer)
    }
}
