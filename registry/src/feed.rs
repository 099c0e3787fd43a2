//! The change stream: a snapshot, then every change, for all followers.
//!
//! The feed only reads the published state and keeps nothing per follower except a cursor. Each message is encoded once
//! and shared by all followers that need it. The feed does not know how states are made, nor what they mean.

mod bells;
pub mod credential;
pub mod follower;
pub mod frame;
pub mod run;
pub mod shelf;
pub mod stream;
pub mod welcome;
pub mod withheld;

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use switchboard::{
    history::View,
    stream::{Hello, Resume, Welcome, WelcomeMode},
};
use tokio::{
    select,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Span};

use self::{
    bells::Bells,
    follower::Follower,
    frame::Frame,
    shelf::Shelf,
    stream::{FrameSource, Frames, Keeper, Line, StreamStart},
    welcome::ResumeError,
    withheld::Withheld,
};
use crate::{
    domain::state::State,
    fleet::{
        Fleet, FleetFull,
        uplink::{self, Messages, UplinkError},
    },
    pulse::Pulse,
};

/// Maximum number of concurrent watchers. Watchers are people and dashboards; further ones are refused to leave room
/// for routers.
const WATCHERS_MAX: usize = 1_024;

/// Why a stream is refused, or ends abnormally.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The stream cannot resume from the cursor without a snapshot.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The router broke a rule of the protocol.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// Too many routers are connected.
    #[error(transparent)]
    FleetFull(#[from] FleetFull),
    /// Too many watchers are connected.
    #[error("the maximum of {WATCHERS_MAX} watchers is already connected")]
    TooManyWatchers,
    /// The client does not read the stream.
    #[error("the client does not read the stream")]
    TooSlow,
    /// The registry is shutting down.
    #[error("the registry is shutting down")]
    Draining,
    /// The stream's task failed.
    #[error("the stream failed unexpectedly")]
    Broken,
}

/// Serves streams of the published state.
#[derive(Debug, Clone)]
pub struct Feed {
    published: watch::Receiver<Arc<State>>,
    bells: Bells,
    shelf: Arc<Shelf>,
    pulse: Arc<Pulse>,
    fleet: Arc<Fleet>,
    withheld: Arc<Withheld>,
    heartbeat: Duration,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    watchers: Arc<Semaphore>,
}

