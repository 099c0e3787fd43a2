//! One-off commands on the database, run from the command line, one file for each.
//!
//! A command prints its result as one line on standard output. Progress and errors go to standard error.

mod accept_history;
mod backup;
mod restore;
mod verify;

use std::{io, path::Path, process::ExitCode};

use switchboard::{history::View, service::chain::Chain};
use tokio::{runtime::Builder, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    commit::{self, BegunLife, CommitError, OpenError},
    config::Command,
    control::ControlError,
    domain::{items::Retention, life::NewLife, state::State},
    exit,
    store::{self, Kind, StoreError, WriteFailure},
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The async runtime could not be started.
    #[error("could not start the runtime")]
    Runtime(#[source] io::Error),
    /// A file of the database, or the backup, could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content of the database or of the backup cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new incarnation could not be begun.
    #[error("could not begin a new incarnation")]
    Begin(#[source] CommitError),
    /// The new incarnation could not be written.
    #[error("could not write the new incarnation")]
    Write(#[source] WriteFailure),
    /// The running registry did not carry out the request.
    #[error("the request to the running registry failed")]
    Control(#[from] ControlError),
    /// The target file exists already.
    #[error("`{0}` exists already; choose another name, or replace it with --force")]
    Exists(String),
    /// The database does not exist.
    #[error("there is no database `{0}`")]
    Missing(String),
    /// The database was given as the backup.
    #[error("`{0}` is the database itself; to declare its content the newest, use `accept-history`")]
    Itself(String),
    /// The highest incarnation and revision of the replaced database are unknown.
    #[error(
        "the newest revision of the database `{database}` is unknown, because it cannot be read ({why}): give the newest \
         that routers may have seen with --above NUMBER,REVISION, or 0,0 if nothing is known"
    )]
    AboveUnknown {
        /// Path of the database.
        database: String,
        /// Why it cannot be read.
        why: String,
    },
}

/// Runs the command and returns the exit code.
#[must_use]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result is for the user of the command line"
)]
pub fn run(command: Command) -> ExitCode {
    let runtime = Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(CommandError::Runtime).and_then(|runtime| {
        runtime.block_on(async {
            match command {
                Command::Backup(told) => backup::run(told).await,
                Command::Verify(told) => verify::run(told).await,
                Command::Restore(told) => restore::run(told).await,
                Command::AcceptHistory(told) => accept_history::run(told).await,
            }
        })
    });
    match outcome {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", Chain(&error));
            error.exit_code()
        }
    }
}

impl CommandError {
    fn exit_code(&self) -> ExitCode {
        exit::code_of(self.kind()).map_or(ExitCode::FAILURE, ExitCode::from)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Begin(CommitError::Store(error)) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Write(failure) => failure.kind(),
            Self::Runtime(_)
            | Self::Begin(_)
            | Self::Control(_)
            | Self::Exists(_)
            | Self::Missing(_)
            | Self::Itself(_)
            | Self::AboveUnknown { .. } => Kind::Other,
        }
    }
}

/// Reports on standard error that a step begins, which may take long.
#[expect(clippy::print_stderr, reason = "progress is for the user of the command line")]
fn progress(what: &str) {
    eprintln!("{what} ...");
}

/// Verifies a database and loads its state.
async fn read(database: &Path) -> Result<State, CommandError> {
    let loaded = store::inspect(database).await?;
    Ok(commit::load::state(loaded)?)
}

/// Begins a new incarnation of a database that no registry runs on, with the same writer as a registry.
async fn begin_life(database: &Path, new: NewLife) -> Result<BegunLife, CommandError> {
    let (writer, commit) = commit::open(database, Retention::default()).await?;
    let (stop, mut writing) = (CancellationToken::new(), JoinSet::new());
    writing.spawn(writer.run(stop.clone()));
    let begun = commit.begin_life(new).await;
    stop.cancel();
    if let Some(Ok(written)) = writing.join_next().await {
        written.map_err(CommandError::Write)?;
    }
    begun.map_err(CommandError::Begin)
}

/// Describes the state's position: store, incarnation and revision.
fn described(state: &State) -> String {
    let cursor = state.items.cursor(View::Router);
    format!(
        "store {}, incarnation {} ({}), revision {}",
        cursor.store, cursor.incarnation.number, cursor.incarnation.id, cursor.revision
    )
}
