//! Turns what was received into the catalog in use: compiles aside, fetches credentials, swaps, and says what is in use.
//!
//! It always takes the newest state; those that came while it was busy are skipped. Nothing here holds up the stream.

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

/// How long credentials are waited for before the first catalog counts as ready, or a new life of the store is used.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is in use.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The state that the catalog in use was compiled from, less what is held. `None`: there is none yet.
    pub cursor: Option<Cursor>,
    /// Items whose newest version is not in use.
    pub held: Arc<[Held]>,
    /// How long compiling and swapping in took.
    pub duration: Duration,
}

/// What the applier is connected to.
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
    /// Something has changed since the last compiling began.
    is_stale: bool,
    /// Until when the credentials of a new life of the store are waited for.
    new_life: Option<Instant>,
    readiness: StartReadiness,
}

/// A state that was compiled.
struct Done {
    received: Arc<Received>,
    compiled: Compiled,
    duration: Duration,
    /// Ends when the catalog is in use.
    span: Span,
}

enum StartReadiness {
    /// What the snapshot file has is compiled first.
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

    /// Begins with what an earlier start has left; its resources are those in `received`.
    pub(super) fn restore(&mut self, restored: Restored) {
        let Restored { kept, credentials, .. } = restored;
        self.credentials.restore(credentials);
        self.used = kept.used;
        self.is_stale = true;
        self.readiness = StartReadiness::NoCatalog {
            file: Some(*kept.received.cursor()),
        };
    }

    /// Runs until it is cancelled, or nothing more can be received.
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
                // In this order, so that the same happenings lead to the same steps.
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
                        warn!(%error, "compiling the configuration failed: the catalog in use stays");
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
        // Ten thousand models take longer than a worker of the runtime may be kept busy.
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
            // Nothing is held over: what worked so far should not fail for want of a credential that only has to be fetched.
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
                // What the file has was ready once, and there may be nobody to fetch more from.
                self.readiness = StartReadiness::Until(if file == Some(cursor) { begin } else { begin + PATIENCE });
                file == Some(cursor)
            }
            StartReadiness::Until(_) | StartReadiness::Ready => false,
        };
        // A file that has a token which is no longer in use is written again.
        if !is_from_file || has_forgotten {
            self.kept.send_replace(Some(Kept {
                received: done.received,
                used: Arc::clone(&self.used),
            }));
        }
        self.log(&cursor, is_first, &held);
        failpoint::hit("apply.before-report");
        // Only now: what is reported as applied is in use.
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
        // While it compiles nothing else can be done about a new life.
        let new_life = self.new_life.filter(|_| self.compiling.is_empty());
        [fetch, ready, new_life].into_iter().flatten().min()
    }

    fn log(&self, cursor: &Cursor, is_first: bool, held: &[Held]) {
        let revision = cursor.revision;
        if is_first {
            info!(%revision, "the first catalog is in use, revision {revision}");
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
                debug!(resource = %name, %revision, %used_revision, "{name} waits: {why}");
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
