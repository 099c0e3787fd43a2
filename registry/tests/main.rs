//! The registry's process and its database file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "main/commands.rs"]
mod commands;
#[path = "main/foreign.rs"]
mod foreign;
#[path = "main/stored.rs"]
mod stored;

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use switchboard::pb::registry::{Settings, UpdateSettingsRequest, settings_service_client::SettingsServiceClient};
use tokio::time::{Instant, sleep};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

fn registry(database: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard-registry"));
    command.args(["--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"]);
    command.arg(format!("--database-url=sqlite://{}", database.display()));
    command.stdin(Stdio::null());
    command
}

/// A running registry, which ends when it is dropped.
struct Running(Child);

impl Running {
    async fn start(folder: &Path) -> Self {
        let ready_file = folder.join("ready.json");
        // A registry that was killed leaves its ready file behind.
        drop(std::fs::remove_file(&ready_file));
        let child = registry(&folder.join("switchboard.db"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self(child);
        let started = Instant::now();
        while !ready_file.exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "the registry is not ready");
            sleep(Duration::from_millis(5)).await;
        }
        running
    }

    /// Returns a channel to the address in the ready file.
    fn channel(folder: &Path) -> Channel {
        let text = std::fs::read_to_string(folder.join("ready.json")).unwrap();
        let addr = text
            .split("\"listen_addr\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        Channel::from_shared(format!("http://{addr}")).unwrap().connect_lazy()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_write_waits_for_a_locked_database_and_then_fails_as_busy() {
    let folder = tempfile::tempdir().unwrap();
    let _running = Running::start(folder.path()).await;
    let mut settings = SettingsServiceClient::new(Running::channel(folder.path()));
    let mut switch = async |beta_enabled| {
        let changed = Settings {
            beta_enabled: Some(beta_enabled),
            ..Default::default()
        };
        settings
            .update_settings(UpdateSettingsRequest {
                settings: Some(changed),
                ..Default::default()
            })
            .await
    };

    let options = SqliteConnectOptions::new().filename(folder.path().join("switchboard.db"));
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let status = switch(true).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(
        (status.code(), details.error_info().unwrap().reason.as_str()),
        (Code::Unavailable, "STORAGE_BUSY")
    );
    assert!(details.retry_info().is_some());

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let settings = switch(true).await.unwrap().into_inner();
    assert_eq!((settings.beta_enabled, settings.revision), (Some(true), 2));
}

fn in_use(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_second_registry_on_the_same_file_is_refused_through_any_path() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Running::start(folder.path()).await;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("switchboard.db"), &link).unwrap();
    for path in [folder.path().join("switchboard.db"), link] {
        let told = in_use(&registry(&path).output().unwrap());
        assert!(told.contains("another registry holds"), "{told}");
    }
}

#[tokio::test]
async fn only_the_owner_can_access_the_database_files() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let _running = Running::start(folder.path()).await;
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("switchboard.db") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "at least the database and its lock exist");
}
