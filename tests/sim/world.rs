//! One run: routers, registries and callers with faults, followed by a period without faults.

mod lives;
mod straggler;

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use switchboard::history::View;
use tokio::task::JoinSet;

use crate::{
    disk::{Content, Trouble, Volume},
    history::{Actor, Event, History, Log, Process},
    mutants::Mutant,
    network::Network,
    registry::{HEARTBEAT, Run},
    router::Router,
    time::{Clock, between},
    waits::{keep_waiting, wait},
    watches::keep_watching,
    writes::{Client, Etags},
};

/// The actor class of the world itself; it determines the world's milliseconds.
const WORLD: u64 = 0;

/// The number of the wait after all faults are over.
const LAST_WAIT: usize = 1_000_000;

/// One run in this many begins with a database that a registry of another build has written.
const SKEW: u64 = 4;

/// Maximum number of registries.
const REGISTRIES: usize = 2;

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mutant: Option<Mutant>,
}

struct World {
    random: Rng,
    clock: Clock,
    log: Log,
    network: Network,
    mutant: Option<Mutant>,
    /// The running registries, by address.
    runs: [Option<Run>; REGISTRIES],
    volumes: Vec<Arc<Volume>>,
    /// Earlier contents of the volume, which a fault can restore.
    backups: Vec<Content>,
    routers: Vec<Router>,
    started: usize,
    /// Whether the history was tampered with, so that only a new life of the store repairs it.
    is_torn: bool,
    addresses: usize,
}

/// Plays one run and returns its history.
pub(crate) fn play(plan: Plan) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(plan).await;
        world.suffer().await;
        world.heal().await;
        world.log.history()
    })
}

impl World {
    async fn new(Plan { seed, mutant }: Plan) -> Self {
        fastrand::seed(seed);
        let mut random = Rng::with_seed(seed);
        let clock = Clock::begin();
        let log = Log::new(clock);
        let routers = random.usize(3..=5);
        let addresses = 1 + usize::from(random.bool());
        let network = Network::new(routers, REGISTRIES, clock, log.clone(), mutant);
        let content = if seed % SKEW == SKEW - 1 {
            Content::of_another_build()
        } else {
            Content::empty()
        };
        let volume = Volume::new(0, content, random.u64(..), log.clone());
        let mut world = Self {
            random,
            clock,
            log,
            network,
            mutant,
            runs: [None, None],
            volumes: vec![volume],
            backups: Vec::new(),
            routers: Vec::new(),
            started: 0,
            is_torn: false,
            addresses,
        };
        world.begin(0).await;
        for router in 0..routers {
            let process = Process { router, start: 0 };
            let router = world.start_router(process);
            world.routers.push(router);
        }
        world
    }

    /// Injects one fault after the other while clients write.
    async fn suffer(&mut self) {
        let writes = self.random.usize(20..80);
        let mut clients = JoinSet::new();
        let etags = Etags::default();
        for number in 0..2 {
            let seed = self.random.u64(..);
            let client = Client::new(number, self.network.clone(), Arc::clone(&etags), seed, writes);
            clients.spawn(client.run());
        }
        clients.spawn(keep_waiting(self.network.clone(), self.random.u64(..)));
        // A seed that does not advance `self.random`, so that everything else in the run stays the same.
        let seed = !self.random.clone().u64(..);
        clients.spawn(keep_watching(self.network.clone(), seed));
        let faults = self.random.usize(6..20);
        for _ in 0..faults {
            self.pause(200, 5_000).await;
            self.revive().await;
            self.fault().await;
        }
        // Without the first registry the clients cannot finish.
        self.pause(100, 1_000).await;
        clients.shutdown().await;
    }

    async fn fault(&mut self) {
        let router = self.random.usize(..self.routers.len());
        match self.random.u8(..68) / 3 {
            0 if self.random.u8(..3) == 0 => {
                self.say("no fault for so long that streams rotate".to_owned());
                self.pause(30 * 60_000, 40 * 60_000).await;
            }
            0..3 => {
                self.say(format!("connections of router {router} are reset"));
                self.network.change(router, |weather| weather.epoch += 1);
            }
            3 => self.shut(router, true, true),
            4 => self.shut(router, true, false),
            5 => self.shut(router, false, true),
            6 => {
                let delay_max = self.random.u64(100..4_000);
                self.say(format!("messages of router {router} take up to {delay_max} ms"));
                self.network.change(router, |weather| weather.delay_max = delay_max);
            }
            8 => self.second_registry().await,
            7 => {
                self.say(format!("the network of router {router} works again"));
                self.network.change(router, |weather| {
                    (weather.no_up, weather.no_down, weather.delay_max) = (false, false, 20);
                });
            }
            9..11 => self.restart_router(router),
            11..13 => {
                self.say("the power of registry 0 is cut".to_owned());
                self.kill(0).await;
                self.pause(0, 6_000).await;
                self.begin(0).await;
            }
            13 => {
                self.say("registry 0 is restarted".to_owned());
                self.network.serve(0, None);
                if let Some(run) = self.runs[0].take() {
                    run.stop().await;
                }
                self.begin(0).await;
            }
            14 | 15 => {
                let trouble = Trouble {
                    fails: self.random.u8(..40),
                    in_doubt: self.random.u8(..15),
                    stalls: self.random.u8(..15),
                };
                self.say(format!("disk of registry 0: {trouble:?}"));
                self.volume().trouble(trouble);
            }
            16 => {
                self.say("the disk of registry 0 works again".to_owned());
                self.volume().trouble(Trouble::default());
            }
            17 => {
                self.say("the volume of registry 0 is copied".to_owned());
                let content = self.volume().content();
                self.backups.push(content);
            }
            18 if self.is_torn && self.random.bool() => self.new_life().await,
            18 => self.go_back().await,
            19..22 => self.straggle(router).await,
            22 => {
                self.accept_history().await;
            }
            _ => self.second_registry().await,
        }
    }

