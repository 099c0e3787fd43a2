//! One run of a registry: the real writer over a simulated disk, the real feed, and the real handler for credentials.

use std::{path::PathBuf, sync::Arc, time::Duration};

use switchboard_registry::{
    commit::{self, Commit},
    domain::items::Retention,
    feed::Feed,
    fleet::Fleet,
    grpc::{config::ConfigApi, history::HistoryApi},
    store::{self, WriteFailure},
};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    disk::{Disk, Volume},
    history::{Actor, Event, Log},
    mutants::Mutant,
    time::Clock,
};

pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// Small limits, so that followers often find their position compacted away.
const RETENTION: Retention = Retention {
    revisions: 6,
    change_bytes: 4 * 1024,
    answers: 200,
};

/// A running registry.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) number: usize,
    pub(crate) volume: Arc<Volume>,
    pub(crate) link: RunLink,
    shutdown: CancellationToken,
    streams: TaskTracker,
    tasks: JoinSet<Result<(), WriteFailure>>,
    log: Log,
}

/// The interfaces of a registry that clients and routers use.
#[derive(Debug, Clone)]
pub(crate) struct RunLink {
    pub(crate) number: usize,
    pub(crate) commit: Commit,
    pub(crate) feed: Feed,
    pub(crate) api: Arc<ConfigApi>,
    /// Cancelled when the process has ended, and its connections with it.
    pub(crate) dead: CancellationToken,
}

impl Run {
    /// Starts a registry on the durable content of a volume. Returns `None` if it could not write its first revision.
    pub(crate) async fn begin(
        number: usize,
        volume: &Arc<Volume>,
        class: u64,
        clock: Clock,
        mutant: Option<Mutant>,
        log: &Log,
    ) -> Option<Self> {
        let disk = Disk {
            volume: Arc::clone(volume),
            clock,
            class,
            mutant,
        };
        let (writer, commit) = commit::begin(disk, volume.load(), RETENTION).await.ok()?;
        let actor = Actor::Registry(number);
        log.write(
            actor,
            Event::Began {
                run: number,
                volume: volume.number,
                state: commit.state(),
            },
        );
        let (shutdown, dead, streams) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let feed = Feed::new(
            commit.published(),
            commit.pulse(),
            Arc::new(Fleet::default()),
            HEARTBEAT,
            streams.clone(),
            shutdown.clone(),
        );
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        tasks.spawn(writer.run(stop));
        let (mut published, to) = (commit.published(), log.clone());
        published.mark_unchanged();
        tasks.spawn(async move {
            while published.changed().await.is_ok() {
                let state = Arc::clone(&published.borrow_and_update());
                to.write(actor, Event::Published { run: number, state });
            }
            // The task lives as long as the writer.
            std::future::pending().await
        });
        // Lists of changes are read from a real database file, so they are not available here.
        let history = HistoryApi::new(commit.clone(), store::History::new(PathBuf::from("simulated")));
        let link = RunLink {
            number,
            commit,
            api: Arc::new(ConfigApi::new(feed.clone(), history)),
            feed,
            dead,
        };
        Some(Self {
            number,
            volume: Arc::clone(volume),
            link,
            shutdown,
            streams,
            tasks,
            log: log.clone(),
        })
    }

    /// Whether the writer has given up, which it does when it does not know what is durable.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Ends the process immediately.
    pub(crate) async fn kill(mut self) {
        self.link.dead.cancel();
        self.tasks.shutdown().await;
        self.shutdown.cancel();
        self.volume.cut_power();
        self.gone("killed");
    }

    /// Shuts down in order: sends goodbyes, then ends.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        self.streams.close();
        self.streams.wait().await;
        self.link.dead.cancel();
        self.tasks.shutdown().await;
        self.volume.cut_power();
        self.gone("stopped");
    }

    fn gone(&self, how: &'static str) {
        let actor = Actor::Registry(self.number);
        self.log.write(actor, Event::Gone { run: self.number, how });
    }
}
