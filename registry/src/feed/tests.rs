//! Tests of whole streams, on a paused clock that only advances when all tasks wait.

use futures_util::StreamExt as _;
use switchboard::{
    history::Cursor,
    names::{Group, InstanceId, RouterId, StoreId},
    pb::registry::{self, watch_response::Kind},
    stream::{Bookmark, Goodbye, GoodbyeWhy, Report, RouterMessage, RouterMessageError, SnapshotWhy, WithheldWhy},
};
use tokio::{
    sync::mpsc,
    time::{Instant, advance, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    shelf::{READ_WITHIN, RUNS_KEPT, STARTS},
    *,
};
use crate::testing::{History, Mirror, content};

mod downward;
mod lives;
mod upward;

const HEARTBEAT: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);

/// A feed and everything that it needs.
struct Bench {
    history: History,
    pulse: Arc<Pulse>,
    fleet: Arc<Fleet>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    feed: Feed,
}

impl Bench {
    fn new() -> Self {
        let history = History::with_revisions(2);
        let pulse = Arc::new(Pulse::default());
        let fleet = Arc::new(Fleet::default());
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let feed = Feed::new(
            history.published(),
            Arc::clone(&pulse),
            Arc::clone(&fleet),
            HEARTBEAT,
            tasks.clone(),
            shutdown.clone(),
        );
        Self {
            history,
            pulse,
            fleet,
            tasks,
            shutdown,
            feed,
        }
    }

    /// Starts a watcher that is up to date.
    async fn watcher(&self) -> Frames {
        let at = self.history.state().items.cursor(View::Config);
        let mut frames = self.feed.watch(Resume::At(at), false).unwrap();
        let welcome = welcome(&mut frames).await;
        assert_eq!(welcome.mode, WelcomeMode::Resumed);
        assert_eq!(bookmark(&mut frames).await.at, Some(at));
        frames
    }

    /// Returns the time until all streams have ended by themselves.
    async fn ended(&self) -> Duration {
        let start = Instant::now();
        self.tasks.close();
        timeout(60 * MINUTE, self.tasks.wait()).await.unwrap();
        start.elapsed()
    }
}

/// A router that sends the messages of the test.
struct Router {
    up: mpsc::Sender<Result<RouterMessage, UplinkError>>,
    down: Frames,
}

impl Router {
    fn silent(bench: &Bench) -> Self {
        let (up, messages) = mpsc::channel(1);
        let down = bench.feed.subscribe(ReceiverStream::new(messages).boxed());
        Self { up, down }
    }

    async fn join(bench: &Bench, hello: Hello) -> Self {
        let router = Self::silent(bench);
        router.say(RouterMessage::Hello(hello)).await;
        router
    }

    /// Connects a router with a cursor, and returns it with the mode of the welcome that it received.
    async fn with(bench: &Bench, resume: Cursor) -> (Self, WelcomeMode) {
        let mut router = Self::join(bench, hello(Resume::At(resume))).await;
        let mode = welcome(&mut router.down).await.mode;
        (router, mode)
    }

    async fn say(&self, message: RouterMessage) {
        self.up.send(Ok(message)).await.unwrap();
    }

    /// Returns the error with which the stream ends. `None`: it ended normally.
    async fn end(mut self) -> Option<FeedError> {
        loop {
            match self.down.next().await {
                None => return None,
                Some(Err(error)) => return Some(error),
                Some(Ok(_)) => {}
            }
        }
    }
}

fn hello(resume: Resume) -> Hello {
    Hello {
        router: RouterId::parse("router").unwrap(),
        instance: InstanceId::random(),
        group: Group::default(),
        build: "1".into(),
        can_check: true,
        resume,
        want_snapshot: false,
    }
}

fn received(cursor: Cursor) -> RouterMessage {
    RouterMessage::Report(Report {
        received: Some(cursor),
        ..Report::default()
    })
}

async fn frame(frames: &mut Frames) -> Frame {
    frames.next().await.unwrap().unwrap()
}

async fn welcome(frames: &mut Frames) -> Welcome {
    match frame(frames).await {
        Frame::Welcome(welcome) => {
            assert_eq!(welcome.heartbeat, HEARTBEAT);
            welcome
        }
        other => panic!("{other:?}"),
    }
}

async fn delta(frames: &mut Frames) -> registry::Delta {
    match content(&frame(frames).await) {
        Kind::Delta(delta) => delta,
        other => panic!("a change must arrive as a delta, not as {other:?}"),
    }
}

async fn bookmark(frames: &mut Frames) -> Bookmark {
    match frame(frames).await {
        Frame::Bookmark(bookmark) => bookmark,
        other => panic!("{other:?}"),
    }
}

/// Reads up to the goodbye, after which the stream must end normally.
async fn goodbye(frames: &mut Frames) -> Goodbye {
    loop {
        if let Frame::Goodbye(goodbye) = frame(frames).await {
            assert!(frames.next().await.is_none());
            return goodbye;
        }
    }
}

fn is_about(duration: Duration, expected: Duration) -> bool {
    let slack = expected.mul_f64(0.1) + Duration::from_millis(2);
    duration.abs_diff(expected) <= slack
}
