//! Turns the received state into the catalog in use: compiles in another thread, fetches credentials, swaps the
//! catalog, and publishes what is in use.
//!
//! It always takes the newest state and skips states that arrived while it was busy. It never blocks the stream.

use std::{sync::Arc, time::Duration};

use switchboard::{failpoint, history::Cursor, service::trace};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info, info_span, warn};

use super::{
    compile::{Compiled, Held, Used},
    credentials::Credentials,
    persist::{Kept, Restored},
    received::Received,
    surroundings::Surroundings,
};
use crate::{current::Current, live::LiveModels};

/// How long to wait for credentials before the first catalog counts as ready, or before a new incarnation of the store
/// is used.
const PATIENCE: Duration = Duration::from_secs(5);

/// The state in use.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The cursor of the state from which the catalog in use was compiled. Held items are older. `None`: no catalog is
    /// in use yet.
    pub cursor: Option<Cursor>,
    /// Items whose newest version is not in use.
    pub held: Arc<[Held]>,
    /// Time that compiling and swapping took.
    pub duration: Duration,
}

/// Compiles and swaps catalogs, and fetches credentials.
pub(super) struct Applier<S: Surroundings> {
    surroundings: S,
    current: Arc<Current>,
    models: LiveModels,
    received: watch::Receiver<Option<Arc<Received>>>,
    connection: watch::Receiver<Option<S::Connection>>,
    applied: watch::Sender<Applied>,
    kept: watch::Sender<Option<Kept>>,
    credentials: Credentials,
    used: Arc<Used>,
    compiling: JoinSet<Done>,
    /// Whether anything has changed since the last compile step began.
    is_stale: bool,
    /// Until when to wait for the credentials of a new incarnation of the store. `None`: no new incarnation is pending.
    new_life: Option<Instant>,
    readiness: StartReadiness,
}

/// A compiled state.
struct Done {
    received: Arc<Received>,
    compiled: Compiled,
    duration: Duration,
    /// The span of the whole application. It ends when the catalog is in use.
    span: Span,
}

enum StartReadiness {
    /// No catalog yet. The state from the snapshot file, if there is one, is compiled first.
    NoCatalog {
        file: Option<Cursor>,
    },
    Until(Instant),
    Ready,
}

impl<S: Surroundings> Applier<S> {
    pub(super) fn new(
        surroundings: S,
        (current, models): (Arc<Current>, LiveModels),
        received: watch::Receiver<Option<Arc<Received>>>,
        connection: watch::Receiver<Option<S::Connection>>,
        applied: watch::Sender<Applied>,
        kept: watch::Sender<Option<Kept>>,
    ) -> Self {
        Self {
            surroundings,
            current,
            models,
            received,
            connection,
            applied,
            kept,
            credentials: Credentials::new(),
            used: Arc::default(),
            compiling: JoinSet::new(),
            is_stale: false,
            new_life: None,
            readiness: StartReadiness::NoCatalog { file: None },
        }
    }

    /// Starts with the state of an earlier start, whose resources are already in `received`.
    pub(super) fn restore(&mut self, restored: Restored) {
        let Restored { kept, credentials, .. } = restored;
        self.credentials.restore(credentials);
        self.used = kept.used;
        self.is_stale = true;
        self.readiness = StartReadiness::NoCatalog {
            file: Some(*kept.received.cursor()),
        };
    }

