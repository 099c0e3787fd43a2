//! The command line of the router. Nothing else reads flags or the environment.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser};
use http::Uri;
use switchboard::{
    names::{Group, RouterId},
    seal::Sealer,
    service::{
        chain::Chain,
        flags::{self, SharedFlags},
        health::ask::HealthQuestion,
        process::{Serve, Task},
    },
};

use crate::subscription::persist::SnapshotFile;

/// Before the name of every environment variable that stands for a flag.
pub const ENV_PREFIX: &str = "SWITCHBOARD_ROUTER_";

/// Where gRPC is served by default.
pub const LISTEN_ADDR: &str = "127.0.0.1:50052";

/// What the router runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC is served. Port 0: a free one.
    pub listen_addr: SocketAddr,
    /// Where liveness, readiness and metrics are served. Port 0: a free one.
    pub admin_addr: SocketAddr,
    /// Base URLs of the registry, tried in order.
    pub registry_addrs: Vec<Uri>,
    /// The router's stable name.
    pub router_id: RouterId,
    /// What the router belongs to.
    pub group: Group,
    /// How long calls that run may go on after the router was told to stop.
    pub drain_timeout: Duration,
    /// Whether no message of a streamed answer is small.
    pub pad_messages: bool,
    /// Where the newest state is kept for the next start. `None`: nowhere.
    pub snapshot: Option<SnapshotFile>,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Where to tell the bound addresses once serving.
    pub ready_file: Option<PathBuf>,
}

/// Reads flags and environment.
///
/// # Errors
///
/// The exit code, after help or one line that says which flag is wrong was printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task<Config>, ExitCode> {
    let Cli { command } = flags::parse(ENV_PREFIX, args)?;
    match command {
        Subcommand::Serve(flags) => serve(*flags)
            .map(|serve| Task::Serve(Box::new(serve)))
            .map_err(|message| flags::usage_error(&message)),
        Subcommand::Health(question) => Ok(Task::Health(question)),
    }
}

fn serve(flags: ServeFlags) -> Result<Serve<Config>, String> {
    flags.shared.check_exposure(&flags.listen_addr)?;
    let router_id = match flags.router_id {
        Some(given) => given,
        None => host_name()
            .and_then(|name| RouterId::parse(&name).map_err(|error| error.to_string()))
            .map_err(|error| format!("--router-id {error}"))?,
    };
    let snapshot = match flags.snapshot_file.zip(flags.snapshot_key_file) {
        Some((file, key_file)) => Some(snapshot(file, &key_file)?),
        None => None,
    };
    Ok(Serve {
        telemetry: flags.shared.telemetry("switchboard-router")?,
        config: Config {
            reflection: flags.shared.serves_reflection(&flags.listen_addr),
            listen_addr: flags.listen_addr,
            admin_addr: flags.admin_addr,
            registry_addrs: flags.registry_addr,
            router_id,
            group: flags.group,
            drain_timeout: flags.drain_timeout,
            pad_messages: flags.pad_messages,
            snapshot,
            ready_file: flags.shared.ready_file,
        },
    })
}

fn snapshot(file: PathBuf, key_file: &Path) -> Result<SnapshotFile, String> {
    let sealer = Sealer::read(key_file)
        .map_err(|error| format!("--snapshot-key-file: {} {}", key_file.display(), Chain(&error)))?;
    Ok(SnapshotFile::new(file, Arc::new(sealer)))
}

fn host_name() -> Result<String, String> {
    gethostname::gethostname()
        .into_string()
        .map_err(|_name| "must be given: the host name is no text".to_owned())
}

/// Follows the registry, selects the self-hosted model behind a feature for each call, and streams its answer back.
///
/// Every flag can also be given by the environment variable that its help names.
#[derive(Debug, Parser)]
#[command(name = "switchboard-router", version)]
struct Cli {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run the router; the default
    Serve(Box<ServeFlags>),
    /// Ask a router that runs whether it serves: exits with 0 when it does, with 1 otherwise
    Health(HealthQuestion),
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Serve gRPC on this address; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = LISTEN_ADDR)]
    listen_addr: SocketAddr,

    /// Serve liveness (/healthz), readiness (/readyz), metrics (/metrics) and, on loopback only, the log level (GET and PUT /log-level) over plain HTTP on this address; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9052")]
    admin_addr: SocketAddr,

    /// Follow the registry at this URL; give several (or separate them by commas) to try them in order
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        value_delimiter = ',',
        value_parser = flags::plain_url
    )]
    registry_addr: Vec<Uri>,

    /// The name by which the registry knows this router, 1 to 255 visible ASCII characters [default: the host name]
    #[arg(long, value_name = "ID", value_parser = RouterId::parse)]
    router_id: Option<RouterId>,

    /// What this router belongs to, for example a cluster or a zone, at most 255 characters: the registry shows it, and can wait for the routers of one group
    #[arg(long, value_name = "NAME", default_value = "", value_parser = Group::parse)]
    group: Group,

    /// After SIGTERM, let calls that run go on for at most this long, for example `110s` or `2m`
    #[arg(long, value_name = "DURATION", default_value = "110s", value_parser = flags::duration)]
    drain_timeout: Duration,

    /// Fill every message of a streamed answer up to 256 bytes: for callers behind a proxy written in Rust, such as Linkerd's, which else ends a whole connection once a few of its streams are not read
    #[arg(long)]
    pad_messages: bool,

    /// Keep the newest configuration, with its API tokens, sealed in this file, and begin with it when the registry is away
    #[arg(long, value_name = "PATH", requires = "snapshot_key_file")]
    snapshot_file: Option<PathBuf>,

    /// Seal the snapshot file with the first key of this file, open it with any: one key a line, an id, a colon and 64 hexadecimal digits; nobody but its owner may have rights to it
    #[arg(long, value_name = "PATH", requires = "snapshot_file")]
    snapshot_key_file: Option<PathBuf>,

    #[command(flatten)]
    shared: SharedFlags,
}