    fn shut(&mut self, router: usize, no_up: bool, no_down: bool) {
        self.say(format!("router {router} is cut off, up {no_up}, down {no_down}"));
        self.network
            .change(router, |weather| (weather.no_up, weather.no_down) = (no_up, no_down));
    }

    fn restart_router(&mut self, router: usize) {
        self.say(format!("router {router} is killed and starts again"));
        self.network.change(router, |weather| weather.epoch += 1);
        self.started += 1;
        let process = Process {
            router,
            start: self.started,
        };
        self.routers[router] = self.start_router(process);
    }

    fn start_router(&mut self, process: Process) -> Router {
        let seed = self.random.u64(..);
        Router::start(process, self.addresses, &self.network, seed, &self.log)
    }

    /// Ends all faults. All routers must converge to the state of the first registry, in most runs after a new life of
    /// its store if that is needed.
    async fn heal(&mut self) {
        for router in 0..self.routers.len() {
            self.network.change(router, |weather| {
                (weather.no_up, weather.no_down, weather.delay_max) = (false, false, 20);
            });
        }
        self.kill(1).await;
        self.volume().trouble(Trouble::default());
        // Without a new life, routers whose history contradicts the registry's must report that and keep their state.
        if self.is_torn && self.random.u8(..4) > 0 {
            self.new_life().await;
        }
        self.revive().await;
        let run = self.runs[0].as_ref().unwrap();
        self.log.write(Actor::World, Event::Healed { run: run.number });
        let commit = run.link.commit.clone();
        // Covers a connection attempt that hangs, the silence timeout, one back-off, and the spread delay of a goodbye.
        let limit = HEARTBEAT.mul_f64(2.5) + Duration::from_secs(10 + 10 + 6);
        self.clock.pause(WORLD, limit).await;
        let state = commit.state();
        let head = Box::new(state.items.cursor(View::Router));
        self.log.write(Actor::World, Event::Stopped { head, state });
        let link = self.runs[0].as_ref().unwrap().link.clone();
        // By now the registry must know what is in force.
        wait(&self.network, &link, LAST_WAIT, Duration::from_secs(1)).await;
    }

    async fn kill(&mut self, address: usize) {
        self.network.serve(address, None);
        if let Some(run) = self.runs[address].take() {
            run.kill().await;
        }
    }

    /// Restarts registries that have given up, as an operator's supervisor does.
    async fn revive(&mut self) {
        for address in 0..REGISTRIES {
            if self.runs[address].as_mut().is_some_and(Run::has_ended) {
                let volume = Arc::clone(&self.runs[address].as_ref().unwrap().volume);
                self.kill(address).await;
                self.begin_on(address, &volume).await;
            }
        }
        if self.runs[0].is_none() {
            self.begin(0).await;
        }
    }

    async fn begin(&mut self, address: usize) {
        let volume = Arc::clone(self.volume());
        self.begin_on(address, &volume).await;
    }

    async fn begin_on(&mut self, address: usize, volume: &Arc<Volume>) {
        for _ in 0..10 {
            let number = self.started + 100;
            self.started += 1;
            let class = 1 + u64::try_from(address).unwrap();
            let run = Run::begin(number, volume, class, self.clock, self.mutant, &self.log).await;
            if let Some(run) = run {
                self.network.serve(address, Some(run.link.clone()));
                self.runs[address] = Some(run);
                return;
            }
        }
    }

    fn volume(&self) -> &Arc<Volume> {
        self.volumes.last().unwrap()
    }

    fn add_volume(&mut self, content: Content) {
        let volume = Volume::new(self.volumes.len(), content, self.random.u64(..), self.log.clone());
        self.volumes.push(volume);
    }

    async fn pause(&mut self, min: u64, max: u64) {
        let duration = between(&mut self.random, min, max);
        self.clock.pause(WORLD, duration).await;
    }

    fn say(&self, what: String) {
        self.log.write(Actor::World, Event::Fault(what));
    }
}
