//! A router that starts from its snapshot file while the registry is down.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use switchboard::pb::registry::{CreateModelRequest, DeleteModelRequest, ListRoutersRequest, Model};
use tokio::time::Instant;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, binary, infer, reason_of},
    network::{Truth, applied},
};

const CANARY: &str = "sk-canary-c01d";
const CODE: &str = "code_generations";

/// A pair whose router has a snapshot file.
struct Kept {
    pair: Pair,
    registry: SocketAddr,
    flags: Vec<String>,
}

impl Kept {
    async fn start() -> Self {
        let mut pair = Pair::start().await;
        let folder = pair.folder.path();
        let key_file = write_key(folder, 0o600);
        let flags = vec![
            format!("--snapshot-file={}", folder.join("snapshot").display()),
            format!("--snapshot-key-file={}", key_file.display()),
        ];
        let registry = pair.registry().listen_addr;
        pair.restart_router(registry, &flags).await;
        Self { pair, registry, flags }
    }

    fn file(&self) -> PathBuf {
        self.pair.folder.path().join("snapshot")
    }

    async fn persisted(&self, revision: i64) {
        let line = format!("revision {revision} is in the snapshot file");
        self.pair
            .wait_until(async || self.pair.router.log().contains(&line))
            .await;
    }

    /// Waits until everything in use is in the file. The first write of a revision can precede its credentials, so this
    /// makes one more revision, which is written with the credentials.
    async fn settled(&self, display_name: &str) -> i64 {
        let changed = Model {
            display_name: Some(display_name.to_owned()),
            ..Default::default()
        };
        let revision = self.pair.update_model(changed).await.unwrap().revision;
        self.pair.wait_for_revision(revision).await;
        self.persisted(revision).await;
        revision
    }

    async fn restart_router(&mut self) {
        self.pair.restart_router(self.registry, &self.flags).await;
    }

    async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut client = HealthClient::new(self.pair.router.channel());
        client.check(request).await.unwrap().into_inner().status()
    }

    async fn waits_for(&self, line: &str) {
        self.pair
            .wait_until(async || self.pair.router.log().contains(line))
            .await;
    }

    /// Waits until the router reports that this or a later revision is in the file, and returns the reported revision.
    async fn claimed(&self, revision: i64) -> i64 {
        let mut claimed = 0;
        self.pair
            .wait_until(async || {
                let listed = self.pair.config().list_routers(ListRoutersRequest::default()).await;
                let routers = listed.unwrap().into_inner().routers;
                let persisted = routers.into_iter().filter_map(|router| router.persisted);
                claimed = persisted.map(|cursor| cursor.revision).max().unwrap_or_default();
                claimed >= revision
            })
            .await;
        claimed
    }

    fn snapshots(&self) -> usize {
        self.pair.router.log().matches("a snapshot follows").count()
    }
}

