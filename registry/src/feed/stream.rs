//! One stream: a maker that creates each frame when the transport asks for it, and a keeper with its own timers.
//!
//! The response creates its frames itself. So a frame always shows the newest state, does not pass between tasks, and a
//! reader that has stopped costs nothing but a cursor. However, a transport with a full window does not ask for frames,
//! so the response alone would not notice that a reader has stopped, nor that the stream has to end. This is the
//! keeper's job. It decides when a bookmark is due, when a snapshot or a long delta may begin, and when to send the
//! goodbye. It is notified when a frame was taken and when the reader has disconnected.

mod keeper;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use switchboard::{failpoint, stream::Goodbye};
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

pub(super) use self::keeper::Keeper;
use self::keeper::{DRAIN, MOVED, TOO_SLOW};
use super::{
    FeedError,
    bells::Bell,
    follower::{Follower, FollowerStep},
    frame::Frame,
    shelf::Shelf,
};
use crate::{domain::state::State, fleet::check::CheckOrder, pulse::Pulse};

/// The frames of one stream, followed by the error with which it ended, if any.
pub struct Frames(BoxStream<'static, Result<Frame, FeedError>>);

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl Stream for Frames {
    type Item = Result<Frame, FeedError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// The data from which the frames of a stream are made.
#[derive(Debug)]
pub(super) struct FrameSource {
    pub(super) published: watch::Receiver<Arc<State>>,
    /// Rings after a new state was published.
    pub(super) bell: Bell,
    pub(super) shelf: Arc<Shelf>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) heartbeat: Duration,
}

/// The start of a stream.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) welcome: Frame,
    pub(super) follower: Follower,
    /// The checks that a router has to make. `None` for a watcher.
    pub(super) orders: Option<mpsc::Receiver<CheckOrder>>,
}

/// The keeper's instructions to the maker.
#[derive(Debug, Default)]
pub(super) struct Orders {
    turn: StartTurn,
    /// Number of bookmarks that have become due so far.
    beats: u64,
    goodbye: Option<Goodbye>,
    /// Set when the keeper has ended: the result of the stream.
    pub(super) end: Option<Result<(), FeedError>>,
}

/// The newest turn that was given, to begin a snapshot or a delta while these are crowded.
#[derive(Debug, Clone, Copy, Default)]
struct StartTurn {
    /// Number of the turn. The first has the number 1.
    number: u64,
    /// Whether the turn can be used now. It ends if it is not used in time.
    is_open: bool,
}

impl StartTurn {
    /// Returns whether the turn with this number can be used now.
    const fn is_of(self, number: u64) -> bool {
        self.is_open && self.number == number
    }
}

/// The maker's reports to the keeper.
#[derive(Debug, Default)]
struct MakerProgress {
    /// Number of frames that the transport has taken. A change does not wake the keeper.
    taken: u64,
    /// Number of the turn that was requested last.
    asked: u64,
    /// Number of the turn that was used last: its whole run was sent.
    used: u64,
    /// Set if the stream cannot continue: the goodbye with which it has to end.
    lost: Option<Goodbye>,
}

/// The keeper's end of the channel to the maker.
#[derive(Debug)]
pub(super) struct Line {
    begin: oneshot::Sender<StreamStart>,
    orders: watch::Sender<Orders>,
    progress: watch::Receiver<MakerProgress>,
}

impl Line {
    /// Waits until the reader has disconnected.
    pub(super) async fn closed(&mut self) {
        while self.progress.changed().await.is_ok() {}
    }
}

/// Creates a stream. Returns the keeper's end of its channel, the sender that reports the keeper's result, and the
/// frames.
pub(super) fn channel(source: FrameSource) -> (Line, watch::Sender<Orders>, Frames) {
    let (begin, begins) = oneshot::channel();
    let (orders, ordered) = watch::channel(Orders::default());
    let (progress, heard) = watch::channel(MakerProgress::default());
    let line = Line {
        begin,
        orders: orders.clone(),
        progress: heard,
    };
    let maker = Maker {
        source,
        begins: Some(begins),
        orders: ordered,
        progress,
        follower: None,
        checks: None,
        due: None,
        beats: 0,
        asked: 0,
        is_running: false,
        has_caught_up: false,
        is_over: false,
    };
    let frames = stream::unfold(maker, async |mut maker| maker.next().await.map(|frame| (frame, maker)));
    (line, orders, Frames(frames.fuse().boxed()))
}

/// Makes one frame each time the transport asks for it.
#[derive(Debug)]
struct Maker {
    source: FrameSource,
    orders: watch::Receiver<Orders>,
    progress: watch::Sender<MakerProgress>,
    /// `None` after the start has arrived.
    begins: Option<oneshot::Receiver<StreamStart>>,
    /// `None` before the stream has begun, and after it can no longer continue.
    follower: Option<Follower>,
    /// The checks that a router has to make. `None` for a watcher, and after the sender was dropped.
    checks: Option<mpsc::Receiver<CheckOrder>>,
    /// The next check to send.
    due: Option<CheckOrder>,
    /// Number of due bookmarks that were made.
    beats: u64,
    /// Number of the turn that was requested last.
    asked: u64,
    /// Whether the run of that turn is being sent.
    is_running: bool,
    /// Whether the follower has been up to date once. The first time, a bookmark reports this at once.
    has_caught_up: bool,
    /// Whether the last item was returned: the goodbye or the error that ends the stream.
    is_over: bool,
}

