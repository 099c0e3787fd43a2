//! A server in a process of its own, and what the system says that it costs.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// How long a server may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(20);

/// A process that ends with its handle.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    pub(crate) fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Tells it to end, and waits until it has.
    pub(crate) async fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let give_up = Instant::now() + END_WITHIN;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < give_up, "the server does not end");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The time on a core that it has used, by all its threads, in its own code and in the system's.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, which may hold anything, ends with the last bracket.
        let (_, after) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let mut fields = after.split_whitespace().skip(11);
        let mut ticks = || -> Result<u64> { Ok(fields.next().context("/proc/PID/stat")?.parse()?) };
        let ticks = ticks()? + ticks()?;
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// The bytes of memory that it has resident.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("VmRSS")?.parse::<u64>()? * 1024)
    }
}

/// What a program says of itself when asked for its version: the first line.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
