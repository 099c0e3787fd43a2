//! The command line of the registry. Nothing else reads flags or the environment.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser};
use switchboard::{
    names::{Revision, StoreId},
    service::{
        flags::{self, SharedFlags},
        health::ask::HealthQuestion,
        process::Serve,
    },
};

use crate::{domain::life::Mark, store};

/// Prefix of the environment variable that belongs to each flag.
pub const ENV_PREFIX: &str = "SWITCHBOARD_REGISTRY_";

/// Address on which gRPC is served by default.
pub const LISTEN_ADDR: &str = "127.0.0.1:50051";

/// Configuration of a registry that serves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the gRPC listener. Port 0 picks a free port.
    pub listen_addr: SocketAddr,
    /// Address of the listener for liveness, readiness and metrics. Port 0 picks a free port.
    pub admin_addr: SocketAddr,
    /// The database file. It is created and seeded if it does not exist.
    pub database: PathBuf,
    /// Store that the database must belong to. `None`: any store is accepted, and a missing database is created.
    pub store_id: Option<StoreId>,
    /// How long running calls may continue after the registry was asked to stop.
    pub drain_timeout: Duration,
    /// Interval between two bookmarks on a change stream, plus or minus a tenth.
    pub heartbeat: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// File that receives the bound addresses once the registry serves. `None`: no file is written.
    pub ready_file: Option<PathBuf>,
}

impl Config {
    /// Logs that a registry starts with this configuration and with a database at `revision`.
    pub fn log_start(&self, revision: Revision) {
        // Every field is named, so that a new one cannot be forgotten here.
        let Self {
            listen_addr,
            admin_addr,
            database,
            store_id,
            drain_timeout,
            heartbeat,
            reflection,
            ready_file,
        } = self;
        let ready_file = ready_file.as_ref().map(|path| tracing::field::display(path.display()));
        tracing::info!(
            %listen_addr,
            %admin_addr,
            database = %database.display(),
            store_id = store_id.map(tracing::field::display),
            drain_timeout = %flags::format_duration(*drain_timeout),
            heartbeat = %flags::format_duration(*heartbeat),
            reflection,
            ready_file,
            %revision,
            "starting"
        );
    }
}

/// What the command line asks the process to do.
#[derive(Debug)]
pub enum RegistryTask {
    /// Run the registry.
    Serve(Box<Serve<Config>>),
    /// Ask a running registry whether it serves.
    Health(HealthQuestion),
    /// Run a command on the database, then exit.
    Command(Command),
}

/// A command that works on the database once and then exits.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Copy the database to FILE; works while a registry runs on it
    ///
    /// The copy is the database at one revision, is verified, and is complete in itself. Like the database, it contains
    /// the API tokens of the models: protect it in the same way.
    #[command(after_help = CODES)]
    Backup(Backup),
    /// Verify the database or a backup without changing it
    ///
    /// Checks the file, every digest of the history and of the state, and that credentials match their models. A
    /// registry may be running on the database.
    #[command(after_help = CODES)]
    Verify(Verify),
    /// Replace the database with a backup, as a new incarnation; stop the registry first
    ///
    /// Routers accept the restored configuration as the newest, whatever they have received from the replaced database.
    /// The replaced database is kept next to the new one. Run this command as the user that runs the registry.
    #[command(after_help = CODES)]
    Restore(Restore),
    /// Declare the content of the database the newest, as a new incarnation, for routers that refuse to follow it
    ///
    /// The new incarnation begins above the incarnations and revisions that are known. If a registry is running on the
    /// database, the registry begins it, also above everything that its routers have seen. Otherwise this command does.
    #[command(after_help = CODES)]
    AcceptHistory(AcceptHistory),
}

/// The database that a command works on.
#[derive(Debug, Args)]
pub struct DatabaseFlag {
    /// The database: an SQLite file
    #[arg(long, value_name = "URL", default_value = DATABASE_URL, value_parser = store::path_of)]
    pub database_url: PathBuf,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// File to write the copy to
    pub file: PathBuf,

    /// Replace FILE if it exists
    #[arg(long)]
    pub force: bool,

    /// The database to copy.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// File to verify [default: the database]
    pub file: Option<PathBuf>,

    /// The database, which is verified if `file` is `None`.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Backup to restore
    pub file: PathBuf,

    /// Begin above this incarnation number and this revision too, not only above those in the files; needed if the
    /// replaced database cannot be read
    #[arg(long, value_name = "NUMBER,REVISION")]
    pub above: Option<Mark>,

