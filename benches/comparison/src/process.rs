//! A server in a process of its own, with the CPU time and memory that the system reports for it.

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

/// A process that is killed when its handle is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// Starts a program without input and output.
    ///
    /// # Errors
    ///
    /// Returns an error if the program cannot be started.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Waits until the server has written its ready file, and returns the address in it.
    ///
    /// # Errors
    ///
    /// Returns an error if the process ends first, takes too long, or writes no address.
    pub async fn ready(&mut self, file: &Path) -> Result<SocketAddr> {
        let give_up = Instant::now() + READY_WITHIN;
        while !file.exists() {
            if let Some(status) = self.0.try_wait()? {
                bail!("the server ended with {status} before it wrote {}", file.display());
            }
            ensure!(
                Instant::now() < give_up,
                "the server did not write {} in time",
                file.display()
            );
            sleep(LOOK_EVERY).await;
        }
        let written: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        Ok(written["listen_addr"]
            .as_str()
            .context("the ready file has no address")?
            .parse()?)
    }

    /// Sends SIGTERM and waits until the process has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the process takes too long.
    pub async fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let give_up = Instant::now() + END_WITHIN;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < give_up, "the server did not end in time");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Returns the CPU time that all threads of the process have used, in user and in kernel mode.
    ///
    /// # Errors
    ///
    /// Returns an error if the system does not report it.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.0.id().to_string())
    }

    /// Returns the resident memory of the process in bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if the system does not report it.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("/proc/PID/status has no VmRSS")?.parse::<u64>()? * 1024)
    }
}

/// Returns the CPU time that this process has used.
///
/// # Errors
///
/// Returns an error if the system does not report it.
pub fn own_cpu() -> Result<Duration> {
    cpu("self")
}

fn cpu(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, which may contain any character, ends with the last bracket.
    let (_, after) = stat.rsplit_once(')').context("could not parse /proc/PID/stat")?;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("could not parse /proc/PID/stat")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}

/// Returns the first line that a program prints for `--version`.
///
/// # Errors
///
/// Returns an error if the program cannot be run.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("could not run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
