//! Database files that are damaged, belong to another store, are missing, or are in use.

use std::fs;

use super::{
    number,
    process::{Registry, Setting, database, log},
    random,
    writes::{Writes, models},
};
use crate::histories::follower::Follower;

/// The exit code of a registry whose database is damaged.
const DAMAGED: Option<i32> = Some(3);

/// `SWITCHBOARD_TEST_FLIPS` sets the number of flipped bits.
async fn a_flipped_bit_is_detected_or_changes_nothing() {
    let mut rng = random();
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path()).await;
    let mut writes = Writes::default();
    writes.make(&registry, 10).await;
    let before = Follower::try_start(registry.channel()).await.unwrap();
    assert!(registry.terminate().await.success());
    let whole = fs::read(database(folder.path())).unwrap();

    let (mut refused, mut served) = (0, 0);
    for _ in 0..number("SWITCHBOARD_TEST_FLIPS", 60) {
        let mut flipped = whole.clone();
        let place = rng.usize(..flipped.len());
        flipped[place] ^= 1 << rng.u8(..8);
        let folder = tempfile::tempdir().unwrap();
        fs::write(database(folder.path()), &flipped).unwrap();
        match Registry::start_with(folder.path(), &Setting::default()).await {
            Ok(registry) => {
                let after = Follower::try_start(registry.channel()).await.unwrap();
                assert_eq!(after, before, "byte {place}");
                assert_eq!(models(&registry).await.len(), 10, "byte {place}");
                served += 1;
            }
            Err(status) => {
                let log = log(folder.path());
                // A higher schema number looks the same as the schema of a later release.
                let is_newer = log.contains("is newer than this program");
                assert!(status.code() == DAMAGED || is_newer, "byte {place}: {status}:\n{log}");
                let left = fs::read(database(folder.path())).unwrap();
                assert!(left == flipped, "byte {place}: a damaged file is not changed");
                refused += 1;
            }
        }
    }
    eprintln!("{refused} refused, {served} served");
    assert!(refused > 0 && served > 0);
}

async fn a_second_registry_on_the_same_database_exits_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path()).await;
    let status = Registry::start_with(folder.path(), &Setting::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Some(4));
    assert!(
        log(folder.path()).contains("another registry holds"),
        "{}",
        log(folder.path())
    );
    let mut writes = Writes::default();
    writes.make(&registry, 3).await;
    assert_eq!(writes.acknowledged(), 3, "the first registry is not affected");
}

async fn an_empty_volume_is_refused_if_a_store_id_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path()).await;
    let store = Follower::try_start(registry.channel())
        .await
        .unwrap()
        .cursor()
        .store
        .clone();
    assert!(registry.terminate().await.success());
    let setting = Setting {
        args: vec![format!("--store-id={store}")],
        ..Setting::default()
    };
    assert!(Registry::start_with(folder.path(), &setting).await.is_ok());

    let empty = tempfile::tempdir().unwrap();
    let status = Registry::start_with(empty.path(), &setting).await.unwrap_err();
    assert_eq!(status.code(), Some(1));
    assert!(log(empty.path()).contains("check that the right volume is mounted"));
    assert!(!database(empty.path()).exists());
    drop(Registry::start(empty.path()).await);
    assert!(
        Registry::start_with(empty.path(), &setting).await.is_err(),
        "the volume has another store"
    );
}

tests! {
    a_flipped_bit_is_detected_or_changes_nothing,
    a_second_registry_on_the_same_database_exits_at_once,
    an_empty_volume_is_refused_if_a_store_id_is_expected,
}
