//! The network between routers and registries: who answers where, and what the weather is like on the way.
//!
//! A stream is a connection: nothing in it is lost, doubled or overtaken, it is late or it ends. Everything else would be
//! a fault of TCP, not of ours; mutants play those.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{history::Log, mutants::Mutant, registry::RunLink, time::Clock};

/// How it is between one router and all registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weather {
    /// Connections of an earlier epoch are reset.
    pub(crate) epoch: u64,
    /// Nothing gets to the registry.
    pub(crate) no_up: bool,
    /// Nothing gets to the router.
    pub(crate) no_down: bool,
    /// Each message takes up to so many milliseconds.
    pub(crate) delay_max: u64,
}

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) tasks: TaskTracker,
    streams: Arc<AtomicUsize>,
    registries: Arc<Mutex<Vec<Option<RunLink>>>>,
    weather: Arc<Vec<watch::Sender<Weather>>>,
}

impl Network {
    pub(crate) fn new(routers: usize, registries: usize, clock: Clock, log: Log, mutant: Option<Mutant>) -> Self {
        let calm = Weather {
            delay_max: 20,
            ..Weather::default()
        };
        Self {
            clock,
            log,
            mutant,
            tasks: TaskTracker::new(),
            streams: Arc::default(),
            registries: Arc::new(Mutex::new((0..registries).map(|_| None).collect())),
            weather: Arc::new((0..routers).map(|_| watch::Sender::new(calm)).collect()),
        }
    }

    /// Who answers at an address.
    pub(crate) fn serve(&self, address: usize, run: Option<RunLink>) {
        self.registries.lock()[address] = run;
    }

    pub(crate) fn at(&self, address: usize) -> Option<RunLink> {
        self.registries.lock()[address].clone()
    }

    pub(crate) fn has(&self, address: usize) -> bool {
        self.at(address).is_some()
    }

    pub(crate) fn change(&self, router: usize, change: impl FnOnce(&mut Weather)) {
        self.weather[router].send_modify(change);
    }

    /// The number of the next stream.
    pub(crate) fn next_stream(&self) -> usize {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn weather(&self, router: usize) -> watch::Receiver<Weather> {
        self.weather[router].subscribe()
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Weather {
    pub(crate) const fn is_shut(&self, way: Way) -> bool {
        match way {
            Way::Up => self.no_up,
            Way::Down => self.no_down,
        }
    }
}
