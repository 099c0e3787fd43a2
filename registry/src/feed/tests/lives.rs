//! A new life of the store, as those see it who follow.

use switchboard::names::Revision;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_life_sends_all_away_at_once_to_come_back_for_a_snapshot() {
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
async fn what_a_router_reports_of_the_life_before_breaks_no_rule() {
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
async fn a_router_that_is_withheld_from_is_shown_with_what_it_has_seen() {
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
        "remembered for the next life"
    );
}