fn write_key(folder: &Path, mode: u32) -> PathBuf {
    let path = folder.join("snapshot.key");
    fs::write(&path, format!("# ours\nk1:{}\n", "0f".repeat(32))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

async fn a_router_serves_from_its_snapshot_file_and_resumes_when_the_registry_returns() {
    let mut kept = Kept::start().await;
    let upstream = FakeUpstream::always(Script::answer(["still", " here"])).await;
    kept.pair.configure(&upstream.url(), Some(CANARY)).await;
    kept.pair.wait_until_routed(CODE).await;
    let revision = kept.settled("Mistral One").await;
    let sealed = fs::read(kept.file()).unwrap();
    for text in [CANARY, "mistral", "127.0.0.1"] {
        let is_there = sealed.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!is_there, "{text} is in the file in plain text");
    }
    assert_eq!(fs::metadata(kept.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let (asked, snapshots) = (upstream.requests().len(), kept.snapshots());

    kept.pair.kill_registry();
    let started = Instant::now();
    kept.restart_router().await;
    kept.pair.wait_until_routed(CODE).await;
    eprintln!("the first answer came {:?} after the start", started.elapsed());
    let answer = infer(&mut kept.pair.inference(), CODE, "hello").await.unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.selection.config_revision),
        ("still here", revision)
    );
    for request in &upstream.requests()[asked..] {
        assert_eq!(request.headers.get("authorization"), Some(&format!("Bearer {CANARY}")));
    }
    assert_eq!(kept.health("").await, ServingStatus::Serving);
    assert_eq!(kept.health("config-fresh").await, ServingStatus::NotServing);

    kept.pair.restart_registry(kept.registry).await;
    kept.pair
        .wait_until(async || kept.health("config-fresh").await == ServingStatus::Serving)
        .await;
    assert_eq!(
        kept.snapshots(),
        snapshots,
        "the router resumes from the file's revision"
    );
    kept.settled("Mistral Two").await;
    assert!(!kept.pair.router.log().contains(CANARY));
    kept.pair.finish().await;
}

/// Failpoint, the number of the pass at which it kills the router, and the revision that the router then has in its
/// file.
const KILLS: [(&str, u32, Found); 4] = [
    // The first pass applies the content of the file.
    ("apply.before-report", 2, Found::Older),
    ("persist.before-rename", 1, Found::Older),
    ("persist.before-rename", 1, Found::Nothing),
    ("persist.after-rename", 1, Found::Newer),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    Nothing,
    Older,
    Newer,
}

async fn a_router_killed_while_it_persists_keeps_every_revision_that_it_reported_as_persisted() {
    for (point, nth, found) in KILLS {
        let mut kept = Kept::start().await;
        let upstream = FakeUpstream::always(Script::answer(["fine"])).await;
        kept.pair.configure(&upstream.url(), None).await;
        let mut truth = Truth::start(&kept.pair).await;
        let older = kept.settled("Older").await;
        if found == Found::Nothing {
            kept.pair.kill_router();
            fs::remove_file(kept.file()).unwrap();
        }
        let failpoints = format!("{point}=kill@{nth}");
        let env = [("SWITCHBOARD_FAILPOINTS", failpoints.as_str())];
        kept.pair.restart_router_under(&env, kept.registry, &kept.flags).await;
        let mut claimed = 0;
        if found != Found::Nothing {
            claimed = kept.claimed(older).await;
        }
        let changed = Model {
            display_name: Some("Newer".to_owned()),
            ..Default::default()
        };
        let newer = kept.pair.update_model(changed).await.unwrap().revision;
        let status = kept.pair.router.ended().await;
        assert_eq!(status.signal(), Some(6), "{point}: {status}");
        truth.read_to(newer).await;
        let head = truth.peer.cursor().clone();

        kept.pair.kill_registry();
        kept.restart_router().await;
        let has = if found == Found::Nothing {
            kept.waits_for("there is no snapshot file").await;
            assert_eq!(
                applied(&kept.pair.router).await,
                None,
                "a partially written file is not used"
            );
            0
        } else {
            kept.pair
                .wait_until(async || applied(&kept.pair.router).await.is_some())
                .await;
            let restored = applied(&kept.pair.router).await.unwrap();
            assert_eq!(truth.knows(std::slice::from_ref(&restored)), 1);
            restored.revision
        };
        let expected = match found {
            Found::Nothing => 0,
            Found::Older => older,
            Found::Newer => newer,
        };
        assert_eq!(has, expected, "{point}");
        assert!(claimed <= has, "{point}: {claimed} was reported as persisted");

        kept.pair.restart_registry(kept.registry).await;
        kept.pair
            .wait_until(async || applied(&kept.pair.router).await.as_ref() == Some(&head))
            .await;
        assert_eq!(kept.claimed(newer).await, newer);
        kept.pair.finish().await;
    }
}

async fn a_model_deleted_while_the_router_is_down_is_not_called_after_its_restart() {
    let mut kept = Kept::start().await;
    let (old, new) = tokio::join!(
        FakeUpstream::always(Script::answer(["old"])),
        FakeUpstream::always(Script::answer(["new"]))
    );
    kept.pair.configure(&old.url(), Some(CANARY)).await;
    kept.pair.wait_until_routed(CODE).await;
    let model = Model {
        display_name: Some("Other".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some(new.url()),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let other = kept.pair.models().create_model(request).await.unwrap().into_inner();
    kept.persisted(other.revision).await;

    kept.pair.kill_router();
    let request = DeleteModelRequest {
        name: "models/mistral".to_owned(),
        reassign_to: other.name,
        ..Default::default()
    };
    let revision = kept
        .pair
        .models()
        .delete_model(request)
        .await
        .unwrap()
        .into_inner()
        .revision;
    let snapshots = kept.snapshots();
    kept.restart_router().await;
    kept.pair.wait_for_revision(revision).await;
    let asked = old.requests().len();
    let answer = infer(&mut kept.pair.inference(), CODE, "hello").await.unwrap();
    assert_eq!(answer.text, "new");
    assert_eq!(old.requests().len(), asked);
    assert!(
        new.requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
    assert_eq!(kept.snapshots(), snapshots);
    kept.pair.finish().await;
}

async fn a_restarted_router_refuses_an_older_database() {
    let mut kept = Kept::start().await;
    let upstream = FakeUpstream::always(Script::answer(["newest"])).await;
    kept.pair.configure(&upstream.url(), Some("sk-1")).await;
    kept.pair.kill_registry();
    let older: Vec<_> = database_files(kept.pair.folder.path())
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    kept.pair.restart_registry(kept.registry).await;
    let rotated = Model {
        api_token: Some("sk-2".to_owned()),
        ..Default::default()
    };
    kept.pair.update_model(rotated).await.unwrap();
    let is_rotated = async || {
        // The router may not have the assignment yet, either.
        let is_answered = infer(&mut kept.pair.inference(), CODE, "hello").await.is_ok();
        is_answered && last_token(&upstream).as_deref() == Some("Bearer sk-2")
    };
    kept.pair.wait_until(is_rotated).await;
    let revision = kept.settled("Mistral Two").await;

    kept.pair.kill_registry();
    for path in database_files(kept.pair.folder.path()) {
        fs::remove_file(path).unwrap();
    }
    for (bytes, path) in older {
        fs::write(path, bytes).unwrap();
    }
    kept.restart_router().await;
    kept.pair.restart_registry(kept.registry).await;
    kept.waits_for("the registry's history is refused").await;
    let answer = infer(&mut kept.pair.inference(), CODE, "hello").await.unwrap();
    assert_eq!(answer.selection.config_revision, revision);
    assert_eq!(last_token(&upstream).as_deref(), Some("Bearer sk-2"));
    assert_eq!(kept.health("config-fresh").await, ServingStatus::NotServing);
    kept.pair.finish().await;
}

fn last_token(upstream: &FakeUpstream) -> Option<String> {
    let requests = upstream.requests();
    requests.last()?.headers.get("authorization").cloned()
}

fn database_files(folder: &Path) -> Vec<PathBuf> {
    let names = ["switchboard.db", "switchboard.db-wal", "switchboard.db-shm"];
    let paths = names.map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.exists()).collect()
}

async fn a_damaged_snapshot_file_is_ignored_and_replaced() {
    let mut kept = Kept::start().await;
    let upstream = FakeUpstream::always(Script::answer(["fine"])).await;
    let revision = kept.pair.configure(&upstream.url(), Some("sk-1")).await.revision;
    kept.pair.wait_until_routed(CODE).await;
    kept.persisted(revision).await;
    kept.pair.kill_registry();
    kept.pair.kill_router();
    let mut bytes = fs::read(kept.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(kept.file(), &bytes).unwrap();

    kept.restart_router().await;
    let result = infer(&mut kept.pair.inference(), CODE, "hello").await;
    assert_eq!(reason_of(&result).as_deref(), Some("CONFIG_NOT_LOADED"));
    assert_eq!(kept.health("").await, ServingStatus::NotServing);
    assert_eq!(kept.pair.router.log().matches("snapshot is ignored").count(), 1);
    assert_eq!(fs::read(kept.file()).unwrap(), bytes, "the damaged file is not deleted");

    kept.pair.restart_registry(kept.registry).await;
    kept.pair.wait_until_routed(CODE).await;
    kept.pair
        .wait_until(async || fs::read(kept.file()).unwrap() != bytes)
        .await;
    kept.pair.finish().await;
}

fn a_key_file_that_others_can_read_is_refused_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = write_key(folder.path(), 0o644);
    let output = Command::new(binary("switchboard-router"))
        .arg(format!("--snapshot-file={}", folder.path().join("snapshot").display()))
        .arg(format!("--snapshot-key-file={}", key_file.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains("--snapshot-key-file") && stderr.contains("chmod 600"),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
}

tests! {
    a_router_serves_from_its_snapshot_file_and_resumes_when_the_registry_returns,
    a_router_killed_while_it_persists_keeps_every_revision_that_it_reported_as_persisted,
    a_model_deleted_while_the_router_is_down_is_not_called_after_its_restart,
    a_restarted_router_refuses_an_older_database,
    a_damaged_snapshot_file_is_ignored_and_replaced,
    a_key_file_that_others_can_read_is_refused_at_startup (sync),
}