impl Feed {
    /// Creates a feed of the published states.
    ///
    /// A stream carries a bookmark every `heartbeat`, plus or minus 10 %. Each stream runs as a task of `tasks`. Within
    /// about a second after `shutdown` is cancelled, every stream has sent its goodbye or given up.
    #[must_use]
    pub fn new(
        published: watch::Receiver<Arc<State>>,
        pulse: Arc<Pulse>,
        fleet: Arc<Fleet>,
        heartbeat: Duration,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            bells: Bells::new(published.clone()),
            published,
            shelf: Arc::default(),
            pulse,
            fleet,
            withheld: Arc::default(),
            heartbeat,
            tasks,
            shutdown,
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        }
    }

    /// Returns the newest published state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.borrow())
    }

    /// Returns a receiver of the published states.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Arc<State>> {
        self.published.clone()
    }

    /// Returns the connected routers.
    #[must_use]
    pub const fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Returns the token that is cancelled when the registry shuts down.
    #[must_use]
    pub const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Returns the number of connected routers.
    #[must_use]
    pub fn routers(&self) -> usize {
        self.fleet.size()
    }

    /// Returns the routers that get no configuration.
    #[must_use]
    pub fn withheld(&self) -> Arc<Withheld> {
        Arc::clone(&self.withheld)
    }

    /// Returns the number of connected watchers.
    #[must_use]
    pub fn watchers(&self) -> usize {
        WATCHERS_MAX - self.watchers.available_permits()
    }

    /// Starts a stream for a watcher.
    ///
    /// # Errors
    ///
    /// [`FeedError`] if the stream cannot begin: the cursor needs a snapshot although `include_snapshot` is false, too
    /// many watchers are connected, or the registry is shutting down.
    pub fn watch(&self, resume: Resume, include_snapshot: bool) -> Result<Frames, FeedError> {
        if self.shutdown.is_cancelled() {
            return Err(FeedError::Draining);
        }
        let permit = Arc::clone(&self.watchers)
            .try_acquire_owned()
            .map_err(|_none_left| FeedError::TooManyWatchers)?;
        let state = self.state();
        let mode = welcome::for_watcher(resume, include_snapshot, &state.items)?;
        let keeper = self.keeper(CancellationToken::new());
        let begin = self.begin(resume, mode, &state, View::Config);
        Ok(self.spawn(async move |line| {
            let _permit = permit;
            keeper.run(begin, line).await
        }))
    }

    /// Starts a stream for the router that sends `messages`. Errors are reported at the end of the stream.
    #[must_use]
    pub fn subscribe(&self, messages: Messages) -> Frames {
        let feed = self.clone();
        self.spawn(async move |line| feed.serve(messages, line).await)
    }

    async fn serve(self, mut messages: Messages, mut line: Line) -> Result<(), FeedError> {
        let hello = select! {
            biased;
            hello = uplink::greeting(&mut messages) => hello?,
            () = self.shutdown.cancelled() => return Err(FeedError::Draining),
            () = line.closed() => None,
        };
        let Some(hello) = hello else {
            return Ok(());
        };
        let Hello {
            resume, want_snapshot, ..
        } = hello;
        let state = self.state();
        let mode = welcome::for_router(resume, want_snapshot, &state.items);
        let mut member = self.fleet.join(hello, mode)?;
        let _withheld = match mode {
            WelcomeMode::Withheld(why) => Some(self.withheld.enter(why, resume)),
            WelcomeMode::Resumed | WelcomeMode::Snapshot(_) => None,
        };
        let is_judged = !matches!(mode, WelcomeMode::Withheld(_));
        let silence_max = self.heartbeat.mul_f64(2.5);
        let begin = StreamStart {
            orders: member.orders(),
            ..self.begin(resume, mode, &state, View::Router)
        };
        let keeper = self.keeper(member.replaced());
        // Neither side waits for the other. The first to end ends the stream.
        select! {
            biased;
            end = keeper.run(begin, line) => end,
            end = uplink::listen(&mut messages, &member, &self.published, is_judged, silence_max) => {
                end?;
                member.leave();
                Ok(())
            }
        }
    }

    /// Prepares the start of a stream whose cursor was checked against `state`.
    fn begin(&self, resume: Resume, mode: WelcomeMode, state: &State, view: View) -> StreamStart {
        let welcome = Welcome {
            head: state.items.cursor(view),
            oldest_resumable: state.items.oldest_resumable(),
            heartbeat: self.heartbeat,
            mode,
        };
        StreamStart {
            welcome: Frame::Welcome(welcome),
            follower: Follower::new(view, resume, &welcome),
            orders: None,
        }
    }

    fn keeper(&self, replaced: CancellationToken) -> Keeper {
        Keeper {
            shelf: Arc::clone(&self.shelf),
            heartbeat: self.heartbeat,
            shutdown: self.shutdown.clone(),
            replaced,
        }
    }

    /// Runs the keeper of a stream in a new task. The task is best effort: if it fails, the follower reconnects.
    fn spawn<Keeping>(&self, keep: impl FnOnce(Line) -> Keeping) -> Frames
    where
        Keeping: Future<Output = Result<(), FeedError>> + Send + 'static,
    {
        let source = FrameSource {
            published: self.published.clone(),
            bell: self.bells.next(),
            shelf: Arc::clone(&self.shelf),
            pulse: Arc::clone(&self.pulse),
            heartbeat: self.heartbeat,
        };
        let (line, orders, frames) = stream::channel(source);
        let keeping = keep(line);
        let task = async move {
            let end = keeping.await;
            match &end {
                // A broken connection is reported as unreadable too, and is not worth a warning.
                Ok(()) | Err(FeedError::Uplink(UplinkError::Unreadable)) => {}
                Err(error) => tracing::warn!(%error, "a change stream ended with an error"),
            }
            orders.send_modify(|orders| orders.end = Some(end));
        };
        self.tasks.spawn(task.instrument(Span::current()));
        frames
    }
}
