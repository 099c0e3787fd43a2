//! SIGKILL at every failpoint of the registry.

use std::os::unix::process::ExitStatusExt as _;

use tokio::task::JoinSet;

use super::{
    number,
    process::{Registry, Setting},
    random,
    writes::Writes,
};
use crate::histories::follower::Follower;

const POINTS: [&str; 8] = [
    "commit.before-begin",
    "commit.after-write",
    "commit.before-commit",
    "commit.after-commit",
    "commit.before-publish",
    "commit.before-answer",
    "feed.mid-snapshot",
    "feed.mid-delta",
];

/// `SWITCHBOARD_TEST_FAILPOINT_ROUNDS` sets the number of rounds for each failpoint.
async fn acknowledged_writes_survive_a_kill_at_every_failpoint() {
    let mut rng = random();
    for round in 0..number("SWITCHBOARD_TEST_FAILPOINT_ROUNDS", 1) {
        for point in POINTS {
            let folder = tempfile::tempdir().unwrap();
            let mut writes = Writes::default();
            let registry = Registry::start(folder.path()).await;
            let mut follower = Follower::try_start(registry.channel()).await.unwrap();
            // Enough data for several messages to a follower that comes back.
            writes.make_together(registry.channel(), 100).await;
            assert!(registry.terminate().await.success());

            let nth = rng.u32(1..12);
            let setting = Setting {
                env: vec![(
                    "SWITCHBOARD_FAILPOINTS",
                    match point.split_once('.') {
                        Some(("feed", _)) => format!("{point}=kill"),
                        _ => format!("{point}=kill@{nth}"),
                    },
                )],
                ..Setting::default()
            };
            let registry = Registry::start_with(folder.path(), &setting).await.unwrap();
            let channel = registry.channel();
            let mut following = JoinSet::new();
            following.spawn(async move {
                // A resumed follower receives a delta, and a new one a snapshot.
                let mut resumed = follower.try_resume(channel.clone()).await;
                let newcomer = Follower::try_start(channel).await;
                while newcomer.is_some() && resumed.is_some() {
                    resumed = follower.try_step().await;
                }
                follower
            });
            writes.make_together(registry.channel(), 400).await;
            let status = registry
                .end()
                .await
                .unwrap_or_else(|| panic!("{point}@{nth} was not reached"));
            assert_eq!(status.signal(), Some(6), "{point}@{nth}, round {round}: {status}");
            let mut follower = following.join_next().await.unwrap().unwrap();

            let registry = Registry::start(folder.path()).await;
            writes.check(&registry, Some(&mut follower)).await;
            assert!(registry.terminate().await.success());
        }
    }
}

tests! {
    acknowledged_writes_survive_a_kill_at_every_failpoint,
}
