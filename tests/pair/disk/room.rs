//! A disk that becomes full and then has space again.

use std::{fs, path::Path, process::Command};

use switchboard::pb::registry::{ListModelsRequest, model_service_client::ModelServiceClient};
use tonic_health::pb::health_check_response::ServingStatus;

use super::{
    process::{Registry, Setting, log},
    shim::{self, Fault},
    writes::Writes,
};
use crate::{histories::follower::Follower, runner::Requirement};

const WRITING: &str = "registry-write";

const MOUNTING: Requirement = Requirement::Condition {
    is_met: || Mounted::new(tempfile::tempdir().unwrap().path()).is_some(),
    reason: "no volume can be mounted",
    remedy: "run the tests as root",
};

async fn a_full_disk_refuses_writes_but_not_reads_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let fault = Fault {
        what: "write",
        error: "ENOSPC",
        first: 1,
        last: u64::from(u32::MAX),
    };
    let setting = shim::setting(folder.path(), fault, true);
    let file = shim::while_file(folder.path());
    goes_full(folder.path(), &setting, &mut || fs::write(&file, "").unwrap(), &|| {
        fs::remove_file(&file).unwrap();
    })
    .await;
}

async fn a_full_volume_refuses_writes_but_not_reads_and_recovers_by_itself() {
    let volume = tempfile::tempdir().unwrap();
    let _mounted = Mounted::new(volume.path()).unwrap();
    let ballast = volume.path().join("ballast");
    let fill = &mut || {
        // The write fails once the volume is full.
        drop(fs::write(&ballast, vec![1; 4 * 1024 * 1024]));
    };
    goes_full(volume.path(), &Setting::default(), fill, &|| {
        fs::remove_file(&ballast).unwrap();
    })
    .await;
}

async fn a_failing_disk_makes_write_outcomes_unknown_but_serves_reads_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let fault = Fault {
        what: "sync",
        error: "EIO",
        first: 1,
        last: u64::from(u32::MAX),
    };
    let setting = shim::setting(folder.path(), fault, true);
    let registry = Registry::start_with(folder.path(), &setting).await.unwrap();
    let mut writes = Writes::default();
    writes.make(&registry, 1).await;
    let mut follower = Follower::try_start(registry.channel()).await.unwrap();

    fs::write(shim::while_file(folder.path()), "").unwrap();
    for waited in ["a long time", "not at all"] {
        writes.make(&registry, 1).await;
        assert_eq!(writes.last_reason(), "WRITE_OUTCOME_UNKNOWN", "waited {waited}");
    }
    assert_eq!(registry.health(WRITING).await, ServingStatus::NotServing);
    assert_eq!(registry.health("").await, ServingStatus::Serving);
    let shown = Follower::try_start(registry.channel()).await.unwrap();
    assert_eq!(
        shown.revision(),
        follower.revision(),
        "a revision that may be lost is not shown"
    );

    fs::remove_file(shim::while_file(folder.path())).unwrap();
    registry.wait_for_health(WRITING, ServingStatus::Serving).await;
    writes.make(&registry, 1).await;
    assert_eq!(writes.last_reason(), "", "{}", log(folder.path()));
    registry.kill();
    let registry = Registry::start(folder.path()).await;
    writes.check(&registry, Some(&mut follower)).await;
}

/// A small volume mounted at a folder until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Mounts the volume. Returns `None` if it cannot be mounted.
    fn new(folder: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(folder))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).status());
    }
}

async fn goes_full(folder: &Path, setting: &Setting, fill: &mut impl FnMut(), free: &impl Fn()) {
    let registry = Registry::start_with(folder, setting).await.unwrap();
    let mut writes = Writes::default();
    writes.make(&registry, 3).await;
    registry.wait_for_health(WRITING, ServingStatus::Serving).await;

    fill();
    let mut tries = 0;
    while writes.last_reason().is_empty() {
        tries += 1;
        // Pages that the files already have can still be overwritten.
        assert!(tries < 500, "the disk does not become full");
        fill();
        writes.make(&registry, 1).await;
    }
    assert_eq!(writes.last_reason(), "STORAGE_FULL", "{}", log(folder));
    registry.wait_for_health(WRITING, ServingStatus::NotServing).await;
    assert_eq!(registry.health("").await, ServingStatus::Serving);
    let mut follower = Follower::try_start(registry.channel()).await.unwrap();
    let mut client = ModelServiceClient::new(registry.channel());
    client.list_models(ListModelsRequest::default()).await.unwrap();

    free();
    registry.wait_for_health(WRITING, ServingStatus::Serving).await;
    writes.make(&registry, 1).await;
    assert_eq!(writes.last_reason(), "", "{}", log(folder));
    assert!(registry.terminate().await.success());
    let registry = Registry::start(folder).await;
    writes.check(&registry, Some(&mut follower)).await;
}

tests! {
    a_full_disk_refuses_writes_but_not_reads_and_recovers_by_itself,
    a_full_volume_refuses_writes_but_not_reads_and_recovers_by_itself needs MOUNTING,
    a_failing_disk_makes_write_outcomes_unknown_but_serves_reads_and_recovers_by_itself,
}
