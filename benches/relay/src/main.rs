//! Measures the router beside a bare relay, in one run, with the same client and the same model server.
//!
//! `cargo run --release -p switchboard-relay-benchmark` builds registry and router, measures all, prints a table and writes
//! `target/relay-benchmark.json`. What counts are the ratios: all of it shares a machine. Where there are two cores the relay
//! that is measured has one to itself.

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
    /// What this process is. Left out: the one that measures
    #[command(subcommand)]
    role: Option<Role>,

    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,

    /// A look at all in about a minute, with figures that prove nothing
    #[arg(long)]
    quick: bool,

    /// How often a measure is repeated; a figure is the median
    #[arg(long, default_value_t = 5)]
    repetitions: usize,

    /// How many seconds each of two that stand beside each other is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Streams at a time whose memory is looked at
    #[arg(long, default_value_t = 5000)]
    streams: usize,

    /// Streams at a time whose gaps between events are looked at
    #[arg(long, default_value_t = 1000)]
    gap_streams: usize,

    /// Let the system choose the cores
    #[arg(long)]
    no_pin: bool,

    /// A registry that was built already; without it all programs are built, this one's own too
    #[arg(long, requires = "router")]
    registry: Option<PathBuf>,

    /// A router that was built already
    #[arg(long, requires = "registry")]
    router: Option<PathBuf>,

    /// Where the figures go as JSON
    #[arg(long, default_value = "target/relay-benchmark.json")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The model server
    #[command(hide = true)]
    Model {
        /// Gets the address
        #[arg(long)]
        ready_file: PathBuf,
    },
    /// The bare relay
    #[command(hide = true)]
    Floor {
        /// Where the model server is
        #[arg(long)]
        model: SocketAddr,
        /// Gets the address
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

/// What is measured, with how much.
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
            // Built on all cores, before this process keeps to one.
            let programs = programs(&flags)?;
            cores.move_to(Tenant::Load)?;
            runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(measure(flags, &cores, programs))
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
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
            .with_context(|| format!("measure {measure:?}"))?;
    }
    let ended = machine::load()?;
    bed.end().await?;

    let router = version(&plan.programs.router)?;
    let count = cores.all.len();
    let placed = if cores.is_pinned {
        "the relay has one to itself"
    } else {
        "shared by all"
    };
    println!(
        "{count} cores, {placed}; load {begun} before, {ended} after; {router}; tonic's bare relay of the same build"
    );
    println!(
        "medians of {} repetitions of {:?}, in turns; {} streams for the memory, {} for the gaps\n",
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
    fs::write(&flags.out, format!("{document:#}\n")).with_context(|| format!("write {}", flags.out.display()))
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

/// A free port, told in the ready file as the services tell theirs.
async fn listen(ready_file: &Path) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let told = json!({ "listen_addr": listener.local_addr()?.to_string() });
    let partial = ready_file.with_extension("partial");
    fs::write(&partial, told.to_string())?;
    fs::rename(partial, ready_file)?;
    Ok(listener)
}

/// Those that were given, or those that are built now.
fn programs(flags: &Flags) -> Result<Programs> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("the folder of this program")?;
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