/// Why no frame can be sent now.
enum Hold {
    /// The maker has to wait for a new state, for an instruction or, if set, for this time.
    Until(Option<Instant>),
    /// The stream cannot continue: the next changes are no longer kept, or the store has begun another life.
    Lost(Goodbye),
}

impl Maker {
    /// Returns the next frame. `None` if the stream has ended normally.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream ends at this point, perhaps within a delta. Frames that were returned stay
    /// valid, and none is returned twice.
    async fn next(&mut self) -> Option<Result<Frame, FeedError>> {
        if let Some(begins) = &mut self.begins {
            let begin = begins.await;
            self.begins = None;
            // If no start arrives, only the end remains.
            if let Ok(begin) = begin {
                let StreamStart {
                    welcome,
                    follower,
                    orders,
                } = begin;
                self.follower = Some(follower);
                self.checks = orders;
                return Some(Ok(welcome));
            }
        }
        loop {
            if self.is_over {
                return None;
            }
            // The end is checked first, because a stream that always has something to send would never end otherwise.
            let (turn, beats) = {
                let orders = self.orders.borrow_and_update();
                if let Some(end) = &orders.end {
                    self.is_over = true;
                    return end.clone().err().map(Err);
                }
                if let Some(goodbye) = orders.goodbye {
                    self.is_over = true;
                    return Some(Ok(Frame::Goodbye(goodbye)));
                }
                (orders.turn, orders.beats)
            };
            let wake = match self.make(turn, beats) {
                Ok(frame) => {
                    self.count_taken();
                    return Some(Ok(frame));
                }
                Err(Hold::Until(wake)) => {
                    // The configuration is sent as far as possible before a check, so that the check uses everything
                    // that was written before it.
                    if let Some(order) = self.due.take() {
                        self.count_taken();
                        return Some(Ok(Frame::Check(order)));
                    }
                    wake
                }
                Err(Hold::Lost(goodbye)) => {
                    self.lose(goodbye);
                    None
                }
            };
            let is_following = self.follower.is_some();
            let may_check = is_following && self.checks.is_some();
            select! {
                biased;
                ordered = self.orders.changed() => if ordered.is_err() {
                    // The keeper is gone without a result, so the stream must not look as if it ended normally.
                    self.is_over = true;
                    return Some(Err(FeedError::Broken));
                },
                rung = self.source.bell.rung(), if is_following => if rung.is_err() {
                    // The writer has stopped, so nothing will change any more.
                    self.lose(DRAIN);
                },
                order = next_order(&mut self.checks), if may_check => match order {
                    // A late check is dropped, because its caller has given up.
                    Some(order) => self.due = Some(order).filter(|order| order.until > Instant::now()),
                    None => self.checks = None,
                },
                () = until(wake), if wake.is_some() => {}
            }
        }
    }

    /// Makes the next frame for the newest state.
    fn make(&mut self, turn: StartTurn, beats: u64) -> Result<Frame, Hold> {
        let Some(follower) = &mut self.follower else {
            return Err(Hold::Until(None));
        };
        // The bell is reset first, so that it rings again for a state that is published after the read.
        self.source.bell.heard();
        let newest = Arc::clone(&self.source.published.borrow());
        if follower.is_left_by(&newest) {
            return Err(Hold::Lost(MOVED));
        }
        let is_due = self.beats != beats;
        let mut wake = None;
        let mut is_idle = false;
        if !is_due {
            let needs_turn = follower.owes_run();
            if needs_turn && !turn.is_of(self.asked) {
                return Err(self.ask(turn));
            }
            match follower.next(&newest, &self.source.shelf, Instant::now()) {
                FollowerStep::Message(bytes) => {
                    self.is_running |= needs_turn;
                    follower.failpoint().into_iter().for_each(failpoint::hit);
                    return Ok(Frame::Shared(bytes));
                }
                FollowerStep::Nothing => is_idle = true,
                FollowerStep::Turn => return Err(self.ask(turn)),
                FollowerStep::Later(until) => wake = Some(until),
                FollowerStep::Lost => return Err(Hold::Lost(TOO_SLOW)),
            }
        }
        if is_due || (is_idle && !self.has_caught_up) {
            self.has_caught_up |= is_idle;
            self.beats = beats;
            let is_stalled = self.source.pulse.is_stalled(self.source.heartbeat);
            return Ok(follower.bookmark(&newest, is_stalled));
        }
        Err(Hold::Until(wake))
    }

    /// Requests the next turn, unless an earlier request is still open. If a turn ended without being used, only this
    /// method requests another. So only a reader that reads gets one.
    fn ask(&mut self, given: StartTurn) -> Hold {
        if self.asked <= given.number {
            self.asked = given.number + 1;
            self.progress.send_modify(|progress| progress.asked = self.asked);
        }
        Hold::Until(None)
    }

    fn count_taken(&mut self) {
        let is_under_way = self.follower.as_ref().is_some_and(Follower::is_under_way);
        let is_sent = self.is_running && !is_under_way;
        self.is_running &= !is_sent;
        let asked = self.asked;
        self.progress.send_if_modified(|progress| {
            progress.taken += 1;
            if is_sent {
                progress.used = asked;
            }
            is_sent
        });
    }

    fn lose(&mut self, goodbye: Goodbye) {
        self.follower = None;
        self.progress.send_modify(|progress| progress.lost = Some(goodbye));
    }
}

async fn next_order(checks: &mut Option<mpsc::Receiver<CheckOrder>>) -> Option<CheckOrder> {
    checks.as_mut()?.recv().await
}

async fn until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        sleep_until(wake).await;
    }
}
