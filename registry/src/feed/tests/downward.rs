//! Tests of the registry's guarantees to every follower.

use futures_util::FutureExt as _;
use switchboard::names::ModelName;

use super::*;
use crate::fleet::check::CheckedModel;

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_a_snapshot_a_bookmark_and_every_change() {
    let bench = Bench::new();
    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    assert_eq!(
        welcome(&mut frames).await.mode,
        WelcomeMode::Snapshot(SnapshotWhy::First)
    );
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
async fn a_watcher_without_snapshot_and_cursor_gets_only_new_changes() {
    let bench = Bench::new();
    let mut frames = bench.feed.watch(Resume::Nothing, false).unwrap();
    welcome(&mut frames).await;
    assert_eq!(
        bookmark(&mut frames).await.at,
        Some(bench.history.cursor_at(2, View::Config))
    );
    bench.history.commit([("models/b", 1)]);
    let delta = delta(&mut frames).await;
    assert_eq!((delta.from_revision, delta.upserts.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_needs_a_snapshot_fails_a_call_without_snapshot() {
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
async fn a_bookmark_is_sent_every_heartbeat_and_reports_a_stalled_writer() {
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
async fn bookmarks_are_sent_during_a_snapshot_that_is_read_slowly() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|id| format!("models/{id}")).collect();
    bench.history.commit(names.iter().map(|name| (&**name, 60_000)));
    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    welcome(&mut frames).await;
    let mut early = 0;
    loop {
        advance(HEARTBEAT / 4).await;
        match frame(&mut frames).await {
            Frame::Bookmark(bookmark) => {
                assert_eq!(bookmark.at, None);
                early += 1;
            }
            frame if matches!(content(&frame), Kind::SnapshotEnd(_)) => break,
            _ => {}
        }
    }
    assert!(early >= 3, "{early}");
    // The follower still learns at once that it is up to date.
    let start = Instant::now();
    assert_eq!(
        bookmark(&mut frames).await.at,
        Some(bench.history.cursor_at(3, View::Config))
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
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
async fn at_shutdown_all_streams_end_with_a_goodbye() {
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
        // If the hello is read before the shutdown is noticed, the stream has a welcome before its goodbye.
        Some(Ok(Frame::Welcome(_))) => assert_eq!(goodbye(&mut down).await.why, GoodbyeWhy::Drain),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_writer_ends_the_streams() {
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

    let at = bench.history.cursor_at(2, View::Config);
    let mut frames = bench.feed.watch(Resume::At(at), false).unwrap();
    welcome(&mut frames).await;
    let delta = delta(&mut frames).await;
    let to = bench.history.cursor_at(102, View::Config);
    assert_eq!((delta.from_revision, delta.to), (2, Some((&to).into())));
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_wait_long_for_an_unread_goodbye() {
    // Without and with messages that were not read before the goodbye.
    for commits in [0, 3] {
        let bench = Bench::new();
        let mut frames = bench.watcher().await;
        for _ in 0..commits {
            bench.history.commit([("models/b", 1)]);
            tokio::task::yield_now().await;
        }
        bench.shutdown.cancel();
        let took = bench.ended().await;
        assert!(is_about(took, Duration::from_secs(1)), "{took:?}");
        let mut last = None;
        while let Some(frame) = frames.next().await {
            last = Some(frame);
        }
        assert_eq!(last.unwrap().unwrap_err(), FeedError::TooSlow);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_does_not_delay_others() {
    let bench = Bench::new();
    let _stalled = bench.watcher().await;
    let mut frames = bench.watcher().await;
    for _ in 0..10 {
        bench.history.commit([("models/b", 1)]);
        let start = Instant::now();
        let delta = delta(&mut frames).await;
        let head = bench.history.state().items.cursor(View::Config);
        assert_eq!(delta.to, Some((&head).into()));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_disconnects_ends_its_stream() {
    let bench = Bench::new();
    let (router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    let Router { up, down } = router;
    drop((down, bench.watcher().await));
    assert_eq!(bench.ended().await, Duration::ZERO);
    drop(up);
}

#[tokio::test(start_paused = true)]
async fn a_failed_keeper_does_not_look_like_a_normal_end() {
    let bench = Bench::new();
    let mut frames = bench.feed.spawn(async move |_line| panic!("a bug"));
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
async fn a_follower_below_the_floor_is_disconnected_and_gets_a_snapshot_when_it_returns() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Config);
    let mut frames = bench.watcher().await;
    // Both happen at once: the stream only sees the state that is published last.
    bench.history.delete(["models/a"]);
    bench.history.compact(3);
    let goodbye = goodbye(&mut frames).await;
    assert_eq!(goodbye.why, GoodbyeWhy::TooSlow);
    assert!(goodbye.min_wait > Duration::ZERO && goodbye.spread > Duration::ZERO);
    let mut frames = bench.feed.watch(Resume::At(at), true).unwrap();
    assert_eq!(
        welcome(&mut frames).await.mode,
        WelcomeMode::Snapshot(SnapshotWhy::Compacted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_snapshot_was_dropped_is_disconnected() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|id| format!("models/{id}")).collect();
    bench.history.commit(names.iter().map(|name| (&**name, 60_000)));
    let mut slow = bench.feed.watch(Resume::Nothing, true).unwrap();
    welcome(&mut slow).await;
    frame(&mut slow).await;
    let mut others = Vec::new();
    for _ in 0..RUNS_KEPT {
        bench.history.commit([("models/b", 1)]);
        advance(READ_WITHIN).await;
        let mut other = bench.feed.watch(Resume::Nothing, true).unwrap();
        welcome(&mut other).await;
        frame(&mut other).await;
        others.push(other);
    }
    assert_eq!(goodbye(&mut slow).await.why, GoodbyeWhy::TooSlow);
    // The other readers continue.
    let mut mirror = Mirror::default();
    let mut fresh = bench.feed.watch(Resume::Nothing, true).unwrap();
    while mirror.at() != Some(bench.history.state().items.cursor(View::Config)) {
        mirror.apply(&frame(&mut fresh).await);
    }
    mirror.assert_equals(&bench.history.state(), View::Config);
}

#[tokio::test(start_paused = true)]
async fn readers_that_request_a_turn_and_do_not_read_delay_others_only_for_seconds() {
    let bench = Bench::new();
    let names: Vec<String> = (0..20).map(|id| format!("models/{id}")).collect();
    bench.history.commit(names.iter().map(|name| (&**name, 60_000)));
    let mut stalled: Vec<_> = (0..STARTS)
        .map(|_| bench.feed.watch(Resume::Nothing, true).unwrap())
        .collect();
    for frames in &mut stalled {
        welcome(frames).await;
        assert!(
            frame(frames).now_or_never().is_none(),
            "the reader has to wait for its turn"
        );
    }
    tokio::task::yield_now().await;
    let mut frames = bench.feed.watch(Resume::Nothing, true).unwrap();
    welcome(&mut frames).await;
    let begin = Instant::now();
    let mut mirror = Mirror::default();
    while mirror.at().is_none() {
        mirror.apply(&frame(&mut frames).await);
    }
    assert!(
        begin.elapsed() <= READ_WITHIN + Duration::from_millis(2),
        "{:?}",
        begin.elapsed()
    );
    assert!(begin.elapsed() > Duration::ZERO, "all turns are taken");
}

#[tokio::test(start_paused = true)]
async fn followers_at_many_cursors_do_not_wait_for_stalled_ones() {
    let bench = Bench::new();
    let place = || bench.history.state().items.cursor(View::Config);
    let mut places = Vec::new();
    for _ in 0..3 * STARTS {
        places.push(place());
        bench.history.commit([("models/b", 1)]);
    }
    let names: Vec<String> = (0..5).map(|id| format!("models/{id}")).collect();
    bench.history.commit(names.iter().map(|name| (&**name, 60_000)));
    let head = place();
    let follow = |at: &Cursor| bench.feed.watch(Resume::At(*at), false).unwrap();

    let (stalled, reading) = places.split_at(STARTS / 2);
    let _stalled: Vec<_> = stalled.iter().map(follow).collect();
    tokio::task::yield_now().await;
    let begin = Instant::now();
    let read = reading.iter().map(async |at| {
        let mut frames = follow(at);
        welcome(&mut frames).await;
        loop {
            let delta = delta(&mut frames).await;
            assert_eq!(delta.to, Some((&head).into()));
            if !delta.more {
                break;
            }
        }
    });
    futures_util::future::join_all(read).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_check_is_sent_after_earlier_writes_and_never_after_its_deadline() {
    let bench = Bench::new();
    let (mut router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    bookmark(&mut router.down).await;
    let fleet = bench.feed.fleet();
    let key = fleet.routers(None, 1).remove(0).key;
    let ask = |within: Duration| {
        let target = CheckedModel::Registered(ModelName::parse("models/b").unwrap());
        fleet.ask(&key, target, None, Instant::now() + within).unwrap()
    };
    bench.history.commit([("models/b", 1)]);
    let _asking = ask(Duration::from_secs(1));
    let delta = delta(&mut router.down).await;
    assert_eq!(delta.upserts[0].name, "models/b");
    let order = frame(&mut router.down).await;
    assert!(
        matches!(&order, Frame::Check(order) if order.credential.is_none()),
        "{order:?}"
    );

    let _late = ask(Duration::from_secs(1));
    advance(Duration::from_secs(2)).await;
    let next = frame(&mut router.down).await;
    assert!(matches!(next, Frame::Bookmark(_)), "{next:?}");
}
