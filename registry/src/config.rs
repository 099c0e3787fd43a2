//! The command line of the registry. Nothing else reads flags or the environment.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser};
use switchboard::{
    names::StoreId,
    service::{
        flags::{self, SharedFlags},
        health::ask::HealthQuestion,
        process::Serve,
    },
};

use crate::{domain::life::Mark, store};

/// Before the name of every environment variable that stands for a flag.
pub const ENV_PREFIX: &str = "SWITCHBOARD_REGISTRY_";

/// Where gRPC is served by default.
pub const LISTEN_ADDR: &str = "127.0.0.1:50051";

/// What the registry runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC is served. Port 0: a free one.
    pub listen_addr: SocketAddr,
    /// Where liveness, readiness and metrics are served. Port 0: a free one.
    pub admin_addr: SocketAddr,
    /// The database file. It is made, and seeded, when it is missing.
    pub database: PathBuf,
    /// The store that the database has to be of. `None`: any, and one is made when it is missing.
    pub store_id: Option<StoreId>,
    /// How long calls that run may go on after the registry was told to stop.
    pub drain_timeout: Duration,
    /// How often a follower of the change stream gets a bookmark, give or take a tenth.
    pub heartbeat: Duration,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Where to tell the bound addresses once serving.
    pub ready_file: Option<PathBuf>,
}

/// What the process was told to do.
#[derive(Debug)]
pub enum RegistryTask {
    /// Serve.
    Serve(Box<Serve<Config>>),
    /// Ask a registry that runs whether it serves.
    Health(HealthQuestion),
    /// Do something to the database.
    Command(Command),
}

/// Something to be done to the database, once.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Copy the database to FILE, also while a registry runs on it
    ///
    /// The copy is of one revision, is verified, and is complete in itself. It holds the API tokens of the models as the database does: keep it as safe.
    #[command(after_help = CODES)]
    Backup(Backup),
    /// Verify the database, or a backup, and change nothing
    ///
    /// Checks the file, every digest of the history and of the state, and that credentials fit their models. A registry may be running on it.
    #[command(after_help = CODES)]
    Verify(Verify),
    /// Put a backup in the place of the database, as a new incarnation; stop the registry first
    ///
    /// Routers take what was restored as the newest, whatever they have seen of the database that it replaces, which is kept beside it. Run it as the user that the registry runs as.
    #[command(after_help = CODES)]
    Restore(Restore),
    /// Declare what the database holds the newest, as a new incarnation, for routers that refuse to follow it
    ///
    /// A registry that runs on the database does it itself, above all that its routers have seen; otherwise it is done here.
    #[command(after_help = CODES)]
    AcceptHistory(AcceptHistory),
}

/// The database that a command is about.
#[derive(Debug, Args)]
pub struct DatabaseFlag {
    /// The database: this SQLite file
    #[arg(long, value_name = "URL", default_value = DATABASE_URL, value_parser = store::path_of)]
    pub database_url: PathBuf,
}

/// What is copied, and where.
#[derive(Debug, Args)]
pub struct Backup {
    /// Where to write the copy
    pub file: PathBuf,

    /// Replace FILE if it is there
    #[arg(long)]
    pub force: bool,

    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// What is verified.
#[derive(Debug, Args)]
pub struct Verify {
    /// Verify this file [default: the database]
    pub file: Option<PathBuf>,

    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// What is restored, and where.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,

    /// Begin above this incarnation number and this revision, besides what the files say: needed when the database that is replaced cannot be read
    #[arg(long, value_name = "NUMBER,REVISION")]
    pub above: Option<Mark>,

    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// What is declared the newest.
#[derive(Debug, Args)]
pub struct AcceptHistory {
    /// Begin above this incarnation number and this revision, besides what is known already: an error line of the registry tells what its routers have seen
    #[arg(long, value_name = "NUMBER,REVISION")]
    pub above: Option<Mark>,

    /// Go on under this store id, so that routers that know another store follow this one
    #[arg(long, value_name = "ID", value_parser = store_id)]
    pub adopt_store: Option<StoreId>,

    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseFlag,
}

/// The help of the default subcommand is what people see first.
const OTHERS: &str = "Other subcommands, each with its own --help: health, backup, verify, restore, accept-history";

/// What the commands' exit codes say.
const CODES: &str = "Exit code: 2 when a flag is wrong, 3 when the database or the backup is damaged, 4 when another process has the database, 1 after any other failure";

const DATABASE_URL: &str = "sqlite://switchboard.db";

const HEARTBEAT: Duration = Duration::from_secs(15);

/// Reads flags and environment.
///
/// # Errors
///
/// The exit code, after help or one line that says which flag is wrong was printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<RegistryTask, ExitCode> {
    let Cli { subcommand } = flags::parse(ENV_PREFIX, args)?;
    match subcommand {
        Subcommand::Serve(flags) => serve(*flags)
            .map(|serve| RegistryTask::Serve(Box::new(serve)))
            .map_err(|message| flags::usage_error(&message)),
        Subcommand::Health(question) => Ok(RegistryTask::Health(question)),
        Subcommand::Command(command) => Ok(RegistryTask::Command(command)),
    }
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

/// Owns model and feature configuration, serves it over gRPC, and streams its changes to routers.
///
/// Every flag can also be given by the environment variable that its help names.
#[derive(Debug, Parser)]
#[command(name = "switchboard-registry", version)]
struct Cli {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run the registry; the default
    ///
    /// It ends with exit code 2 when a flag is wrong, 3 when it finds its database damaged, 4 when another process has it, and 1 after any other failure.
    #[command(after_help = OTHERS)]
    Serve(Box<ServeFlags>),
    /// Ask a registry that runs whether it serves: exits with 0 when it does, with 1 otherwise
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

    /// Serve liveness (/healthz), readiness (/readyz), metrics (/metrics) and, on loopback only, the log level (GET and PUT /log-level) over plain HTTP on this address; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9051")]
    admin_addr: SocketAddr,

    /// Keep the configuration in this SQLite file, on a local disk; made when it is missing
    #[arg(long, value_name = "URL", default_value = DATABASE_URL, value_parser = store::path_of)]
    database_url: PathBuf,

    /// Start only on the database of this store, which exists: an empty volume is not taken for a configuration
    #[arg(long, value_name = "ID", value_parser = store_id)]
    store_id: Option<StoreId>,

    /// After SIGTERM, let calls that run go on for at most this long, for example `10s` or `1m`
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = flags::duration)]
    drain_timeout: Duration,

    #[command(flatten)]
    shared: SharedFlags,
}
