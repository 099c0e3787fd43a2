//! Tests of the rules for routers, and of the answers to them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_router_must_send_hello_first_once_and_in_time() {
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
    router.say(RouterMessage::Hello(hello(Resume::Nothing))).await;
    assert_eq!(router.end().await, Some(UplinkError::HelloAgain.into()));

    let Router { up, mut down } = Router::silent(&bench);
    drop(up);
    assert!(down.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_silent_router_ends_after_two_and_a_half_heartbeats() {
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
async fn a_router_that_ends_its_requests_gets_a_normal_end_of_its_stream() {
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
async fn a_report_must_fit_this_history() {
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
    router.say(RouterMessage::Report(report)).await;
    let field = "report.applied";
    assert_eq!(router.end().await, Some(UplinkError::ForeignCursor { field }.into()));
}

#[tokio::test(start_paused = true)]
async fn a_withheld_router_can_report_but_only_gets_bookmarks() {
    let bench = Bench::new();
    let mut foreign = bench.history.cursor_at(2, View::Router);
    foreign.store = StoreId::random();
    let (mut router, mode) = Router::with(&bench, foreign).await;
    assert_eq!(mode, WelcomeMode::Withheld(WithheldWhy::OtherStore));
    for _ in 0..4 {
        bench.history.commit([("models/b", 1)]);
        router.say(received(foreign)).await;
        assert_eq!(bookmark(&mut router.down).await.at, None);
    }
    assert_eq!(bench.fleet.reports()[0].received, Some(foreign));
}

#[tokio::test(start_paused = true)]
async fn reports_are_processed_even_if_the_router_does_not_read() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let (router, _) = Router::with(&bench, at).await;
    for held_total in 1..=1_000 {
        bench.history.commit([("models/b", 1)]);
        let report = Report {
            held_total,
            ..Report::default()
        };
        router.say(RouterMessage::Report(report)).await;
    }
    // The queue of reports holds one message. When it has room again, all reports except the last have been processed.
    let _room = router.up.reserve().await.unwrap();
    assert!(bench.fleet.reports()[0].held_total >= 999);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_reconnects_resumes_and_its_older_stream_ends_normally() {
    let bench = Bench::new();
    let at = bench.history.cursor_at(2, View::Router);
    let greeting = hello(Resume::At(at));
    let mut older = Router::join(&bench, greeting.clone()).await;
    welcome(&mut older.down).await;
    bench.history.commit([("models/b", 1)]);
    let mut newer = Router::join(&bench, greeting).await;
    assert_eq!(welcome(&mut newer.down).await.mode, WelcomeMode::Resumed);
    let delta = delta(&mut newer.down).await;
    let to = bench.history.cursor_at(3, View::Router);
    assert_eq!((delta.from_revision, delta.to), (2, Some((&to).into())));
    assert_eq!(goodbye(&mut older.down).await.why, GoodbyeWhy::Rotation);
    assert_eq!(bench.fleet.reports().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_message_ends_the_stream_with_its_error() {
    let bench = Bench::new();
    let (router, _) = Router::with(&bench, bench.history.cursor_at(2, View::Router)).await;
    router
        .up
        .send(Err(RouterMessageError::UnknownKind.into()))
        .await
        .unwrap();
    assert_eq!(
        router.end().await,
        Some(UplinkError::from(RouterMessageError::UnknownKind).into())
    );
}
