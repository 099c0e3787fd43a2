//! A bad network between router and registry: the router always answers, never uses a partial state, and converges to
//! the registry's state when the network works again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use switchboard::pb::{
    registry::Model,
    router::{GetStatusRequest, routing_service_client::RoutingServiceClient},
    types::Cursor,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, Service},
    peer::{Open, Peer, number, write_models},
    proxy::{Proxy, Weather},
    routing::Load,
};

/// Two and a half heartbeats, after which silence counts as a dead connection, plus the longest back-off.
pub(crate) const CONVERGED_WITHIN: Duration = Duration::from_millis(2_500 * 15 + 10_000);

/// Name, network condition, and whether open connections are cut first, so that the condition also affects new
/// connections.
const FAULTS: [(&str, Weather, bool); 10] = [
    ("cut", Weather::Fair, true),
    ("refused", Weather::Refusing, true),
    ("nothing arrives", Weather::Holding { up: true, down: true }, false),
    ("nothing goes up", Weather::Holding { up: true, down: false }, false),
    ("nothing comes down", Weather::Holding { up: false, down: true }, false),
    (
        "half open from the start",
        Weather::Holding { up: true, down: true },
        true,
    ),
    ("delay and jitter", Weather::Slow(Duration::from_millis(20)), true),
    ("one byte a packet", Weather::Bytewise, true),
    ("10 kB/s", Weather::Dripping, true),
    ("reset in a frame", Weather::ResetAfter(2_000), false),
];

/// `SWITCHBOARD_TEST_FAULT_MS` sets how long each fault lasts. A minute is long enough for the router to detect
/// silence.
async fn the_router_converges_to_the_registrys_state_after_every_network_fault() {
    let lasts = Duration::from_millis(number("SWITCHBOARD_TEST_FAULT_MS", 400) as u64);
    let mut way = None;
    let pair = Pair::start_by(|registry| way.insert(Proxy::start(registry)).addr()).await;
    let proxy = way.unwrap();
    let upstream = FakeUpstream::always(Script::answer(["here"])).await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let mut truth = Truth::start(&pair).await;
    let load = Load::start(&pair, 4);
    let watched = Watched::start(&pair.router);

    for (name, weather, is_cut) in FAULTS {
        proxy.set(weather);
        if is_cut {
            proxy.cut();
        }
        let began = Instant::now();
        while began.elapsed() < lasts {
            rename(&pair, &mut truth).await;
            sleep(Duration::from_millis(5)).await;
        }
        proxy.set(Weather::Fair);
        rename(&pair, &mut truth).await;
        let healed = Instant::now();
        while applied(&pair.router).await.as_ref() != Some(truth.peer.cursor()) {
            assert!(
                healed.elapsed() < CONVERGED_WITHIN,
                "{name}: no convergence:\n{}",
                pair.router.log()
            );
            sleep(Duration::from_millis(5)).await;
        }
        eprintln!("{name}: the same state {:?} after the end", healed.elapsed());
    }

    assert!(proxy.resets() > 5, "{} connections were reset", proxy.resets());
    let seen = watched.finish().await;
    assert!(seen.len() > 10, "{} states", seen.len());
    assert!(
        truth.knows(&seen) > seen.len() / 2,
        "most of the states can be compared"
    );
    for call in load.finish().await {
        call.result.expect("no call fails");
    }
    pair.finish().await;
}

/// `SWITCHBOARD_TEST_CUTS` sets the number of positions at which snapshot and delta are cut.
async fn an_interrupted_snapshot_or_delta_is_never_applied_partially() {
    const MODELS: usize = 280;
    let cuts = number("SWITCHBOARD_TEST_CUTS", 4);
    let mut way = None;
    let pair = Pair::start_by(|registry| way.insert(Proxy::start(registry)).addr()).await;
    let proxy = way.unwrap();
    let mut truth = Truth::start(&pair).await;
    let head = write_models(&pair, 0..MODELS, 0).await;
    truth.read_to(head).await;
    let before = truth.peer.cursor().clone();
    wait_for(&pair.router, &before).await;
    let bytes: usize = truth
        .peer
        .mirror
        .items()
        .values()
        .map(|item| item.payload.as_ref().unwrap().value.len())
        .sum();
    assert!(bytes > 1024 * 1024, "{bytes} bytes");
    // Each cut lies in its own section of the transfer.
    let place = |cut: usize| Weather::ResetAfter(bytes / cuts * cut + fastrand::usize(1..bytes / cuts));

    proxy.set(place(0));
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--listen-addr=127.0.0.1:0".to_owned(),
        format!("--registry-addr=http://{}", proxy.addr()),
        "--router-id=fresh".to_owned(),
    ];
    let mut fresh = Service::start("switchboard-router", folder.path(), &args).await;
    let watched = Watched::start(&fresh);
    endure(&proxy, cuts, place).await;
    wait_for(&fresh, &before).await;
    let seen = watched.finish().await;
    assert_eq!(seen, std::slice::from_ref(&before), "no state, then the complete one");
    assert!(fresh.terminate().await.success());

    proxy.set(Weather::Refusing);
    proxy.cut();
    let head = write_models(&pair, 0..MODELS, 1).await;
    truth.read_to(head).await;
    let after = truth.peer.cursor().clone();
    let watched = Watched::start(&pair.router);
    let resets = proxy.resets();
    proxy.set(place(0));
    endure(&proxy, cuts, place).await;
    wait_for(&pair.router, &after).await;
    assert_eq!(
        watched.finish().await,
        [before, after],
        "the old state, then the new one"
    );
    assert!(proxy.resets() >= resets + cuts as u64);
    pair.finish().await;
}

