//! The command line of the router. No other module reads flags or environment variables.

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

/// Prefix of the environment variable for every flag.
pub const ENV_PREFIX: &str = "SWITCHBOARD_ROUTER_";

/// Default address of the gRPC port.
pub const LISTEN_ADDR: &str = "127.0.0.1:50052";

/// Footer of the help of `serve`.
const CODES: &str = "Exit code: 2 if a flag is wrong or names a file that cannot be used, 1 after any other failure";

/// Configuration of a router process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the gRPC port. Port 0 picks a free port.
    pub listen_addr: SocketAddr,
    /// Address of the HTTP port for liveness, readiness and metrics. Port 0 picks a free port.
    pub admin_addr: SocketAddr,
    /// Base URLs of the registry, tried in order.
    pub registry_addrs: Vec<Uri>,
    /// Stable name under which the registry knows this router.
    pub router_id: RouterId,
    /// Group of this router, for example its cluster or zone.
    pub group: Group,
    /// How long running calls may continue after the router starts to shut down.
    pub drain_timeout: Duration,
    /// Whether every message of a streamed answer is padded to at least 256 bytes.
    pub pad_messages: bool,
    /// File that keeps the newest configuration for the next start. `None`: the configuration is not kept.
    pub snapshot: Option<SnapshotFile>,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// File to which the bound addresses are written once the router serves. `None`: they are not written.
    pub ready_file: Option<PathBuf>,
}

impl Config {
    /// Logs that a router starts with this configuration.
    pub fn log_start(&self) {
        // Every field is named, so that a new one cannot be forgotten here.
        let Self {
            listen_addr,
            admin_addr,
            registry_addrs,
            router_id,
            group,
            drain_timeout,
            pad_messages,
            snapshot,
            reflection,
            ready_file,
        } = self;
        let registry_addrs: Vec<String> = registry_addrs.iter().map(Uri::to_string).collect();
        let snapshot_file = snapshot
            .as_ref()
            .map(|snapshot| tracing::field::display(snapshot.path().display()));
        let ready_file = ready_file.as_ref().map(|path| tracing::field::display(path.display()));
        tracing::info!(
            %listen_addr,
            %admin_addr,
            registry_addr = %registry_addrs.join(","),
            %router_id,
            group = Some(group.as_str()).filter(|group| !group.is_empty()),
            drain_timeout = %flags::format_duration(*drain_timeout),
            pad_messages,
            snapshot_file,
            reflection,
            ready_file,
            "starting"
        );
    }
}

/// Parses the flags and environment variables.
///
/// # Errors
///
/// The exit code, after printing the help, the version, or one line that names the wrong flag.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task<Config>, ExitCode> {
    let Cli { subcommand, flags } = flags::parse(ENV_PREFIX, args)?;
    let flags = match subcommand {
        None => flags,
        Some(Subcommand::Serve(flags)) => *flags,
        Some(Subcommand::Health(question)) => return Ok(Task::Health(question)),
    };
    serve(flags)
        .map(|serve| Task::Serve(Box::new(serve)))
        .map_err(|message| flags::usage_error(&message))
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
    let snapshot = SnapshotFile::new(file, Arc::new(sealer));
    snapshot.check().map_err(|error| {
        format!(
            "--snapshot-file: cannot write `{}`: {}; choose a file in a folder that exists and that the router may write to",
            snapshot.path().display(),
            Chain(&error)
        )
    })?;
    Ok(snapshot)
}

fn host_name() -> Result<String, String> {
    gethostname::gethostname()
        .into_string()
        .map_err(|_name| "must be given: the host name is not valid UTF-8".to_owned())
}

/// The Switchboard router: selects a self-hosted language model for each inference call and streams its answer to the caller.
///
/// It receives its configuration from the registry. Without a subcommand the router runs, as with `serve`. Every flag can also be set by the environment variable that its help names.
#[derive(Debug, Parser)]
#[command(name = "switchboard-router", version, args_conflicts_with_subcommands = true, after_help = CODES)]
struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,

    /// The flags of `serve`, for a command line without a subcommand.
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run the router; this is the default
    #[command(after_help = CODES)]
    Serve(Box<ServeFlags>),
    /// Ask a running router whether it serves: exits with 0 if it does, with 1 otherwise
    #[command(mut_arg("listen_addr", |arg| arg.default_value(LISTEN_ADDR)))]
    Health(HealthQuestion),
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Serve gRPC on this address; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = LISTEN_ADDR)]
    listen_addr: SocketAddr,

    /// Serve liveness (/healthz), readiness (/readyz) and metrics (/metrics) over plain HTTP on this address, to all callers; if the address is on loopback, and only then, also the log level (GET and PUT /log-level); port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9052")]
    admin_addr: SocketAddr,

    /// Receive the configuration from the registry at this URL; for several URLs, which are tried in order, repeat the flag or separate them by commas
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        value_delimiter = ',',
        value_parser = flags::plain_url
    )]
    registry_addr: Vec<Uri>,

    /// Name under which the registry knows this router, 1 to 255 visible ASCII characters [default: the host name]
    #[arg(long, value_name = "ID", value_parser = RouterId::parse)]
    router_id: Option<RouterId>,

    /// Group of this router, for example its cluster or zone, at most 255 characters; the registry shows it and can wait for the routers of one group
    #[arg(long, value_name = "NAME", default_value = "", value_parser = Group::parse)]
    group: Group,

    /// After SIGTERM, let running calls continue for at most this long, for example `110s` or `2m`
    #[arg(long, value_name = "DURATION", default_value = "110s", value_parser = flags::duration)]
    drain_timeout: Duration,

    /// Pad every message of a streamed answer to at least 256 bytes: for callers that connect through a proxy written in Rust, such as Linkerd's, which otherwise closes a whole connection once a few of its streams are not read
    #[arg(long)]
    pad_messages: bool,

    /// Keep the newest configuration with its API tokens, sealed, in this file, so that the router can start while the registry is unreachable; its folder must exist and be writable
    #[arg(long, value_name = "PATH", requires = "snapshot_key_file")]
    snapshot_file: Option<PathBuf>,

    /// Seal the snapshot file with the first key in this file, and open it with any of its keys; one key per line: an id, a colon and 64 hexadecimal digits; only the owner of the file may have access to it
    #[arg(long, value_name = "PATH", requires = "snapshot_file")]
    snapshot_key_file: Option<PathBuf>,

    #[command(flatten)]
    shared: SharedFlags,
}
