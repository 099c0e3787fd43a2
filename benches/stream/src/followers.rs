//! Followers, each on a connection of its own, and a board that shows when all of them have reached a revision.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    select,
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    call::{Caller, connected},
    peer::{From, Seen, Server, Side},
};

/// Time limit for anything that all followers do.
const ALL_WITHIN: Duration = Duration::from_secs(120);

/// HTTP/2's default window in bytes, which a stalled follower grants to the server.
const WINDOW_OF_STALLED: u32 = 65_535;

/// The behaviour of a follower after it has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Continues to read.
    Reads,
    /// Answers the transport's pings but reads nothing.
    Stalls,
}

/// Connected followers, which disconnect when this is dropped.
#[derive(Debug)]
pub(crate) struct Followers {
    board: Arc<Board>,
    tasks: JoinSet<Result<()>>,
}

/// The progress of the followers.
#[derive(Debug)]
struct Board {
    epoch: Instant,
    behind: Countdown,
    missing: Countdown,
    /// The revision that is awaited.
    target: AtomicI64,
    /// When each follower received it, in nanoseconds after the epoch; 0 means not yet.
    arrivals: Vec<AtomicU64>,
    messages: AtomicUsize,
}

#[derive(Debug, Default)]
struct Countdown {
    left: AtomicUsize,
    done: Notify,
}

impl Countdown {
    fn of(left: usize) -> Self {
        Self {
            left: AtomicUsize::new(left),
            done: Notify::new(),
        }
    }

    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

impl Followers {
    /// Connects `count` followers and waits until all have caught up.
    pub(crate) async fn connect(server: &Server, count: usize, from: &From, then: Then) -> Result<Self> {
        let board = Arc::new(Board {
            epoch: Instant::now(),
            behind: Countdown::of(count),
            missing: Countdown::default(),
            target: AtomicI64::new(i64::MAX),
            arrivals: (0..count).map(|_| AtomicU64::new(0)).collect(),
            messages: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let board = Arc::clone(&board);
            let (side, addr, from) = (server.side, server.addr, from.clone());
            tasks.spawn(async move {
                let window = (then == Then::Stalls).then_some(WINDOW_OF_STALLED);
                connected(addr, window, async |caller| {
                    follow(side, &caller, index, &from, then, &board).await
                })
                .await
                .with_context(|| follower(addr, index))
            });
        }
        let mut followers = Self { board, tasks };
        followers.wait(|board| &board.behind).await?;
        Ok(followers)
    }

    /// Starts to record when each follower receives this revision.
    pub(crate) fn expect(&self, revision: i64) {
        let board = &self.board;
        board
            .arrivals
            .iter()
            .for_each(|arrival| arrival.store(0, Ordering::Relaxed));
        board.missing.left.store(board.arrivals.len(), Ordering::Release);
        board.target.store(revision, Ordering::Release);
    }

    /// Waits until all followers have received the expected revision. Returns how long after `since` each received it.
    pub(crate) async fn arrived(&mut self, since: Instant) -> Result<Vec<Duration>> {
        self.wait(|board| &board.missing).await?;
        let since = since.duration_since(self.board.epoch);
        let arrivals = self.board.arrivals.iter();
        let times = arrivals.map(|arrival| Duration::from_nanos(arrival.load(Ordering::Relaxed)));
        Ok(times.map(|time| time.saturating_sub(since)).collect())
    }

    /// Returns the number of messages with changes that all followers have received together.
    pub(crate) fn messages(&self) -> usize {
        self.board.messages.load(Ordering::Relaxed)
    }

    async fn wait(&mut self, countdown: impl Fn(&Board) -> &Countdown) -> Result<()> {
        let board = Arc::clone(&self.board);
        let done = timeout(ALL_WITHIN, countdown(&board).done.notified());
        select! {
            done = done => done.with_context(|| {
                let left = countdown(&board).left.load(Ordering::Relaxed);
                format!("{left} followers have not caught up after {ALL_WITHIN:?}")
            }),
            Some(ended) = self.tasks.join_next() => {
                ended??;
                bail!("a follower's stream ended")
            }
        }
    }
}

async fn follow(side: Side, caller: &Caller, index: usize, from: &From, then: Then, board: &Board) -> Result<()> {
    let (mut up, mut messages) = side.follow(caller, index, from).await?;
    let mut was_behind = true;
    while let Some(message) = messages.next().await? {
        let Seen {
            place,
            is_caught_up,
            reply,
        } = side.see(&message);
        if let Some(reply) = reply {
            up.say(&reply)?;
        } else if place.is_some() {
            board.messages.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(place) = place {
            board.arrive(index, place.revision);
        }
        if is_caught_up && was_behind {
            was_behind = false;
            board.behind.count();
            if then == Then::Stalls {
                std::future::pending::<()>().await;
            }
        }
    }
    bail!("the stream ended without an error")
}

impl Board {
    fn arrive(&self, index: usize, revision: i64) {
        if revision < self.target.load(Ordering::Acquire) {
            return;
        }
        let Some(arrival) = self.arrivals.get(index) else {
            return;
        };
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if arrival
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            self.missing.count();
        }
    }
}

fn follower(addr: SocketAddr, index: usize) -> String {
    format!("follower {index} of {addr}")
}
