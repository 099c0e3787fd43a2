//! Routers that stop reading, together with routers that keep reading.

use std::time::Duration;

use switchboard::pb::{
    registry::{Held, HeldWhy, ListRoutersRequest, Report, subscribe_request::Kind as Up, subscribe_response::Kind},
    types::{Cursor, Refusal},
};
use tokio::time::Instant;

use crate::{
    harness::Pair,
    network::Truth,
    peer::{Open, Peer, allow_many_sockets, number, write_model, write_models},
    storm::Storm,
};

const MODELS: usize = 50;
const WRITES: usize = 200;

/// HTTP/2 window of a stalled reader, in bytes.
const WINDOW: u32 = 4 * 1024;

/// Latency and memory of a registry while routers follow.
#[derive(Debug)]
struct Spent {
    /// Median latency of sequential writes.
    median: Duration,
    slow: Duration,
    resident_kib: u64,
}

/// `SWITCHBOARD_TEST_FOLLOWERS` sets the number of followers; nine of ten stop reading.
async fn stalled_readers_cost_no_more_than_active_readers() {
    let count = number("SWITCHBOARD_TEST_FOLLOWERS", 100);
    allow_many_sockets();
    let going_on = spent(count, 0).await;
    let stopped = spent(count / 10, count - count / 10).await;
    eprintln!("{count} active readers: {going_on:?}\nnine of ten stalled: {stopped:?}");
    assert!(
        stopped.median < 2 * going_on.median + Duration::from_millis(20),
        "{stopped:?}, {going_on:?}"
    );
    assert!(
        stopped.slow < 2 * going_on.slow + Duration::from_millis(500),
        "{stopped:?}, {going_on:?}"
    );
    // Data in flight to a stalled reader stays in memory: one window, and the messages encoded for it.
    let on_its_way = 64 * u64::try_from(count).unwrap();
    assert!(
        stopped.resident_kib < going_on.resident_kib + going_on.resident_kib / 4 + on_its_way,
        "{stopped:?}, {going_on:?}"
    );
}

