//! One stream: frames that are made when the transport asks for them, and a keeper that has a clock of its own.
//!
//! The response makes its frames itself, so that a frame is of the newest state, costs no hop from task to task, and a
//! reader that stopped costs nothing but a cursor. But a transport with a full window does not ask: nothing would then
//! notice that the reader has stopped, nor that it is time to end. That is what the keeper's task is for. It says when a
//! bookmark is due, when a snapshot or a long delta may begin, and when to say goodbye; it hears when a frame was taken and
//! when the reader has gone.

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

/// The frames of one stream, then how it ended.
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

/// What the frames of a stream are made from.
#[derive(Debug)]
pub(super) struct FrameSource {
    pub(super) published: watch::Receiver<Arc<State>>,
    /// Rings after something was published.
    pub(super) bell: Bell,
    pub(super) shelf: Arc<Shelf>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) heartbeat: Duration,
}

/// How a stream begins.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) welcome: Frame,
    pub(super) follower: Follower,
    /// The checks that a router is asked for.
    pub(super) orders: Option<mpsc::Receiver<CheckOrder>>,
}

/// What the keeper tells the maker of the frames.
#[derive(Debug, Default)]
pub(super) struct Orders {
    turn: StartTurn,
    /// How many bookmarks have come due so far.
    beats: u64,
    goodbye: Option<Goodbye>,
    /// The keeper has ended, and so.
    pub(super) end: Option<Result<(), FeedError>>,
}

/// The turn to begin a snapshot, or a delta where many are: the newest that was given.
#[derive(Debug, Clone, Copy, Default)]
struct StartTurn {
    /// Turns are counted from 1.
    number: u64,
    /// Whether it can be taken now. One that is not taken in time is over.
    is_open: bool,
}

impl StartTurn {
    /// Whether this very turn can be taken now.
    const fn is_of(self, number: u64) -> bool {
        self.is_open && self.number == number
    }
}

/// What the maker tells the keeper.
#[derive(Debug, Default)]
struct MakerProgress {
    /// How many frames the transport has taken. No bell is rung for it.
    taken: u64,
    /// The turn that was asked for last.
    asked: u64,
    /// The turn that was used last: all that it was for was sent.
    used: u64,
    /// The stream cannot go on, and is to end so.
    lost: Option<Goodbye>,
}

/// The keeper's end of a stream.
#[derive(Debug)]
pub(super) struct Line {
    begin: oneshot::Sender<StreamStart>,
    orders: watch::Sender<Orders>,
    progress: watch::Receiver<MakerProgress>,
}

impl Line {
    /// Resolves when the reader has gone.
    pub(super) async fn closed(&mut self) {
        while self.progress.changed().await.is_ok() {}
    }
}

/// A stream, the end of it where its keeper is, and where is told how the keeper ended.
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

/// Makes frames, one when the transport asks for it.
#[derive(Debug)]
struct Maker {
    source: FrameSource,
    orders: watch::Receiver<Orders>,
    progress: watch::Sender<MakerProgress>,
    /// `None`: it has come.
    begins: Option<oneshot::Receiver<StreamStart>>,
    /// `None`: the stream has not begun, or cannot go on.
    follower: Option<Follower>,
    /// The checks that a router is asked for. `None`: it never is, or no longer.
    checks: Option<mpsc::Receiver<CheckOrder>>,
    /// The next of them.
    due: Option<CheckOrder>,
    /// How many bookmarks that were due have been made.
    beats: u64,
    /// The turn that was asked for last.
    asked: u64,
    /// What that turn was for is under way.
    is_running: bool,
    /// The first time that there is nothing else to send, a bookmark tells the follower at once that it is up to date.
    has_caught_up: bool,
    /// Its last word was said: a goodbye, or why it ends.
    is_over: bool,
}

/// Why there is no frame now.
enum Hold {
    /// Something new, an order, or this time has to come first.
    Until(Option<Instant>),
    /// It cannot go on: what would come next is no longer kept, or is of another life of the store.
    Lost(Goodbye),
}

impl Maker {
    /// The next frame; `None` when the stream has ended in order.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the stream where it is, perhaps within a delta: what was sent stands, nothing is sent twice.
    async fn next(&mut self) -> Option<Result<Frame, FeedError>> {
        if let Some(begins) = &mut self.begins {
            let begin = begins.await;
            self.begins = None;
            // Without a beginning there is an end only.
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
            // An end is looked for first, or a stream that always has something to send would never end.
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
                    // Behind the configuration as far as it can be sent now: a check finds what was written before it.
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
                    // The keeper is gone without a word, so this must not look like an end in order.
                    self.is_over = true;
                    return Some(Err(FeedError::Broken));
                },
                rung = self.source.bell.rung(), if is_following => if rung.is_err() {
                    // Nothing will ever change again: the writer has stopped.
                    self.lose(DRAIN);
                },
                order = next_order(&mut self.checks), if may_check => match order {
                    // When it is late, whoever asked has given up.
                    Some(order) => self.due = Some(order).filter(|order| order.until > Instant::now()),
                    None => self.checks = None,
                },
                () = until(wake), if wake.is_some() => {}
            }
        }
    }

    /// The frame that comes next by the newest state.
    fn make(&mut self, turn: StartTurn, beats: u64) -> Result<Frame, Hold> {
        let Some(follower) = &mut self.follower else {
            return Err(Hold::Until(None));
        };
        // In this order: what is published after the look rings again.
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

    /// Asks for the next turn, unless one that was asked for is still to be given. One that is over without having been
    /// taken is asked for again only here, and so by a reader that reads.
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
