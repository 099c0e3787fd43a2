//! Compares the registry's change stream with etcd, in one run and with the same client.
//!
//! `cargo run --release -p switchboard-stream-benchmark` builds the registry, takes all measures, prints a table and
//! writes `target/stream-benchmark.json`. etcd is Debian's `etcd-server`. Only the ratios are meaningful: the client
//! runs on the same cores as the servers, and both have the same load.

mod call;
mod followers;
mod measures;
mod peer;
mod scan;
mod writers;

use std::{fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;
use switchboard_comparison::{figures::Figures, machine};

use self::peer::{Programs, SIDES, Side};

#[derive(Debug, Parser)]
#[command(name = "stream-benchmark")]
struct Flags {
    /// Take only these measures
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,

    /// Numbers of followers for the measure in which all followers await each write
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    followers: Vec<usize>,

    /// Numbers of concurrent writers
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    writers: Vec<usize>,

    /// Number of repetitions of each measure; a figure is the median
    #[arg(long, default_value_t = 5)]
    repetitions: usize,

    /// Number of writes in one repetition that all followers await
    #[arg(long, default_value_t = 100)]
    rounds: usize,

    /// Number of writes in one repetition by a single writer; more writers make more writes, up to eight times as many
    #[arg(long, default_value_t = 500)]
    writes: usize,

    /// Number of followers for the measures of memory, burst, resume and snapshot
    #[arg(long, default_value_t = 1000)]
    storm: usize,

    /// Number of commits of the burst
    #[arg(long, default_value_t = 10_000)]
    burst: usize,

    /// Size of a snapshot in bytes
    #[arg(long, default_value_t = 1024 * 1024)]
    snapshot_bytes: usize,

    /// Path of a built registry; without it one is built
    #[arg(long)]
    registry: Option<PathBuf>,

    /// Path of the etcd server
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,

    /// Folder for the databases, on the disk that is to be measured. Default: the system's temporary folder
    #[arg(long)]
    folder: Option<PathBuf>,

    /// Path of the JSON file with the figures
    #[arg(long, default_value = "target/stream-benchmark.json")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Follow,
    Memory,
    Writes,
    Burst,
    Resume,
    Snapshot,
}

/// The measures' parameters.
#[derive(Debug)]
struct Plan {
    programs: Programs,
    folder: PathBuf,
    followers: Vec<usize>,
    writers: Vec<usize>,
    repetitions: usize,
    rounds: usize,
    writes: usize,
    storm: usize,
    burst: usize,
    snapshot_bytes: usize,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the program's purpose is to print the table")]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    machine::raise_file_limit()?;
    let programs = Programs {
        registry: flags.registry.map_or_else(build_registry, Ok)?,
        etcd: flags.etcd,
    };
    ensure!(
        programs.etcd.exists(),
        "{} does not exist: install Debian's `etcd-server`",
        programs.etcd.display()
    );
    let plan = Plan {
        programs,
        folder: flags.folder.unwrap_or_else(std::env::temp_dir),
        followers: flags.followers,
        writers: flags.writers,
        repetitions: flags.repetitions,
        rounds: flags.rounds,
        writes: flags.writes,
        storm: flags.storm,
        burst: flags.burst,
        snapshot_bytes: flags.snapshot_bytes,
    };
    let measures = if flags.only.is_empty() {
        Measure::value_variants()
    } else {
        &flags.only
    };

    let begun = machine::load()?;
    let mut figures = Figures::new(SIDES.map(Side::name), 3);
    for measure in measures {
        measure
            .take(&plan, &mut figures)
            .await
            .with_context(|| format!("could not take the measure {measure:?}"))?;
    }
    let ended = machine::load()?;

    let cores = thread::available_parallelism()?;
    let versions = SIDES.map(|side| side.version(&plan.programs));
    let [registry, etcd] = versions;
    let (registry, etcd) = (registry?, etcd?);
    println!("{cores} cores, shared with the client; load {begun} before, {ended} after; {registry}; {etcd}");
    println!("medians of {} repetitions, the two alternating\n", plan.repetitions);
    println!("{}", figures.table());
    let document = json!({
        "cores": cores.get(),
        "load": {"before": begun, "after": ended},
        "versions": {Side::Registry.name(): registry, Side::Etcd.name(): etcd},
        "repetitions": plan.repetitions,
        "figures": figures.json(),
    });
    fs::write(&flags.out, format!("{document:#}\n")).with_context(|| format!("could not write {}", flags.out.display()))
}

impl Measure {
    async fn take(self, plan: &Plan, figures: &mut Figures) -> Result<()> {
        match self {
            Self::Follow => measures::follow(plan, figures).await,
            Self::Memory => measures::memory(plan, figures).await,
            Self::Writes => measures::writes(plan, figures).await,
            Self::Burst => measures::burst(plan, figures).await,
            Self::Resume => measures::resume(plan, figures).await,
            Self::Snapshot => measures::snapshot(plan, figures).await,
        }
    }
}

/// Builds the registry in the release profile.
fn build_registry() -> Result<PathBuf> {
    let folder = machine::programs("release")?;
    machine::build(&folder, &["switchboard-registry"])?;
    Ok(folder.join("switchboard-registry"))
}
