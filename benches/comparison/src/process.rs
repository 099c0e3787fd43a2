//! A server in a process of its own, and what the system says that it costs.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long a server may take to write its ready file.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process that ends with its handle.
#[derive(Debug)]
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// Starts a program, without input and output.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Waits until the server has written its ready file, and returns the address in it.
    ///
    /// # Errors
    ///
    /// If the process ends first, takes too long, or writes no address.
    pub async fn ready(&mut self, file: &Path) -> Result<SocketAddr> {
        let give_up = Instant::now() + READY_WITHIN;
        while !file.exists() {
            if let Some(status) = self.0.try_wait()? {
                bail!("the server of {} ended with {status}", file.display());
            }
            ensure!(Instant::now() < give_up, "{} is not written", file.display());
            sleep(LOOK_EVERY).await;
        }
        let written: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        Ok(written["listen_addr"].as_str().context("an address")?.parse()?)
    }

    /// Sends SIGTERM, and waits until the process has ended.
    ///
    /// # Errors
    ///
    /// If it takes too long.
    pub async fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let give_up = Instant::now() + END_WITHIN;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < give_up, "the server does not end");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The time on a core that it has used, by all its threads, in its own code and in the system's.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.0.id().to_string())
    }

    /// The bytes of memory that it has resident.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("VmRSS")?.parse::<u64>()? * 1024)
    }
}

/// The time on a core that this very process has used.
///
/// # Errors
///
/// If the system does not tell.
pub fn own_cpu() -> Result<Duration> {
    cpu("self")
}

fn cpu(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, which may hold anything, ends with the last bracket.
    let (_, after) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("/proc/PID/stat")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}

/// The first line that a program prints for `--version`.
///
/// # Errors
///
/// If it cannot be run.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
