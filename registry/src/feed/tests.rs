use std::pin::pin;

use futures_util::StreamExt as _;
use switchboard::{
    history::Cursor,
    names::{InstanceId, StoreId},
};
use tokio::{
    sync::mpsc,
    time::{Instant, advance, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    frame::{Bookmark, Goodbye, GoodbyeWhy},
    testing::{History, Mirror},
    welcome::{SnapshotWhy, WithheldWhy},
    *,
};
use crate::fleet::report::{Message, Report, RouterId};

const HEARTBEAT: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);

/// A feed with its surroundings.
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

    /// A watcher that has everything.
    async fn watcher(&self) -> Frames {
        let at = self.history.state().items.cursor(View::Config);
        let mut frames = self.feed.watch(Resume::At(at), false).unwrap();
        let welcome = welcome(&mut frames).await;
        assert_eq!(welcome.mode, Mode::Resumed(at));
        assert_eq!(bookmark(&mut frames).await.at, Some(at));
        frames
    }

    /// How long until all streams have ended by themselves.
    async fn ended(&self) -> Duration {
        let start = Instant::now();
        self.tasks.close();
        timeout(60 * MINUTE, self.tasks.wait()).await.unwrap();
        start.elapsed()
    }
}

/// A router that says what the test tells it to.
struct Router {
    up: mpsc::Sender<Result<Message, UplinkError>>,
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
        router.say(Message::Hello(hello)).await;
        router
    }

    /// One that is welcomed with what it has, and has read so.
    async fn with(bench: &Bench, resume: Cursor) -> (Self, Mode) {
        let mut router = Self::join(bench, hello(Resume::At(resume))).await;
        let mode = welcome(&mut router.down).await.mode;
        (router, mode)
    }

    async fn say(&self, message: Message) {
        self.up.send(Ok(message)).await.unwrap();
    }

    /// What the stream ends with, if not in order.
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
        build: "1".into(),
        resume,
        want_snapshot: false,
    }
}

fn received(cursor: Cursor) -> Message {
    Message::Report(Report {
        received: Some(cursor),
        ..Report::default()
    })
}

async fn frame(frames: &mut Frames) -> Frame {
    frames.next().await.unwrap().unwrap()
}

async fn welcome(frames: &mut Frames) -> Welcome {
    match frame(frames).await {
        Frame::Welcome { welcome, heartbeat } => {
            assert_eq!(heartbeat, HEARTBEAT);
            welcome
        }
        other => panic!("{other:?}"),
    }
}

async fn bookmark(frames: &mut Frames) -> Bookmark {
    match frame(frames).await {
        Frame::Bookmark(bookmark) => bookmark,
        other => panic!("{other:?}"),
    }
}

