//! Servers in processes of their own, each pinned to a core if there are enough.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use switchboard_comparison::process::Process;

/// The assignment of cores. If there are two or more, the measured relay has one for itself.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    pub(crate) all: Vec<usize>,
    pub(crate) is_pinned: bool,
}

/// The process that runs on a core.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tenant {
    Load,
    Model,
    Relay,
}

impl Cores {
    /// Returns the cores that this process may use.
    pub(crate) fn allowed(pin: bool) -> Result<Self> {
        let set = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        Ok(Self {
            is_pinned: pin && all.len() > 1,
            all,
        })
    }

    /// Pins the calling thread, and processes that it starts from now on, to the core of a tenant.
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
        set.set(*self.all.get(place).context("the core does not exist")?);
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// A server that runs on the core of its tenant.
#[derive(Debug)]
pub(crate) struct PinnedProcess {
    process: Process,
    pub(crate) addr: SocketAddr,
}

impl PinnedProcess {
    /// Starts a program on the core of its tenant, and waits until it has written its address to the ready file.
    pub(crate) async fn start(
        cores: &Cores,
        tenant: Tenant,
        program: &Path,
        arguments: &[String],
        ready_file: &Path,
    ) -> Result<Self> {
        drop(fs::remove_file(ready_file));
        let mut arguments = arguments.to_vec();
        arguments.push(format!("--ready-file={}", ready_file.display()));
        cores.move_to(tenant)?;
        let process = Process::start(program, &arguments);
        cores.move_to(Tenant::Load)?;
        let mut process = process?;
        let addr = process.ready(ready_file).await?;
        Ok(Self { process, addr })
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.process.end().await
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }

    /// Returns the resident memory in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        Ok(self.process.memory()? as f64 / (1024.0 * 1024.0))
    }
}