/// Cuts connections at one position after the other, and then ends the fault.
async fn endure(proxy: &Proxy, cuts: usize, place: impl Fn(usize) -> Weather) {
    let first = proxy.resets();
    for cut in 1..=cuts {
        while proxy.resets() < first + cut as u64 {
            sleep(Duration::from_millis(1)).await;
        }
        proxy.set(if cut < cuts { place(cut) } else { Weather::Fair });
    }
}

async fn rename(pair: &Pair, truth: &mut Truth) {
    let named = Model {
        display_name: Some(format!("Mistral {}", fastrand::u64(..))),
        ..Default::default()
    };
    let revision = pair
        .update_model(named)
        .await
        .expect("the registry still accepts writes")
        .revision;
    truth.read_to(revision).await;
}

/// Waits until the router has applied exactly this state.
async fn wait_for(router: &Service, state: &Cursor) {
    let started = Instant::now();
    loop {
        let applied = applied(router).await;
        if applied.as_ref() == Some(state) {
            return;
        }
        assert!(
            started.elapsed() < CONVERGED_WITHIN,
            "{applied:?}, not {state:?}:\n{}",
            router.log()
        );
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn applied(router: &Service) -> Option<Cursor> {
    ask(&mut RoutingServiceClient::new(router.channel())).await
}

async fn ask(routing: &mut RoutingServiceClient<Channel>) -> Option<Cursor> {
    routing
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .applied
}

/// Every state that the registry has had, as received by a peer whose network has no faults.
pub(crate) struct Truth {
    pub(crate) peer: Peer,
    open: Open,
    states: BTreeMap<i64, Cursor>,
}

impl Truth {
    pub(crate) async fn start(pair: &Pair) -> Self {
        let mut peer = Peer::new(pair.registry(), "truth");
        let open = peer.open().await.unwrap();
        let mut truth = Self {
            peer,
            open,
            states: BTreeMap::new(),
        };
        truth.read_to(1).await;
        truth
    }

    pub(crate) async fn read_to(&mut self, revision: i64) {
        while self.peer.mirror.revision() < revision {
            let kind = self.open.next().await.unwrap().expect("the stream continues");
            self.peer.mirror.take(kind);
            let cursor = self.peer.cursor();
            self.states.insert(cursor.revision, cursor.clone());
        }
    }

    /// Checks that each of these was a state of the registry, and returns the number of states that it could compare.
    pub(crate) fn knows(&self, seen: &[Cursor]) -> usize {
        let known = seen
            .iter()
            .filter_map(|cursor| Some((cursor, self.states.get(&cursor.revision)?)));
        known
            .map(|(cursor, state)| assert_eq!(cursor, state, "the registry never had this state"))
            .count()
    }
}

/// Polls the applied cursor of a router continuously.
pub(crate) struct Watched {
    stop: Arc<AtomicBool>,
    asking: JoinSet<Vec<Cursor>>,
}

impl Watched {
    pub(crate) fn start(router: &Service) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut routing, stopped) = (RoutingServiceClient::new(router.channel()), Arc::clone(&stop));
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            let mut seen: Vec<Cursor> = Vec::new();
            loop {
                // Polls once more after the stop, so that the last state is included.
                let is_over = stopped.load(Ordering::Relaxed);
                let applied = ask(&mut routing).await;
                if let Some(cursor) = applied
                    && seen.last() != Some(&cursor)
                {
                    let last = seen.last().map_or(0, |last| last.revision);
                    assert!(cursor.revision > last, "{last}, then {}", cursor.revision);
                    seen.push(cursor);
                }
                if is_over {
                    return seen;
                }
                sleep(Duration::from_millis(2)).await;
            }
        });
        Self { stop, asking }
    }

    /// Returns the states that the router had, in order.
    pub(crate) async fn finish(mut self) -> Vec<Cursor> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join_next().await.unwrap().unwrap()
    }
}

tests! {
    the_router_converges_to_the_registrys_state_after_every_network_fault,
    an_interrupted_snapshot_or_delta_is_never_applied_partially,
}
