//! The keeper of a stream. It has its own timers and decides when a bookmark is due, when a snapshot or a long delta
//! may begin, and when and how the stream ends.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use switchboard::stream::{Goodbye, GoodbyeWhy};
use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Line, MakerProgress, Orders, StartTurn, StreamStart};
use crate::feed::{FeedError, shelf::Shelf};

/// Approximate age at which a stream ends, so that followers spread over registries and addresses.
const ROTATION: Duration = Duration::from_secs(30 * 60);

/// A reader that takes no frame for this long counts as stopped.
const PROGRESS_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Time limit for reading a goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(10);

/// Time limit for reading a goodbye during shutdown, when other parts wait.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// After a shutdown, followers wait for the time that a restart takes, and then reconnect spread over an interval.
const DRAIN_MIN_WAIT: Duration = Duration::from_millis(500);
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// A reader that was too slow reconnects after others have been served.
const TOO_SLOW_MIN_WAIT: Duration = Duration::from_secs(1);
const TOO_SLOW_SPREAD: Duration = Duration::from_secs(4);

/// After a new life has begun, all followers need a snapshot, which is encoded once. They reconnect within a second.
const MOVED_SPREAD: Duration = Duration::from_secs(1);

/// Controls the timing of a stream, whether or not it is read.
#[derive(Debug)]
pub(in crate::feed) struct Keeper {
    pub(in crate::feed) shelf: Arc<Shelf>,
    pub(in crate::feed) heartbeat: Duration,
    pub(in crate::feed) shutdown: CancellationToken,
    /// Cancelled when a newer stream replaces this one.
    pub(in crate::feed) replaced: CancellationToken,
}

impl Keeper {
    /// Starts the stream, and runs until it ends.
    ///
    /// # Errors
    ///
    /// [`FeedError::TooSlow`] if the reader does not even read the goodbye.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream ends without a goodbye.
    pub(in crate::feed) async fn run(self, begin: StreamStart, line: Line) -> Result<(), FeedError> {
        let Line {
            begin: begins,
            orders,
            mut progress,
        } = line;
        if begins.send(begin).is_err() {
            return Ok(());
        }
        // Each stream has its own generator, so that its waits do not depend on the order in which other streams draw
        // theirs.
        let mut random = fastrand::Rng::new();
        let rotation = Instant::now() + jittered(ROTATION, &mut random);
        let mut lost = progress.clone();
        let goodbye = select! {
            biased;
            why = self.ending(rotation) => why,
            lost = lost.wait_for(|progress| progress.lost.is_some()) => match lost {
                Ok(progress) => progress.lost.unwrap_or(TOO_SLOW),
                // The reader has disconnected.
                Err(_closed) => return Ok(()),
            },
            why = self.beat(&orders, progress.clone(), random) => why,
            never = self.turns(&orders, progress.clone()) => match never {},
        };
        orders.send_modify(|orders| orders.goodbye = Some(goodbye));
        let limit = match goodbye.why {
            GoodbyeWhy::Rotation | GoodbyeWhy::TooSlow | GoodbyeWhy::Moved | GoodbyeWhy::Unknown => GOODBYE_WITHIN,
            GoodbyeWhy::Drain => DRAIN_WITHIN,
        };
        let taken = async { while progress.changed().await.is_ok() {} };
        timeout(limit, taken).await.map_err(|_elapsed| FeedError::TooSlow)
    }

    async fn ending(&self, rotation: Instant) -> Goodbye {
        select! {
            biased;
            () = self.shutdown.cancelled() => DRAIN,
            () = self.replaced.cancelled() => ROTATED,
            () = sleep_until(rotation) => ROTATED,
        }
    }

    /// Requests a bookmark every heartbeat, until the reader has taken no frame for too long.
    async fn beat(
        &self,
        orders: &watch::Sender<Orders>,
        progress: watch::Receiver<MakerProgress>,
        mut random: fastrand::Rng,
    ) -> Goodbye {
        let (mut taken, mut since) = (0, Instant::now());
        loop {
            sleep(jittered(self.heartbeat, &mut random)).await;
            let now = Instant::now();
            let newest = progress.borrow().taken;
            if newest != taken {
                (taken, since) = (newest, now);
            } else if now.duration_since(since) >= PROGRESS_WITHIN {
                return TOO_SLOW;
            }
            orders.send_modify(|orders| orders.beats += 1);
        }
    }

    /// Waits for each requested turn, and gives it back after it was used or its time is over. Never returns.
    async fn turns(&self, orders: &watch::Sender<Orders>, mut progress: watch::Receiver<MakerProgress>) -> Infallible {
        for number in 1.. {
            if progress.wait_for(|progress| progress.asked >= number).await.is_err() {
                // The reader has disconnected, which is handled elsewhere.
                break;
            }
            let start = self.shelf.start().await;
            orders.send_modify(|orders| orders.turn = StartTurn { number, is_open: true });
            select! {
                biased;
                used = progress.wait_for(|progress| progress.used >= number) => drop(used),
                () = start.over() => {}
            }
            orders.send_modify(|orders| orders.turn.is_open = false);
            drop(start);
        }
        pending().await
    }
}

pub(super) const DRAIN: Goodbye = Goodbye {
    why: GoodbyeWhy::Drain,
    min_wait: DRAIN_MIN_WAIT,
    spread: DRAIN_SPREAD,
};

/// The ages of streams are jittered, so their followers need no wait.
const ROTATED: Goodbye = Goodbye {
    why: GoodbyeWhy::Rotation,
    min_wait: Duration::ZERO,
    spread: Duration::ZERO,
};

pub(super) const TOO_SLOW: Goodbye = Goodbye {
    why: GoodbyeWhy::TooSlow,
    min_wait: TOO_SLOW_MIN_WAIT,
    spread: TOO_SLOW_SPREAD,
};

pub(super) const MOVED: Goodbye = Goodbye {
    why: GoodbyeWhy::Moved,
    min_wait: Duration::ZERO,
    spread: MOVED_SPREAD,
};

/// Returns a random duration within 10 % of `duration`, so that streams that began together drift apart.
fn jittered(duration: Duration, random: &mut fastrand::Rng) -> Duration {
    duration.mul_f64(0.9 + 0.2 * random.f64())
}