/// Reads up to the goodbye, past which the stream must end in order.
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

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_a_snapshot_a_bookmark_and_every_change() {
    let bench = Bench::new();
    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    assert_eq!(welcome(&mut frames).await.mode, Mode::Snapshot(SnapshotWhy::First));
    let mut mirror = Mirror::default();
    for _ in 0..3 {
        mirror.apply(&frame(&mut frames).await);
    }
    mirror.assert_equals(&bench.history.state(), View::Config);
    let start = Instant::now();
    assert_eq!(bookmark(&mut frames).await.at, mirror.at());
    bench.history.commit([("models/b", 1)]);
    mirror.apply(&frame(&mut frames).await);
    mirror.assert_equals(&bench.history.state(), View::Config);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_without_snapshot_and_cursor_gets_only_what_is_new() {
    let bench = Bench::new();
    let mut frames = bench.feed.watch(Resume::Nothing, false).unwrap();
    welcome(&mut frames).await;
    assert_eq!(
        bookmark(&mut frames).await.at,
        Some(bench.history.cursor_at(2, View::Config))
    );
    bench.history.commit([("models/b", 1)]);
    let Frame::Delta(delta) = frame(&mut frames).await else {
        panic!("a change comes as a delta")
    };
    assert_eq!((delta.from.get(), delta.upserts.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_needs_the_snapshot_that_was_refused_fails_the_call() {
    let bench = Bench::new();
    let mut cursor = bench.history.cursor_at(2, View::Config);
    cursor.store = StoreId::random();
    let error = bench.feed.watch(Resume::At(cursor), false).unwrap_err();
    assert!(
        matches!(error, FeedError::Resume(ResumeError::OtherHistory { .. })),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_comes_every_heartbeat_and_tells_when_the_writer_is_stuck() {
    let bench = Bench::new();
    let mut frames = bench.watcher().await;
    for probe in 2..10 {
        let start = Instant::now();
        let bookmark = bookmark(&mut frames).await;
        assert!(is_about(start.elapsed(), HEARTBEAT), "{:?}", start.elapsed());
        assert_eq!((bookmark.probe, bookmark.stalled), (probe, false));
    }
    bench.pulse.begin();
    bookmark(&mut frames).await;
    assert!(bookmark(&mut frames).await.stalled);
    bench.pulse.end();
    assert!(!bookmark(&mut frames).await.stalled);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_amid_a_snapshot_that_is_read_slowly() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|id| format!("models/{id}")).collect();
    bench.history.commit(names.iter().map(|name| (&**name, 60_000)));
    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    let mut early = 0;
    loop {
        advance(HEARTBEAT / 4).await;
        match frame(&mut frames).await {
            Frame::Bookmark(bookmark) => {
                assert_eq!(bookmark.at, None);
                early += 1;
            }
            Frame::SnapshotEnd { .. } => break,
            _ => {}
        }
    }
    assert!(early >= 3, "{early}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_rotates_at_about_half_an_hour() {
    let bench = Bench::new();
    let start = Instant::now();
    let mut frames = bench.watcher().await;
    let goodbye = goodbye(&mut frames).await;
    assert_eq!((goodbye.why, goodbye.min_wait), (GoodbyeWhy::Rotation, Duration::ZERO));
    assert!(is_about(start.elapsed(), 30 * MINUTE), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_all_streams_say_goodbye() {
    let bench = Bench::new();
    let mut watcher = bench.watcher().await;
    let (mut router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    bench.shutdown.cancel();
    for frames in [&mut watcher, &mut router.down] {
        let goodbye = goodbye(frames).await;
        assert_eq!(goodbye.why, GoodbyeWhy::Drain);
        assert!(goodbye.spread > Duration::ZERO);
    }
    assert_eq!(bench.ended().await, Duration::ZERO);
    assert_eq!(
        bench.feed.watch(Resume::Nothing, true).unwrap_err(),
        FeedError::Draining
    );
    let late = Router::join(&bench, hello(Resume::Nothing)).await;
    let mut down = late.down;
    match down.next().await {
        Some(Err(error)) => assert_eq!(error, FeedError::Draining),
        // The hello may be taken before the shutdown is seen: then the stream has a welcome before its goodbye.
        Some(Ok(Frame::Welcome { .. })) => assert_eq!(goodbye(&mut down).await.why, GoodbyeWhy::Drain),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_gone_ends_the_streams() {
    let bench = Bench::new();
    let mut frames = bench.watcher().await;
    drop(bench.history);
    assert_eq!(goodbye(&mut frames).await.why, GoodbyeWhy::Drain);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_off_and_can_resume() {
    let bench = Bench::new();
    let mut frames = bench.watcher().await;
    for _ in 0..100 {
        bench.history.commit([("models/b", 1)]);
    }
    let took = bench.ended().await;
    assert!((5 * MINUTE..6 * MINUTE).contains(&took), "{took:?}");
    let mut mirror = Mirror::default();
    let mut queued = 0;
    let end = loop {
        match frames.next().await.unwrap() {
            Ok(_) => queued += 1,
            Err(error) => break error,
        }
    };
    assert!(queued <= 2, "{queued}");
    assert_eq!(end, FeedError::TooSlow);
    assert!(frames.next().await.is_none());

    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    welcome(&mut frames).await;
    while mirror.at().is_none() {
        mirror.apply(&frame(&mut frames).await);
    }
    mirror.assert_equals(&bench.history.state(), View::Config);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_nobody_reads_is_given_up() {
    let bench = Bench::new();
    let mut frames = bench.watcher().await;
    // Both places of the queue are taken by bookmarks.
    advance(HEARTBEAT * 2).await;
    tokio::task::yield_now().await;
    bench.shutdown.cancel();
    let took = bench.ended().await;
    assert!(is_about(took, Duration::from_secs(1)), "{took:?}");
    let mut last = None;
    while let Some(frame) = frames.next().await {
        last = Some(frame);
    }
    assert_eq!(last.unwrap().unwrap_err(), FeedError::TooSlow);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_holds_up_nobody_else() {
    let bench = Bench::new();
    let _stalled = bench.watcher().await;
    let mut frames = bench.watcher().await;
    for _ in 0..10 {
        bench.history.commit([("models/b", 1)]);
        let start = Instant::now();
        let Frame::Delta(delta) = frame(&mut frames).await else {
            panic!("a change comes as a delta")
        };
        assert_eq!(delta.to, bench.history.state().items.cursor(View::Config));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_ends_its_stream() {
    let bench = Bench::new();
    let (router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    let Router { up, down } = router;
    drop((down, bench.watcher().await));
    assert_eq!(bench.ended().await, Duration::ZERO);
    drop(up);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_fails_does_not_look_like_an_end_in_order() {
    let (outlet, ended, mut frames) = Frames::channel();
    drop((outlet, ended));
    assert_eq!(frames.next().await.unwrap().unwrap_err(), FeedError::Broken);
    assert!(frames.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn watchers_are_limited() {
    let bench = Bench::new();
    let mut watchers: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| bench.feed.watch(Resume::Nothing, true).unwrap())
        .collect();
    let refused = bench.feed.watch(Resume::Nothing, true).unwrap_err();
    assert_eq!(refused, FeedError::TooManyWatchers);
    watchers.clear();
    assert_eq!(bench.ended().await, Duration::ZERO);
    assert!(bench.feed.watch(Resume::Nothing, true).is_ok());
}

#[tokio::test(start_paused = true)]
async fn hello_comes_first_once_and_soon() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);

    let start = Instant::now();
    let late = Router::silent(&bench).end().await;
    assert_eq!(late, Some(UplinkError::HelloLate.into()));
    assert_eq!(start.elapsed(), Duration::from_secs(5));

    let router = Router::silent(&bench);
    router.say(received(at)).await;
    assert_eq!(router.end().await, Some(UplinkError::HelloMissing.into()));

    let (router, _) = Router::with(&bench, at).await;
    router.say(Message::Hello(hello(Resume::Nothing))).await;
    assert_eq!(router.end().await, Some(UplinkError::HelloAgain.into()));

    let Router { up, mut down } = Router::silent(&bench);
    drop(up);
    assert!(down.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_router_that_falls_silent_is_closed_after_two_and_a_half_heartbeats() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let (router, _) = Router::with(&bench, at).await;
    advance(HEARTBEAT * 2).await;
    router.say(received(at)).await;
    let start = Instant::now();
    assert_eq!(router.end().await, Some(UplinkError::Silent.into()));
    assert!(
        is_about(start.elapsed(), HEARTBEAT.mul_f64(2.5)),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(bench.fleet.reports(), []);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_leaves_in_order_ends_its_stream_in_order() {
    let bench = Bench::new();
    let (router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    assert_eq!(bench.fleet.reports().len(), 1);
    let Router { up, mut down } = router;
    drop(up);
    while let Some(frame) = down.next().await {
        assert!(frame.is_ok(), "{frame:?}");
    }
    assert_eq!(bench.ended().await, Duration::ZERO);
    assert_eq!(bench.fleet.reports(), []);
}

#[tokio::test(start_paused = true)]
async fn a_report_must_be_of_this_history() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let mut foreign = at;
    foreign.revision = foreign.revision.next();

    let (router, _) = Router::with(&bench, at).await;
    router.say(received(at)).await;
    router.say(received(foreign)).await;
    let field = "report.received";
    assert_eq!(router.end().await, Some(UplinkError::ForeignCursor { field }.into()));

    let (router, _) = Router::with(&bench, at).await;
    let report = Report {
        applied: Some(foreign),
        ..Report::default()
    };
    router.say(Message::Report(report)).await;
    let field = "report.applied";
    assert_eq!(router.end().await, Some(UplinkError::ForeignCursor { field }.into()));
}

#[tokio::test(start_paused = true)]
async fn a_withheld_router_is_heard_but_gets_bookmarks_only() {
    let bench = Bench::new();
    let mut foreign = bench.history.cursor_at(2, View::Router);
    foreign.store = StoreId::random();
    let (mut router, mode) = Router::with(&bench, foreign).await;
    assert_eq!(mode, Mode::Withheld(WithheldWhy::OtherStore));
    for _ in 0..4 {
        bench.history.commit([("models/b", 1)]);
        router.say(received(foreign)).await;
        assert_eq!(bookmark(&mut router.down).await.at, None);
    }
    assert_eq!(bench.fleet.reports()[0].received, Some(foreign));
}

#[tokio::test(start_paused = true)]
async fn reports_are_taken_in_although_the_router_does_not_read() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let (router, _) = Router::with(&bench, at).await;
    for held_total in 1..=1_000 {
        bench.history.commit([("models/b", 1)]);
        let report = Report {
            held_total,
            ..Report::default()
        };
        router.say(Message::Report(report)).await;
    }
    // The queue upwards has one place: all but the last have been taken in when it is free again.
    let _room = router.up.reserve().await.unwrap();
    assert!(bench.fleet.reports()[0].held_total >= 999);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_reconnects_resumes_and_its_older_stream_ends_in_order() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let greeting = hello(Resume::At(at));
    let mut older = Router::join(&bench, greeting.clone()).await;
    welcome(&mut older.down).await;
    bench.history.commit([("models/b", 1)]);
    let mut newer = Router::join(&bench, greeting).await;
    assert_eq!(welcome(&mut newer.down).await.mode, Mode::Resumed(at));
    let Frame::Delta(delta) = frame(&mut newer.down).await else {
        panic!("what was missed comes as a delta")
    };
    assert_eq!(
        (delta.from, delta.to),
        (at.revision, bench.history.cursor_at(3, View::Router))
    );
    assert_eq!(goodbye(&mut older.down).await.why, GoodbyeWhy::Rotation);
    assert_eq!(bench.fleet.reports().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_ends_the_stream_with_what_is_wrong() {
    let bench = Bench::new();
    let (router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    router.up.send(Err(UplinkError::UnknownMessage)).await.unwrap();
    let end = pin!(router.end()).await;
    assert_eq!(end, Some(UplinkError::UnknownMessage.into()));
}
