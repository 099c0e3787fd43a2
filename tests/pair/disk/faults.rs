//! The n-th write or sync of the disk fails, for every n.

use std::fs;

use super::{
    number,
    process::{Registry, database},
    random,
    shim::{self, Fault},
    writes::Writes,
};
use crate::histories::follower::Follower;

/// Number of writes that the test makes.
const WRITES: u32 = 10;

/// Checks the state after a kill and the state after a power cut. `SWITCHBOARD_TEST_DISK_STEP` sets the distance
/// between the tested n; 1 tests every n.
async fn acknowledged_writes_survive_the_failure_of_any_write_or_sync() {
    let step = number("SWITCHBOARD_TEST_DISK_STEP", 29);
    let mut rng = random();
    let new = tempfile::tempdir().unwrap();
    assert!(Registry::start(new.path()).await.terminate().await.success());
    let before = fs::read(database(new.path())).unwrap();

    for (what, error, step) in [
        ("write", "EIO", step),
        ("write", "ENOSPC", step),
        ("sync", "EIO", step.div_ceil(7)),
        ("sync", "ENOSPC", step.div_ceil(7)),
    ] {
        let mut count = 0;
        for first in (1 + rng.u64(0..step)..).step_by(usize::try_from(step).unwrap()) {
            // One to three consecutive operations fail, so that reopening the database can fail, too.
            let last = first + rng.u64(0..3);
            let fault = Fault {
                what,
                error,
                first,
                last,
            };
            if !survives(&before, fault, &mut rng).await {
                break;
            }
            count += 1;
        }
        eprintln!("{what} {error}: {count} faults");
        assert!(count > 0, "no {what} failed");
    }
}

/// Returns whether the fault occurred.
async fn survives(before: &[u8], fault: Fault, rng: &mut fastrand::Rng) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(database(folder.path()), before).unwrap();
    let mut writes = Writes::default();
    let mut follower = None;
    // The registry may fail to start, with an error and without a panic.
    if let Ok(registry) = Registry::start_with(folder.path(), &shim::setting(folder.path(), fault, false)).await {
        let mut following = Follower::try_start(registry.channel()).await.unwrap();
        writes.make(&registry, WRITES).await;
        // The follower must be able to resume later from what it has received by now.
        while following.revision() < i64::try_from(writes.acknowledged()).unwrap() + 1 {
            following.try_step().await.unwrap();
        }
        follower = Some(following);
        registry.kill();
    }
    let after_cut = tempfile::tempdir().unwrap();
    let has_come = shim::cut_power(before, folder.path(), after_cut.path(), rng);
    let registry = Registry::start(after_cut.path()).await;
    eprintln!("{fault:?}: {} of {WRITES} acknowledged", writes.acknowledged());
    writes.check(&registry, None).await;
    drop(registry);

    let registry = Registry::start(folder.path()).await;
    writes.check(&registry, follower.as_mut()).await;
    has_come
}

tests! {
    acknowledged_writes_survive_the_failure_of_any_write_or_sync,
}
