//! Servers in processes of their own, each on its core where there are enough, and what the system says that they cost.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const READY_WITHIN: Duration = Duration::from_secs(30);
const END_WITHIN: Duration = Duration::from_secs(20);

/// Which core is whose: the relay that is measured has one to itself where there are two.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    pub(crate) all: Vec<usize>,
    pub(crate) is_pinned: bool,
}

/// Who runs on a core.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tenant {
    Load,
    Model,
    Relay,
}

impl Cores {
    /// Those that this process may use.
    pub(crate) fn allowed(pin: bool) -> Result<Self> {
        let set = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        Ok(Self {
            is_pinned: pin && all.len() > 1,
            all,
        })
    }

    /// Puts the calling thread, and what it starts from now on, on the core of a tenant.
    pub(crate) fn move_to(&self, tenant: Tenant) -> Result<()> {
        if !self.is_pinned {
            return Ok(());
        }
        let last = self.all.len() - 1;
        let place = match tenant {
            Tenant::Load => 0,
            Tenant::Model => last - 1,
            Tenant::Relay => last,
        };
        let mut set = CpuSet::new();
        set.set(*self.all.get(place).context("a core")?);
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// A server that runs. It ends with its handle.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// Starts a program as a tenant of its core, and waits until it tells its address in the ready file.
    pub(crate) async fn start(
        cores: &Cores,
        tenant: Tenant,
        program: &Path,
        arguments: &[String],
        ready_file: &Path,
    ) -> Result<Self> {
        drop(fs::remove_file(ready_file));
        cores.move_to(tenant)?;
        let child = Command::new(program)
            .args(arguments)
            .arg("--ready-file")
            .arg(ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()));
        cores.move_to(Tenant::Load)?;
        let mut process = Self {
            child: child?,
            addr: ([127, 0, 0, 1], 0).into(),
        };
        let give_up = Instant::now() + READY_WITHIN;
        while !ready_file.exists() {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} {arguments:?} ended with {status}", program.display());
            }
            ensure!(Instant::now() < give_up, "{} is not ready", program.display());
            sleep(Duration::from_millis(10)).await;
        }
        let told: Value = serde_json::from_str(&fs::read_to_string(ready_file)?)?;
        process.addr = told["listen_addr"].as_str().context("an address")?.parse()?;
        Ok(process)
    }

    /// Tells it to end, and waits until it has.
    pub(crate) async fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let give_up = Instant::now() + END_WITHIN;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < give_up, "a server does not end");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// The memory that it has resident, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.context("VmRSS")?.parse::<f64>()? / 1024.0)
    }
}

/// The time on a core that this very process has used.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu("self")
}

/// The time on a core that a process has used, by all its threads, in its own code and in the system's.
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

/// What a program says of itself when asked for its version.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
