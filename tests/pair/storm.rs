//! All followers reconnect at the same moment.

use std::{sync::Arc, time::Duration};

use switchboard::pb::registry::Mode;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Status;

use crate::{
    harness::Pair,
    network::applied,
    peer::{Peer, allow_many_sockets, number, write_model, write_models},
    stalled::spread,
};

const CONVERGED_WITHIN: Duration = Duration::from_secs(10);

/// Enough memory for everything that a registry keeps for this many followers.
const RESIDENT_KIB_MAX: u64 = 256 * 1024;

/// `SWITCHBOARD_TEST_FOLLOWERS` sets the number of followers.
async fn all_followers_resume_in_time_after_the_registry_dies() {
    let count = number("SWITCHBOARD_TEST_FOLLOWERS", 100);
    allow_many_sockets();
    let mut pair = Pair::start().await;
    let head = write_models(&pair, 0..64, 0).await;

    let started = Instant::now();
    let mut storm = Storm::start(&pair, count);
    storm.reach(head).await;
    eprintln!("{count} snapshots of 256 KiB at once: {:?}", started.elapsed());
    assert_eq!(storm.modes(), vec![Mode::Snapshot; count]);

    let addr = pair.kill_registry();
    pair.restart_registry(addr).await;
    let back = Instant::now();
    // The pair's client has lost its connection too; this channel makes a new one.
    let models = pair.models();
    let mut slowest = Duration::ZERO;
    let mut head = 0;
    for round in 1..=20 {
        let began = Instant::now();
        head = write_model(models.clone(), 0, round).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    storm.reach(head).await;
    eprintln!(
        "{count} resumed: {:?}, the slowest of 20 concurrent writes: {slowest:?}",
        back.elapsed()
    );
    assert!(back.elapsed() < CONVERGED_WITHIN, "{:?}", back.elapsed());
    assert!(slowest < Duration::from_secs(5), "a write took {slowest:?}");
    assert_eq!(
        storm.modes(),
        vec![Mode::Resumed; count],
        "every follower resumes without a snapshot"
    );
    let resident = pair.registry().resident_kib();
    eprintln!("the registry uses {resident} KiB");
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    storm.stop();
    pair.wait_until(async || {
        applied(&pair.router)
            .await
            .is_some_and(|cursor| cursor.revision >= head)
    })
    .await;
    pair.finish().await;
}

/// Followers with different cursors cannot share encoded messages.
async fn followers_with_different_cursors_are_all_served_in_time() {
    let count = number("SWITCHBOARD_TEST_FOLLOWERS", 100);
    allow_many_sockets();
    let pair = Pair::start().await;
    let (peers, head) = spread(&pair, count).await;
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for mut peer in peers {
        let head = head.clone();
        coming.spawn(async move {
            let mut open = peer.open().await.unwrap();
            assert_eq!(open.welcome.mode(), Mode::Resumed);
            peer.read_to(&mut open, head.revision).await.unwrap();
            assert_eq!(peer.cursor(), &head);
        });
    }
    coming.join_all().await;
    eprintln!("{count} with different cursors: {:?}", began.elapsed());
    assert!(began.elapsed() < CONVERGED_WITHIN, "{:?}", began.elapsed());
    pair.finish().await;
}

/// Followers that reconnect whenever their stream ends.
pub(crate) struct Storm {
    followers: JoinSet<()>,
    revisions: Vec<watch::Receiver<i64>>,
    modes: mpsc::Receiver<Mode>,
}

impl Storm {
    pub(crate) fn start(pair: &Pair, count: usize) -> Self {
        let (modes_in, modes) = mpsc::channel(4 * count);
        let mut followers = JoinSet::new();
        let mut revisions = Vec::new();
        for number in 0..count {
            let peer = Peer::new(pair.registry(), format!("follower-{number}"));
            let (revision, revision_out) = watch::channel(0);
            revisions.push(revision_out);
            followers.spawn(follow(peer, Arc::new(revision), modes_in.clone()));
        }
        Self {
            followers,
            revisions,
            modes,
        }
    }

    /// Waits until all followers have reached this revision.
    pub(crate) async fn reach(&mut self, revision: i64) {
        let began = Instant::now();
        for (number, reached) in self.revisions.iter_mut().enumerate() {
            let left = (3 * CONVERGED_WITHIN).saturating_sub(began.elapsed());
            let reached = timeout(left, reached.wait_for(|reached| *reached >= revision)).await;
            assert!(
                reached.is_ok_and(|reached| reached.is_ok()),
                "follower {number} does not catch up"
            );
        }
    }

    /// Returns the modes of all welcomes since the last call.
    fn modes(&mut self) -> Vec<Mode> {
        std::iter::from_fn(|| self.modes.try_recv().ok()).collect()
    }

    pub(crate) fn stop(mut self) {
        self.followers.abort_all();
    }
}

async fn follow(mut peer: Peer, revision: Arc<watch::Sender<i64>>, modes: mpsc::Sender<Mode>) {
    loop {
        let _ended: Status = match follow_once(&mut peer, &revision, &modes).await {
            Ok(never) => match never {},
            Err(status) => status,
        };
        // The shortest back-off of a router, with jitter.
        sleep(Duration::from_millis(fastrand::u64(1..200))).await;
    }
}

async fn follow_once(
    peer: &mut Peer,
    revision: &watch::Sender<i64>,
    modes: &mpsc::Sender<Mode>,
) -> Result<std::convert::Infallible, Status> {
    let mut open = peer.open().await?;
    modes.try_send(open.welcome.mode()).unwrap();
    loop {
        let next = peer.mirror.revision() + 1;
        peer.read_to(&mut open, next).await?;
        revision.send_replace(peer.mirror.revision());
    }
}

tests! {
    all_followers_resume_in_time_after_the_registry_dies (parallel),
    followers_with_different_cursors_are_all_served_in_time (parallel),
}
