//! The network between routers and registries: which registry run listens on which address, and the network conditions
//! of each router.
//!
//! A stream behaves like a TCP connection: no message is lost, duplicated or reordered. Messages can be late, or the
//! stream ends. Any other fault would be a fault of TCP; the planted defects simulate those.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{history::Log, mutants::Mutant, registry::RunLink, time::Clock};

/// Network conditions between one router and all registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weather {
    /// Connections of an earlier epoch are reset.
    pub(crate) epoch: u64,
    /// No message reaches the registry.
    pub(crate) no_up: bool,
    /// No message reaches the router.
    pub(crate) no_down: bool,
    /// Maximum delay of a message in milliseconds.
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

    /// Sets the registry run that listens on an address, or `None` if no registry does.
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

    /// Returns the number of the next stream.
    pub(crate) fn next_stream(&self) -> usize {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn weather(&self, router: usize) -> watch::Receiver<Weather> {
        self.weather[router].subscribe()
    }
}

/// The direction of a message.
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
