//! Tests of how followers see a new life of the store.

use switchboard::names::Revision;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_life_disconnects_all_followers_at_once_and_gives_them_a_snapshot() {
    let bench = Bench::new();
    let before = bench.history.cursor_at(2, View::Router);
    let mut watcher = bench.watcher().await;
    let (mut router, _) = Router::with(&bench, before).await;
    let ahead = Cursor {
        revision: before.revision.next(),
        ..before
    };
    let (mut withheld, mode) = Router::with(&bench, ahead).await;
    assert_eq!(mode, WelcomeMode::Withheld(WithheldWhy::Ahead));
    let start = Instant::now();
    bench.history.begin_life(None);
    for frames in [&mut watcher, &mut router.down, &mut withheld.down] {
        let goodbye = goodbye(frames).await;
        assert_eq!((goodbye.why, goodbye.min_wait), (GoodbyeWhy::Moved, Duration::ZERO));
        assert!(goodbye.spread > Duration::ZERO);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);

    for cursor in [before, ahead] {
        let (_router, mode) = Router::with(&bench, cursor).await;
        assert_eq!(mode, WelcomeMode::Snapshot(SnapshotWhy::Fork));
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_about_the_earlier_life_breaks_no_rule() {
    let bench = Bench::new();
    let before = bench.history.cursor_at(2, View::Router);
    let (mut router, _) = Router::with(&bench, before).await;
    bench.history.begin_life(Some(StoreId::random()));
    let report = Report {
        received: Some(before),
        ..Report::default()
    };
    router.say(RouterMessage::Report(report)).await;
    assert_eq!(goodbye(&mut router.down).await.why, GoodbyeWhy::Moved);
    assert!(router.down.next().await.is_none(), "the stream ends with OK");
}

#[tokio::test(start_paused = true)]
async fn a_withheld_router_is_counted_and_its_cursor_is_recorded() {
    let bench = Bench::new();
    let withheld = bench.feed.withheld();
    let is_accepted = withheld.is_accepted();
    let newer = Cursor {
        revision: Revision::new(90).unwrap(),
        ..bench.history.cursor_at(2, View::Router)
    };
    let (router, _) = Router::with(&bench, newer).await;
    assert_eq!((*is_accepted.borrow(), withheld.connected()), (false, 1));
    assert_eq!(withheld.seen().revision(), newer.revision);
    drop(router);
    assert!(bench.ended().await < MINUTE);
    assert_eq!((*is_accepted.borrow(), withheld.connected()), (true, 0));
    assert_eq!(
        withheld.seen().revision(),
        newer.revision,
        "the mark is kept for the next life"
    );
}
