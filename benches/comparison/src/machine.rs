//! The machine that runs the benchmark: its limits, its load, and the programs that are built on it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to its maximum. Each connection needs one file in this process and one in the server,
/// which inherits the limit.
///
/// # Errors
///
/// Returns an error if the system refuses.
pub fn raise_file_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Returns the load of the machine: the mean number of runnable processes over the last minute.
///
/// # Errors
///
/// Returns an error if the system does not report the load.
pub fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Returns the folder of programs of a profile (`release` or `debug`), next to the folder of this program.
///
/// # Errors
///
/// Returns an error if this program is not in such a folder.
pub fn programs(profile: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent);
    Ok(target
        .context("could not find the folder of this program")?
        .join(profile))
}

/// Builds the programs of some packages into a folder of [`programs`].
///
/// # Errors
///
/// Returns an error if they cannot be built.
pub fn build(folder: &Path, packages: &[&str]) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--bins"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for package in packages {
        cargo.args(["--package", package]);
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    ensure!(built.success(), "could not build {packages:?}");
    Ok(())
}