    /// The database to replace.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// Arguments of `accept-history`.
#[derive(Debug, Args)]
pub struct AcceptHistory {
    /// Begin above this incarnation number and this revision too, not only above those that are known; an error in the
    /// registry's log reports what its routers have seen
    #[arg(long, value_name = "NUMBER,REVISION")]
    pub above: Option<Mark>,

    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Give the database this store id, so that routers that follow the store with this id accept the database
    #[arg(long, value_name = "ID", value_parser = store_id)]
    pub adopt_store: Option<StoreId>,

    /// The database to declare the newest.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// Footer of the help of everything that uses a database.
const CODES: &str = "Exit code: 2 if a flag is wrong, 3 if the database or the backup is damaged or is not a registry's database, 4 if another process holds the database, 1 after any other failure";

const DATABASE_URL: &str = "sqlite://switchboard.db";

const HEARTBEAT: Duration = Duration::from_secs(15);

/// Parses the command line and the environment.
///
/// # Errors
///
/// The exit code of the process, after the help, or one line that names the wrong flag, was printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<RegistryTask, ExitCode> {
    let Cli { subcommand, flags } = flags::parse(ENV_PREFIX, args)?;
    let flags = match subcommand {
        None => flags,
        Some(Subcommand::Serve(flags)) => *flags,
        Some(Subcommand::Health(question)) => return Ok(RegistryTask::Health(question)),
        Some(Subcommand::Command(command)) => return Ok(RegistryTask::Command(command)),
    };
    serve(flags)
        .map(|serve| RegistryTask::Serve(Box::new(serve)))
        .map_err(|message| flags::usage_error(&message))
}

fn serve(flags: ServeFlags) -> Result<Serve<Config>, String> {
    flags.shared.check_exposure(&flags.listen_addr)?;
    Ok(Serve {
        telemetry: flags.shared.telemetry("switchboard-registry")?,
        config: Config {
            reflection: flags.shared.serves_reflection(&flags.listen_addr),
            listen_addr: flags.listen_addr,
            admin_addr: flags.admin_addr,
            database: flags.database_url,
            store_id: flags.store_id,
            drain_timeout: flags.drain_timeout,
            heartbeat: HEARTBEAT,
            ready_file: flags.shared.ready_file,
        },
    })
}

/// The Switchboard registry: owns the configuration of models and features, serves it over gRPC, and streams its
/// changes to routers.
///
/// Without a subcommand the registry runs, as with `serve`. Every flag can also be set by the environment variable that
/// its help names.
#[derive(Debug, Parser)]
#[command(name = "switchboard-registry", version, args_conflicts_with_subcommands = true, after_help = CODES)]
struct Cli {
    #[command(subcommand)]
    subcommand: Option<Subcommand>,

    /// The flags of `serve`, for a command line without a subcommand.
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run the registry; this is the default
    #[command(after_help = CODES)]
    Serve(Box<ServeFlags>),
    /// Ask a running registry whether it serves: exits with 0 if it does, with 1 otherwise
    #[command(mut_arg("listen_addr", |arg| arg.default_value(LISTEN_ADDR)))]
    Health(HealthQuestion),
    #[command(flatten)]
    Command(Command),
}

fn store_id(text: &str) -> Result<StoreId, &'static str> {
    StoreId::parse(text).map_err(|_malformed| "must be 32 hexadecimal characters, as `verify` prints them")
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Serve gRPC on this address; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = LISTEN_ADDR)]
    listen_addr: SocketAddr,

    /// Serve liveness (/healthz), readiness (/readyz) and metrics (/metrics) over plain HTTP on this address, to all
    /// callers; if the address is on loopback, and only then, also the log level (GET and PUT /log-level); port 0 picks
    /// a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9051")]
    admin_addr: SocketAddr,

    /// Keep the configuration in this SQLite file on a local disk; it is created if it does not exist
    #[arg(long, value_name = "URL", default_value = DATABASE_URL, value_parser = store::path_of)]
    database_url: PathBuf,

    /// Start only if the database exists and belongs to this store, so that an empty volume is not mistaken for a
    /// configuration
    #[arg(long, value_name = "ID", value_parser = store_id)]
    store_id: Option<StoreId>,

    /// After SIGTERM, let running calls continue for at most this long, for example `10s` or `1m`
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = flags::duration)]
    drain_timeout: Duration,

    #[command(flatten)]
    shared: SharedFlags,
}
