//! A registry without a router, which may fail to start and may end by itself.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{PATIENCE, binary};

/// Additional arguments and environment variables of a registry.
#[derive(Debug, Default)]
pub(super) struct Setting {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(&'static str, String)>,
}

/// The process of a registry.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    addr: SocketAddr,
}

/// Returns the path of the database in a folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("switchboard.db")
}

/// Returns the output of all registries that ran in a folder.
pub(super) fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

impl Registry {
    /// Starts a registry, which must succeed.
    pub(super) async fn start(folder: &Path) -> Self {
        let started = Self::start_with(folder, &Setting::default()).await;
        started.unwrap_or_else(|status| panic!("the registry ended with {status}:\n{}", log(folder)))
    }

    /// Starts a registry and waits until it serves or has ended.
    pub(super) async fn start_with(folder: &Path, setting: &Setting) -> Result<Self, ExitStatus> {
        let ready_file = folder.join("ready");
        drop(fs::remove_file(&ready_file));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let mut child = Command::new(binary("switchboard-registry"))
            .args([
                "--listen-addr=127.0.0.1:0",
                "--admin-addr=127.0.0.1:0",
                "--drain-timeout=1s",
            ])
            .arg(format!("--database-url=sqlite://{}", database(folder).display()))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(&setting.args)
            .envs(setting.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                let addresses: HashMap<String, SocketAddr> = serde_json::from_str(&text).unwrap();
                let addr = addresses["listen_addr"];
                return Ok(Self { child, addr });
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(!log(folder).contains("panicked"), "{}", log(folder));
                return Err(status);
            }
            if started.elapsed() > PATIENCE {
                drop(child.kill());
                panic!("the registry neither serves nor ends:\n{}", log(folder));
            }
            sleep(Duration::from_millis(3)).await;
        }
    }

    pub(super) fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.addr))
            .unwrap()
            .connect_lazy()
    }

    /// Sends SIGKILL.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end.
    pub(super) async fn terminate(self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.end().await.expect("the registry ends after SIGTERM")
    }

    /// Waits until the process ends by itself. Returns `None` if it does not end in time.
    pub(super) async fn end(mut self) -> Option<ExitStatus> {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            sleep(Duration::from_millis(3)).await;
        }
        None
    }

    /// Returns the health status of a service or of a part.
    pub(super) async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = HealthClient::new(self.channel()).check(request).await;
        answer.unwrap().into_inner().status()
    }

    pub(super) async fn wait_for_health(&self, service: &str, status: ServingStatus) {
        let asked = Instant::now();
        while self.health(service).await != status {
            assert!(asked.elapsed() < PATIENCE, "{service} does not become {status:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
