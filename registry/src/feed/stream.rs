//! Drives one stream: waits for changes and for the clock, and hands frames to the transport.
//!
//! A task drives, and a short queue carries its frames to the response. The response could produce frames itself when the
//! transport asks for them, but a transport with a full window does not ask: nothing would then notice that the reader has
//! stopped, nor that it is time to end. The task has its own clock. It takes a frame only when there is room for it, so a
//! frame is of the newest state, and a reader that stopped costs the queue and no more. How a stream ends goes past the
//! queue, since it must be known also when the queue stays full.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use switchboard::{failpoint, history::Incarnation};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    FeedError,
    follower::{Follower, Next},
    frame::{Frame, Goodbye, GoodbyeWhy},
    shelf::{Shelf, Start},
};
use crate::{domain::state::State, pulse::Pulse};

/// Two frames: while the transport writes one, the next is made. When it is full, no frame is made.
const QUEUE: usize = 2;

/// A stream ends itself at about this age, so that followers spread over registries and addresses.
const ROTATION: Duration = Duration::from_secs(30 * 60);

/// A reader that takes no frame for so long has stopped reading.
const PROGRESS_WITHIN: Duration = Duration::from_secs(5 * 60);

/// How long a goodbye may take to be read.
const GOODBYE_WITHIN: Duration = Duration::from_secs(10);

/// The same at shutdown, when others wait.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// After a shutdown: the time that a restart takes, then all followers spread.
const DRAIN_MIN_WAIT: Duration = Duration::from_millis(500);
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// Who was too slow comes back when others have been served.
const TOO_SLOW_MIN_WAIT: Duration = Duration::from_secs(1);
const TOO_SLOW_SPREAD: Duration = Duration::from_secs(4);

/// After a new life has begun all followers need a snapshot, which is encoded once: they come within a second.
const MOVED_SPREAD: Duration = Duration::from_secs(1);

/// The frames of one stream, then how it ended.
#[derive(Debug)]
pub struct Frames {
    queue: mpsc::Receiver<Frame>,
    end: Option<oneshot::Receiver<Result<(), FeedError>>>,
}

/// Where the driver of a stream leaves its frames. Closed by dropping it.
pub(super) type Outlet = mpsc::Sender<Frame>;

impl Frames {
    /// A stream, where its frames go in, and where its end does.
    pub(super) fn channel() -> (Outlet, oneshot::Sender<Result<(), FeedError>>, Self) {
        let (outlet, queue) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        (outlet, ended, Self { queue, end: Some(end) })
    }
}

impl Stream for Frames {
    type Item = Result<Frame, FeedError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(frame) = ready!(self.queue.poll_recv(context)) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(end) = &mut self.end else {
            return Poll::Ready(None);
        };
        let result = ready!(Pin::new(end).poll(context));
        self.end = None;
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            // The driver is gone without a word, so this must not look like an end in order.
            Err(_dropped) => Some(FeedError::Broken),
        };
        Poll::Ready(error.map(Err))
    }
}

/// What drives the downward side of a stream.
#[derive(Debug)]
pub(super) struct Downlink {
    /// The life of the store that the follower was welcomed to. It ends with that.
    pub(super) life: Incarnation,
    pub(super) published: watch::Receiver<Arc<State>>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) heartbeat: Duration,
    pub(super) shutdown: CancellationToken,
    /// A newer stream has taken this one's place.
    pub(super) replaced: CancellationToken,
}

