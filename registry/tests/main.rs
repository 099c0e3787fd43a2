//! The registry's process and its database file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

fn registry(database: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard-registry"));
    command.args(["--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"]);
    command.arg(format!("--database-url=sqlite://{}", database.display()));
    command.stdin(Stdio::null());
    command
}

/// A registry that serves; it ends with the test.
struct Running(Child);

impl Running {
    async fn start(folder: &Path) -> Self {
        let ready_file = folder.join("ready.json");
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
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_second_registry_on_one_file_is_refused_by_whatever_path_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Running::start(folder.path()).await;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("switchboard.db"), &link).unwrap();
    for path in [folder.path().join("switchboard.db"), link] {
        let told = failure(&registry(&path).output().unwrap());
        assert!(told.contains("another registry holds"), "{told}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switchboard.db");
    let text = "this is no database, and long enough to be looked at as one".repeat(20);
    std::fs::write(&path, &text).unwrap();
    failure(&registry(&path).output().unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn the_database_and_its_companions_are_for_their_owner_alone() {
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
    assert!(seen >= 2, "the database and its lock");
}
