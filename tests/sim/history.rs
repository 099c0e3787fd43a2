//! What everybody saw, in the order in which it happened.

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

/// Who saw it.
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

/// A revision with the history up to it.
pub(crate) type Place = (Revision, ChainDigest);

/// One router process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) router: usize,
    pub(crate) start: usize,
}

impl Process {
    /// The id that its router has. The last two share one, as where a configuration was copied.
    pub(crate) fn id(self) -> String {
        format!("router-{}", self.router.min(3))
    }
}

/// How a write ended, as its caller knows it.
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

/// What one attempt of a call takes from its catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) attempt: usize,
    /// What the caller is told of the configuration.
    pub(crate) revision: Revision,
    /// `None`: nobody can answer.
    pub(crate) model: Option<String>,
    pub(crate) uris: Vec<String>,
    pub(crate) token: Option<String>,
}

/// One thing that was seen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// What a volume holds for good from now on, beside what it held.
    Durable {
        volume: usize,
        incarnation: IncarnationId,
        places: Vec<Place>,
        /// The request ids that were stored with the revisions of their answers.
        answers: Vec<(String, Revision)>,
    },
    /// A registry reads a volume and begins to serve.
    Began {
        run: usize,
        volume: usize,
        state: Arc<State>,
    },
    /// It publishes a state.
    Published { run: usize, state: Arc<State> },
    /// It is gone.
    Gone { run: usize, how: &'static str },
    /// A caller asks for a write.
    Asked {
        write: usize,
        run: usize,
        request_id: String,
        /// The resource and its etag, if the write depends on it.
        base: Option<(String, String)>,
        what: String,
    },
    /// And gets its answer.
    Answered { write: usize, outcome: Outcome },
    /// A router's hello.
    Hello {
        stream: usize,
        process: Process,
        run: usize,
        hello: registry::Hello,
    },
    /// A watcher's request.
    Watched {
        stream: usize,
        run: usize,
        resume: Option<Cursor>,
        include_snapshot: bool,
    },
    /// What the registry says on a stream.
    Said {
        stream: usize,
        run: usize,
        message: registry::SubscribeResponse,
    },
    /// What the router reports, and what is in use at that moment.
    Reported {
        stream: usize,
        process: Process,
        report: registry::Report,
        in_use: Option<Cursor>,
    },
    /// A stream has ended.
    Closed { stream: usize, why: &'static str },
    /// A router process begins, with nothing.
    Started { process: Process, instance: InstanceId },
    /// What a router has received whole.
    Received { process: Process, state: Arc<Received> },
    /// What a router uses.
    InUse {
        process: Process,
        applied: Applied,
        catalog: Arc<Catalog>,
    },
    /// A credential as the router gets it.
    Fetched {
        process: Process,
        id: String,
        token: String,
    },
    /// A call begins, by this catalog.
    Called {
        process: Process,
        call: usize,
        feature: &'static str,
        catalog: Arc<Catalog>,
    },
    /// And is sent to a model.
    Sent { process: Process, call: usize, sent: Sent },
    /// Somebody waits until a revision is in force, while these processes are connected.
    Waiting {
        wait: usize,
        revision: Revision,
        connected: Vec<InstanceId>,
    },
    /// And is told so.
    Waited {
        wait: usize,
        result: Result<InForce, WaitError>,
    },
    /// Something that the world does.
    Fault(String),
    /// Faults are over: from now on all must converge to this registry.
    Healed { run: usize },
    /// The time for that is up.
    Stopped { head: Box<Cursor>, state: Arc<State> },
}

/// An event with its time and who saw it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) at: Duration,
    pub(crate) actor: Actor,
    pub(crate) event: Event,
}

/// Where events are written down.
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

/// All that was seen in one run.
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

    /// What a registry had published there.
    pub(crate) fn truth(&self, cursor: &Cursor) -> Option<&Arc<State>> {
        let states = self
            .truth
            .get(&(cursor.store, cursor.incarnation.id, cursor.revision))?;
        states.iter().find(|state| state.items.head().chain == cursor.chain)
    }

    /// Every state that was published.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Arc<State>> {
        self.truth.values().flatten()
    }

    /// As text, the same for the same seed: what is drawn from the system's random source is numbered as it comes.
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