impl Downlink {
    /// Sends `welcome`, then all that `follower` has to say, until the stream ends.
    ///
    /// # Errors
    ///
    /// [`FeedError::TooSlow`] when the reader does not even read its goodbye.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the stream where it is, perhaps within a delta: what was sent stands, nothing is sent twice.
    pub(super) async fn run(self, welcome: Frame, mut follower: Follower, outlet: Outlet) -> Result<(), FeedError> {
        let mut published = self.published.clone();
        // The stream's own, so that its waits do not depend on when others draw theirs.
        let mut random = fastrand::Rng::new();
        let mut ending = pin!(self.ending(Instant::now() + jittered(ROTATION, &mut random)));
        // Waited for only by who owes a run; its turn must not be lost when something else comes between.
        let mut starting = pin!(self.shelf.start());
        let mut start = None;
        if outlet.send(welcome).await.is_err() {
            return Ok(());
        }
        let mut bookmark_due = Instant::now() + jittered(self.heartbeat, &mut random);
        // The first time that there is nothing else to send, a bookmark tells the follower at once that it is up to date.
        let mut has_caught_up = false;
        let goodbye = loop {
            // An end is looked for first, or a stream that always has something to send would never end.
            let room = select! {
                biased;
                why = &mut ending => break why,
                room = timeout(PROGRESS_WITHIN, room(&outlet, &mut start)) => room,
            };
            let Ok(room) = room else { break TOO_SLOW };
            let Ok(room) = room else {
                // The reader has gone.
                return Ok(());
            };
            let now = Instant::now();
            let newest = Arc::clone(&published.borrow_and_update());
            if newest.items.incarnation() != self.life {
                break MOVED;
            }
            let is_due = bookmark_due <= now;
            let must_start = follower.owes_run() && start.is_none();
            let mut wake = bookmark_due;
            let mut is_idle = false;
            if !is_due && !must_start {
                match follower.next(&newest, &self.shelf, now) {
                    Next::Message(bytes) => {
                        room.send(Frame::Shared(bytes));
                        follower.failpoint().into_iter().for_each(failpoint::hit);
                        if !follower.is_under_way() {
                            start = None;
                        }
                        continue;
                    }
                    Next::Nothing => is_idle = true,
                    Next::Turn => continue,
                    Next::Later(until) => wake = wake.min(until),
                    Next::Lost => break TOO_SLOW,
                }
            }
            if is_due || (is_idle && !has_caught_up) {
                has_caught_up |= is_idle;
                bookmark_due = now + jittered(self.heartbeat, &mut random);
                room.send(follower.bookmark(&newest, self.pulse.is_stalled(self.heartbeat)));
                continue;
            }
            drop((room, newest));
            select! {
                biased;
                why = &mut ending => break why,
                () = outlet.closed() => return Ok(()),
                begun = &mut starting, if must_start => {
                    start = Some(begun);
                    starting.set(self.shelf.start());
                }
                changed = published.changed(), if !must_start => if changed.is_err() {
                    // Nothing will ever change again: the writer has stopped.
                    break DRAIN;
                },
                () = sleep_until(wake) => {}
            }
        };
        say(goodbye, &outlet).await
    }

    async fn ending(&self, rotation: Instant) -> Goodbye {
        select! {
            biased;
            () = self.shutdown.cancelled() => DRAIN,
            () = self.replaced.cancelled() => ROTATED,
            () = sleep_until(rotation) => ROTATED,
        }
    }
}

const DRAIN: Goodbye = Goodbye {
    why: GoodbyeWhy::Drain,
    min_wait: DRAIN_MIN_WAIT,
    spread: DRAIN_SPREAD,
};

/// Ages are jittered, so that nobody need wait.
const ROTATED: Goodbye = Goodbye {
    why: GoodbyeWhy::Rotation,
    min_wait: Duration::ZERO,
    spread: Duration::ZERO,
};

const TOO_SLOW: Goodbye = Goodbye {
    why: GoodbyeWhy::TooSlow,
    min_wait: TOO_SLOW_MIN_WAIT,
    spread: TOO_SLOW_SPREAD,
};

const MOVED: Goodbye = Goodbye {
    why: GoodbyeWhy::Moved,
    min_wait: Duration::ZERO,
    spread: MOVED_SPREAD,
};

/// Waits for room for one frame. Meanwhile a start is given back when it is over.
async fn room<'a>(
    outlet: &'a Outlet,
    start: &mut Option<Start>,
) -> Result<mpsc::Permit<'a, Frame>, mpsc::error::SendError<()>> {
    let mut room = pin!(outlet.reserve());
    if let Some(begun) = start {
        select! {
            biased;
            room = &mut room => return room,
            () = begun.over() => *start = None,
        }
    }
    room.await
}

/// Says goodbye and waits until it has been taken, with all that was before it.
async fn say(goodbye: Goodbye, outlet: &Outlet) -> Result<(), FeedError> {
    let limit = match goodbye.why {
        GoodbyeWhy::Rotation | GoodbyeWhy::TooSlow | GoodbyeWhy::Moved => GOODBYE_WITHIN,
        GoodbyeWhy::Drain => DRAIN_WITHIN,
    };
    let taken = async {
        if outlet.send(Frame::Goodbye(goodbye)).await.is_ok() {
            // Room for a whole queue means that the queue is empty. If the reader has gone, it is done too.
            drop(outlet.reserve_many(QUEUE).await);
        }
    };
    timeout(limit, taken).await.map_err(|_elapsed| FeedError::TooSlow)
}

/// Within 10 % of `duration`, so that streams that began together do not stay together.
fn jittered(duration: Duration, random: &mut fastrand::Rng) -> Duration {
    duration.mul_f64(0.9 + 0.2 * random.f64())
}
