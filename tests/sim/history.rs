//! Everything that the participants of a run observed, in the order in which it happened.

mod text;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use parking_lot::Mutex;
use switchboard::{
    digest::ChainDigest,
    history::Cursor,
    names::{IncarnationId, InstanceId, Revision, StoreId},
    pb::registry,
};
use switchboard_registry::{
    domain::state::State,
    fleet::wait::{InForce, WaitError},
};
use switchboard_router::{
    catalog::Catalog,
    subscription::{apply::Applied, received::Received},
};

use self::text::Ids;
use crate::time::Clock;

/// The participant that observed an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    World,
    Disk(usize),
    Registry(usize),
    Client(usize),
    Up(usize),
    Down(usize),
    Receiver(usize),
    Catalog(usize),
    Fetcher(usize),
    Waiter,
    Caller(usize),
}

/// A revision with the digest of the history up to it.
pub(crate) type Place = (Revision, ChainDigest);

/// One router process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) router: usize,
    pub(crate) start: usize,
}

impl Process {
    /// Returns the id of the process's router. The last two routers share an id, as if a configuration had been copied.
    pub(crate) fn id(self) -> String {
        format!("router-{}", self.router.min(3))
    }
}

/// The outcome of a write, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written {
        revision: Revision,
        incarnation: IncarnationId,
        answer: Vec<u8>,
    },
    Refused(&'static str),
    Unknown,
}

/// The data that one attempt of a call takes from its catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) attempt: usize,
    /// The revision that the caller receives.
    pub(crate) revision: Revision,
    /// `None`: no model can answer.
    pub(crate) model: Option<String>,
    pub(crate) uris: Vec<String>,
    pub(crate) token: Option<String>,
}

/// One observation.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Revisions that are durable on a volume from now on, in addition to the earlier ones.
    Durable {
        volume: usize,
        incarnation: IncarnationId,
        places: Vec<Place>,
        /// The request ids that were stored, with the revisions of their answers.
        answers: Vec<(String, Revision)>,
    },
    /// A registry run has loaded a volume and begins to serve.
    Began {
        run: usize,
        volume: usize,
        state: Arc<State>,
    },
    /// A registry run publishes a state.
    Published { run: usize, state: Arc<State> },
    /// A registry run has ended.
    Gone { run: usize, how: &'static str },
    /// A client submits a write.
    Asked {
        write: usize,
        run: usize,
        request_id: String,
        /// Name and etag of the resource, if the write is conditional on an etag.
        base: Option<(String, String)>,
        what: String,
    },
    /// A client receives the outcome of its write.
    Answered { write: usize, outcome: Outcome },
    /// A router sends its hello.
    Hello {
        stream: usize,
        process: Process,
        run: usize,
        hello: registry::Hello,
    },
    /// A watcher opens a stream.
    Watched {
        stream: usize,
        run: usize,
        resume: Option<Cursor>,
        include_snapshot: bool,
    },
    /// The registry sends a message on a stream.
    Said {
        stream: usize,
        run: usize,
        message: registry::SubscribeResponse,
    },
    /// A router sends a report. `in_use` is the cursor of its catalog at that moment.
    Reported {
        stream: usize,
        process: Process,
        report: registry::Report,
        in_use: Option<Cursor>,
    },
    /// A stream has ended.
    Closed { stream: usize, why: &'static str },
    /// A router process starts without any state.
    Started { process: Process, instance: InstanceId },
    /// A router has received a complete state.
    Received { process: Process, state: Arc<Received> },
    /// A router begins to use a catalog.
    InUse {
        process: Process,
        applied: Applied,
        catalog: Arc<Catalog>,
    },
    /// A router receives a credential.
    Fetched {
        process: Process,
        id: String,
        token: String,
    },
    /// A call begins with this catalog.
    Called {
        process: Process,
        call: usize,
        feature: &'static str,
        catalog: Arc<Catalog>,
    },
    /// A call sends an attempt to a model.
    Sent { process: Process, call: usize, sent: Sent },
    /// A client waits until a revision is in force, while these router processes are connected.
    Waiting {
        wait: usize,
        revision: Revision,
        connected: Vec<InstanceId>,
    },
    /// A client receives the result of its wait.
    Waited {
        wait: usize,
        result: Result<InForce, WaitError>,
    },
    /// The world injects a fault or ends one.
    Fault(String),
    /// Faults are over: from now on all routers must converge to this registry run.
    Healed { run: usize },
    /// The time for convergence is over.
    Stopped { head: Box<Cursor>, state: Arc<State> },
}

/// An event with its time and the participant that observed it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) at: Duration,
    pub(crate) actor: Actor,
    pub(crate) event: Event,
}

/// The shared log to which participants write events.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    clock: Clock,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Log {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            records: Arc::default(),
        }
    }

    pub(crate) fn write(&self, actor: Actor, event: Event) {
        let at = self.clock.now();
        self.records.lock().push(Record { at, actor, event });
    }

    pub(crate) fn history(&self) -> History {
        History::new(self.records.lock().clone())
    }
}

/// All events of one run, and all states that registries published.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
    truth: BTreeMap<(StoreId, IncarnationId, Revision), Vec<Arc<State>>>,
}

impl History {
    fn new(records: Vec<Record>) -> Self {
        let mut truth: BTreeMap<_, Vec<Arc<State>>> = BTreeMap::new();
        for record in &records {
            if let Event::Began { state, .. } | Event::Published { state, .. } = &record.event {
                let items = &state.items;
                let key = (items.store(), items.incarnation().id, items.revision());
                truth.entry(key).or_default().push(Arc::clone(state));
            }
        }
        Self { records, truth }
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> + Clone {
        self.records.iter().map(|record| &record.event)
    }

    /// Returns the state that a registry published at this cursor.
    pub(crate) fn truth(&self, cursor: &Cursor) -> Option<&Arc<State>> {
        let states = self
            .truth
            .get(&(cursor.store, cursor.incarnation.id, cursor.revision))?;
        states.iter().find(|state| state.items.head().chain == cursor.chain)
    }

    /// Returns every published state.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Arc<State>> {
        self.truth.values().flatten()
    }

    /// Formats the history so that the same seed gives the same text: ids from the system's random source are replaced
    /// by numbers in order of appearance.
    pub(crate) fn text(&self) -> String {
        let mut ordered: Vec<&Record> = self.records.iter().collect();
        ordered.sort_by_key(|record| (record.at.as_millis(), record.actor));
        let mut ids = Ids::default();
        let mut text = String::new();
        for Record { at, actor, event } in ordered {
            writeln!(text, "{:>9} {actor:?} {}", at.as_millis(), ids.event(event)).unwrap();
        }
        text
    }
}