async fn spent(reading: usize, stalled: usize) -> Spent {
    let pair = Pair::start().await;
    let head = write_models(&pair, 0..MODELS, 0).await;
    let mut truth = Truth::start(&pair).await;
    let mut readers = Storm::start(&pair, reading);
    readers.reach(head).await;
    let mut stopped = Vec::new();
    for number in 0..stalled {
        let mut peer = Peer::new(pair.registry(), format!("stalled-{number}"));
        peer.window = Some(WINDOW);
        let mut open = peer.open().await.unwrap();
        peer.read_to(&mut open, head).await.unwrap();
        stopped.push((peer, open));
    }

    let mut took = Vec::new();
    let mut head = head;
    for write in 0..WRITES {
        let round = u32::try_from(write / MODELS).unwrap() + 1;
        let began = Instant::now();
        head = write_model(pair.models(), write % MODELS, round).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let spent = Spent {
        median: took[WRITES / 2],
        slow: took[WRITES * 98 / 100],
        resident_kib: pair.registry().resident_kib(),
    };

    readers.reach(head).await;
    truth.read_to(head).await;
    for (mut peer, mut open) in stopped {
        let longest = read_on(&mut peer, &mut open, head).await;
        assert!(
            longest > WRITES as i64 / 2,
            "later changes are merged, but the longest delta has only {longest} revisions"
        );
        assert_eq!(peer.cursor(), truth.peer.cursor());
    }
    readers.stop();
    pair.finish().await;
    spent
}

/// Reads to a revision, reconnects after a goodbye, and returns the number of revisions in the longest delta.
async fn read_on(peer: &mut Peer, open: &mut Open, head: i64) -> i64 {
    let mut longest = 0;
    while peer.mirror.revision() < head {
        match open.next().await.unwrap() {
            Some(Kind::Goodbye(_)) | None => *open = peer.open().await.unwrap(),
            Some(kind) => {
                let before = peer.mirror.revision();
                peer.mirror.take(kind);
                longest = longest.max(peer.mirror.revision() - before);
            }
        }
    }
    longest
}

async fn readers_that_stall_during_a_long_delta_delay_no_other_reader() {
    const STOPPED: usize = 40;
    let pair = Pair::start().await;
    let (mut late, truth) = spread(&pair, STOPPED + 1).await;
    let mut stopped = Vec::new();
    for peer in &mut late[1..] {
        peer.window = Some(WINDOW);
        stopped.push(peer.open().await.unwrap());
    }
    let began = Instant::now();
    let mut open = late[0].open().await.unwrap();
    read_on(&mut late[0], &mut open, truth.revision).await;
    eprintln!("next to {STOPPED} stalled readers: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(late[0].cursor(), &truth);
    pair.finish().await;
}

/// Creates peers that each have a different cursor far behind the head, so that no two of them can share messages.
/// Returns the peers and the head.
pub(crate) async fn spread(pair: &Pair, count: usize) -> (Vec<Peer>, Cursor) {
    let mut truth = Truth::start(pair).await;
    let mut peers = Vec::new();
    for number in 0..u32::try_from(count).unwrap() {
        let mut peer = Peer::new(pair.registry(), format!("late-{number}"));
        peer.mirror = truth.peer.mirror.clone();
        peers.push(peer);
        let revision = write_model(pair.models(), MODELS, number).await.unwrap();
        truth.read_to(revision).await;
    }
    let head = write_models(pair, 0..MODELS, 0).await;
    truth.read_to(head).await;
    (peers, truth.peer.cursor().clone())
}

async fn reports_of_a_router_that_reads_nothing_are_processed_and_delay_no_other_router() {
    const REPORTS: i32 = 3_000;
    let pair = Pair::start().await;
    let head = write_models(&pair, 0..MODELS, 0).await;
    let mut truth = Truth::start(&pair).await;
    truth.read_to(head).await;
    let mut deaf = Peer::new(pair.registry(), "deaf");
    deaf.window = Some(1024);
    let open = deaf.open().await.unwrap();

    // More data than all windows and queues towards the registry can hold, so that it passes only if the registry reads
    // it.
    let flood = async {
        for number in 1..=REPORTS {
            open.say(Up::Report(holding(number))).await;
        }
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        for round in 1..=50 {
            let began = Instant::now();
            let head = write_model(pair.models(), 0, round).await.unwrap();
            truth.read_to(head).await;
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let ((), slowest) = tokio::join!(flood, others);
    eprintln!("the slowest of 50 writes until its reader has it, during {REPORTS} reports: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let last = format!("models/unusable-{REPORTS}");
    pair.wait_until(async || {
        let listed = pair.config().list_routers(ListRoutersRequest::default()).await.unwrap();
        let mut held = listed.get_ref().routers.iter().flat_map(|router| &router.held);
        held.any(|held| held.item.as_ref().is_some_and(|item| item.resource == last))
    })
    .await;

    let mut open = open;
    let head = truth.peer.cursor().revision;
    read_on(&mut deaf, &mut open, head).await;
    assert_eq!(deaf.cursor(), truth.peer.cursor());
    pair.finish().await;
}

/// Builds a report of about 1 KiB.
fn holding(number: i32) -> Report {
    let held = |resource: String| Held {
        item: Some(Refusal {
            resource,
            field: "f".repeat(200),
            reason: "VALUE_MALFORMED".to_owned(),
            ..Default::default()
        }),
        why: HeldWhy::Refused.into(),
        used_revision: 0,
    };
    let listed = (0..4).map(|place| held(format!("models/unusable-{}", number - place)));
    Report {
        held: listed.collect(),
        held_total: 4,
        ..Default::default()
    }
}

tests! {
    stalled_readers_cost_no_more_than_active_readers (parallel),
    readers_that_stall_during_a_long_delta_delay_no_other_reader,
    reports_of_a_router_that_reads_nothing_are_processed_and_delay_no_other_router,
}
