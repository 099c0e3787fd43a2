//! Compares the router with a bare relay, in one run, with the same client and the same model server.
//!
//! `cargo run --release -p switchboard-relay-benchmark` builds registry and router, takes all measures, prints a table
//! and writes `target/relay-benchmark.json`. Only the ratios are meaningful, because everything shares one machine. If
//! there are two cores, the measured relay has one of them for itself.

mod ask;
mod bed;
mod collector;
mod floor;
mod line;
mod load;
mod measures;
mod model;
mod process;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use switchboard_comparison::{figures::Figures, machine, process::version};
use tokio::{net::TcpListener, runtime};

use self::{
    bed::{Bed, Programs},
    process::{Cores, Tenant},
};

#[derive(Debug, Parser)]
#[command(name = "relay-benchmark", args_conflicts_with_subcommands = true)]
struct Flags {
    /// The role of this process. Without one it takes the measures
    #[command(subcommand)]
    role: Option<Role>,

    /// Take only these measures
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,

    /// Take all measures in about a minute; the figures are not meaningful
    #[arg(long)]
    quick: bool,

    /// Number of repetitions of each measure; a figure is the median
    #[arg(long, default_value_t = 5)]
    repetitions: usize,

    /// Seconds for which each of the two servers is measured in one repetition
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Number of concurrent streams for the memory measure
    #[arg(long, default_value_t = 5000)]
    streams: usize,

    /// Number of concurrent streams for the measure of gaps between events
    #[arg(long, default_value_t = 1000)]
    gap_streams: usize,

    /// Do not pin processes to cores
    #[arg(long)]
    no_pin: bool,

    /// Path of a built registry; without it all programs are built, including this one
    #[arg(long, requires = "router")]
    registry: Option<PathBuf>,

    /// Path of a built router
    #[arg(long, requires = "registry")]
    router: Option<PathBuf>,

    /// Path of the JSON file with the figures
    #[arg(long, default_value = "target/relay-benchmark.json")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run the model server
    #[command(hide = true)]
    Model {
        /// Path of the file that receives the address
        #[arg(long)]
        ready_file: PathBuf,
    },
    /// Run the bare relay
    #[command(hide = true)]
    Floor {
        /// Address of the model server
        #[arg(long)]
        model: SocketAddr,
        /// Path of the file that receives the address
        #[arg(long)]
        ready_file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Unary,
    Flat,
    Paced,
    Latency,
    Gaps,
    Streams,
    Telemetry,
    Resolution,
}

/// The measures' parameters.
#[derive(Debug)]
struct Plan {
    programs: Programs,
    repetitions: usize,
    window: Duration,
    streams: usize,
    gap_streams: usize,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    machine::raise_file_limit()?;
    match &flags.role {
        Some(Role::Model { ready_file }) => runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { model::serve(listen(ready_file).await?).await }),
        Some(Role::Floor { model, ready_file }) => runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(async { floor::serve(listen(ready_file).await?, *model).await }),
        None => {
            let cores = Cores::allowed(!flags.no_pin)?;
            // Build on all cores, before this process is pinned to one.
            let programs = programs(&flags)?;
            cores.move_to(Tenant::Load)?;
            runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(measure(flags, &cores, programs))
        }
    }
}

#[expect(clippy::print_stdout, reason = "the program's purpose is to print the table")]
async fn measure(flags: Flags, cores: &Cores, programs: Programs) -> Result<()> {
    let plan = if flags.quick {
        Plan {
            programs,
            repetitions: 1,
            window: Duration::from_secs(1),
            streams: 200,
            gap_streams: 100,
        }
    } else {
        Plan {
            programs,
            repetitions: flags.repetitions,
            window: Duration::from_secs_f64(flags.seconds),
            streams: flags.streams,
            gap_streams: flags.gap_streams,
        }
    };
    let measures = if flags.only.is_empty() {
        Measure::value_variants()
    } else {
        &flags.only
    };

    let bed = Bed::start(&plan.programs, cores).await?;
    let begun = machine::load()?;
    let mut figures = Figures::new(["router", "beside"], 2);
    for measure in measures {
        measure
            .take(&plan, &bed, &mut figures)
            .await
            .with_context(|| format!("could not take the measure {measure:?}"))?;
    }
    let ended = machine::load()?;
    bed.end().await?;

    let router = version(&plan.programs.router)?;
    let count = cores.all.len();
    let placed = if cores.is_pinned {
        "the relay has one core for itself"
    } else {
        "shared by all processes"
    };
    println!(
        "{count} cores, {placed}; load {begun} before, {ended} after; {router}; tonic's bare relay of the same build"
    );
    println!(
        "medians of {} repetitions of {:?}, alternating; {} streams for the memory, {} for the gaps\n",
        plan.repetitions, plan.window, plan.streams, plan.gap_streams
    );
    println!("{}", figures.table());
    for (subject, text) in figures.notes() {
        println!("{subject}: {text}");
    }
    let document = json!({
        "cores": count,
        "pinned": cores.is_pinned,
        "load": {"before": begun, "after": ended},
        "versions": {"router": router},
        "repetitions": plan.repetitions,
        "seconds": plan.window.as_secs_f64(),
        "streams": {"memory": plan.streams, "gaps": plan.gap_streams},
        "figures": figures.json(),
        "notes": figures.notes(),
    });
    fs::write(&flags.out, format!("{document:#}\n")).with_context(|| format!("could not write {}", flags.out.display()))
}

impl Measure {
    async fn take(self, plan: &Plan, bed: &Bed, figures: &mut Figures) -> Result<()> {
        match self {
            Self::Unary => measures::unary(plan, bed, figures).await,
            Self::Flat => measures::flat(plan, bed, figures).await,
            Self::Paced => measures::paced(plan, bed, figures).await,
            Self::Latency => measures::latency(plan, bed, figures).await,
            Self::Gaps => measures::gaps(plan, bed, figures).await,
            Self::Streams => measures::streams(plan, bed, figures).await,
            Self::Telemetry => measures::telemetry(plan, bed, figures).await,
            Self::Resolution => measures::resolution(plan, figures),
        }
    }
}

/// Binds a free port and writes its address to the ready file, as the services do.
async fn listen(ready_file: &Path) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let told = json!({ "listen_addr": listener.local_addr()?.to_string() });
    let partial = ready_file.with_extension("partial");
    fs::write(&partial, told.to_string())?;
    fs::rename(partial, ready_file)?;
    Ok(listener)
}

/// Returns the given programs, or builds them.
fn programs(flags: &Flags) -> Result<Programs> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("could not find the folder of this program")?;
    let (registry, router) = match (&flags.registry, &flags.router) {
        (Some(registry), Some(router)) => (registry.clone(), router.clone()),
        _ => {
            machine::build(folder, &["switchboard-relay-benchmark"])?;
            machine::build(folder, &["switchboard-registry", "switchboard-router"])?;
            (folder.join("switchboard-registry"), folder.join("switchboard-router"))
        }
    };
    Ok(Programs {
        registry,
        router,
        resolution: folder.join("relay-benchmark-resolution"),
        own,
    })
}