    /// Runs until it is cancelled, or until no further state can arrive.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.compile_newest();
            self.judge_readiness();
            let connection = self.connection.borrow().clone();
            if let Some(connection) = &connection {
                self.credentials.start(connection);
            }
            let wake = self.wake_at(connection.is_some());
            tokio::select! {
                // In a fixed order, so that the same events always lead to the same steps.
                biased;
                () = cancel.cancelled() => return,
                changed = self.received.changed() => match changed {
                    Ok(()) => self.is_stale = true,
                    Err(_closed) => return,
                },
                changed = self.connection.changed() => match changed {
                    Ok(()) => self.credentials.reconsider(),
                    Err(_closed) => return,
                },
                Some(compiled) = self.compiling.join_next() => match compiled {
                    Ok(done) => done.span.clone().in_scope(|| self.install(done)),
                    Err(error) => {
                        warn!(%error, "compiling the configuration failed: the last catalog stays in use");
                    }
                },
                () = self.credentials.ended() => self.is_stale = true,
                () = sleep_or_never(wake) => self.is_stale |= self.new_life.is_some_and(|until| until <= Instant::now()),
            }
        }
    }

    fn compile_newest(&mut self) {
        if !self.is_stale || !self.compiling.is_empty() {
            return;
        }
        self.is_stale = false;
        let Some(received) = self.received.borrow_and_update().clone() else {
            return;
        };
        let used = Arc::clone(&self.used);
        let credentials = self.credentials.cache().clone();
        // Compiling ten thousand models takes longer than a worker of the runtime may be kept busy.
        let span = info_span!(
            parent: None, "apply", otel.kind = "consumer", revision = received.cursor().revision.get()
        );
        if let Some(traceparent) = received.traceparent() {
            trace::adopt_text(&span, traceparent);
        }
        let surroundings = self.surroundings.clone();
        self.surroundings.aside(&mut self.compiling, move || {
            let begin = Instant::now();
            let compiled = span.in_scope(|| surroundings.compile(&received, &used, &credentials));
            Done {
                received,
                compiled,
                duration: begin.elapsed(),
                span,
            }
        });
    }

    fn install(&mut self, done: Done) {
        let begin = Instant::now();
        let Compiled {
            catalog,
            used,
            held,
            wanted,
        } = done.compiled;
        self.credentials.want(&wanted);
        let is_first = matches!(self.readiness, StartReadiness::NoCatalog { .. });
        let is_new_life = self.used.life().is_some_and(|life| used.life() != Some(life));
        if is_new_life && !is_first {
            // No item is held across incarnations. Features that worked so far should not fail only because a
            // credential has not been fetched yet.
            let until = *self.new_life.get_or_insert(begin + PATIENCE);
            if begin < until && !self.credentials.all_tried() {
                return;
            }
        }
        self.new_life = None;
        let has_forgotten = self.credentials.keep(&used.credential_ids(), &wanted);
        let cursor = catalog.cursor;
        self.used = Arc::new(used);
        let catalog = Arc::new(catalog);
        self.models.align(&catalog);
        self.current.swap(catalog);
        self.current.set_held(held.len());
        let is_from_file = match self.readiness {
            StartReadiness::NoCatalog { file } => {
                // The state from the file was ready before, and the registry may not be reachable to fetch more
                // credentials.
                self.readiness = StartReadiness::Until(if file == Some(cursor) { begin } else { begin + PATIENCE });
                file == Some(cursor)
            }
            StartReadiness::Until(_) | StartReadiness::Ready => false,
        };
        // A file that contains a token which is no longer in use is written again.
        if !is_from_file || has_forgotten {
            self.kept.send_replace(Some(Kept {
                received: done.received,
                used: Arc::clone(&self.used),
            }));
        }
        self.log(&cursor, is_first, &held);
        failpoint::hit("apply.before-report");
        // Published last, so that a state that is reported as applied is in use.
        self.applied.send_replace(Applied {
            cursor: Some(cursor),
            held: held.into(),
            duration: done.duration + begin.elapsed(),
        });
    }

    fn judge_readiness(&mut self) {
        if let StartReadiness::Until(until) = self.readiness
            && (self.credentials.all_tried() || until <= Instant::now())
        {
            self.readiness = StartReadiness::Ready;
            self.current.set_ready();
        }
    }

    fn wake_at(&self, is_connected: bool) -> Option<Instant> {
        let fetch = self.credentials.due_at().filter(|_| is_connected);
        let ready = match self.readiness {
            StartReadiness::Until(until) => Some(until),
            StartReadiness::NoCatalog { .. } | StartReadiness::Ready => None,
        };
        // A new incarnation is considered again when compiling ends.
        let new_life = self.new_life.filter(|_| self.compiling.is_empty());
        [fetch, ready, new_life].into_iter().flatten().min()
    }

    fn log(&self, cursor: &Cursor, is_first: bool, held: &[Held]) {
        let revision = cursor.revision;
        if is_first {
            info!(%revision, "the first catalog is in use, at revision {revision}");
        } else {
            debug!(%revision, "revision {revision} is in use");
        }
        let before = &self.applied.borrow().held;
        for new in held.iter().filter(|held| !before.contains(held)) {
            let Held {
                name,
                revision,
                why,
                used_revision,
            } = new;
            if why.is_lasting() {
                warn!(resource = %name, %revision, %used_revision, "{name} is held at its last good version: {why}");
            } else {
                debug!(resource = %name, %revision, %used_revision, "{name} is held: {why}");
            }
        }
        let healed = |old: &&Held| old.why.is_lasting() && held.iter().all(|held| held.name != old.name);
        for Held { name, .. } in before.iter().filter(healed) {
            info!(resource = %name, "{name} is no longer held");
        }
    }
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
