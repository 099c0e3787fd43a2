//! What is done to the database once, from the command line: one file for each.
//!
//! The outcome is one line on standard output; what takes long says so on standard error, where a failure is told too.

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
    /// The runtime cannot be had.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// A file of the database, or the backup, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What they hold cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new life could not be begun.
    #[error("begin a new incarnation")]
    Begin(#[source] CommitError),
    /// The new life was not written.
    #[error("write the new incarnation")]
    Write(#[source] WriteFailure),
    /// The registry that runs did not do it.
    #[error("ask the registry that runs")]
    Control(#[from] ControlError),
    /// A file is there already.
    #[error("`{0}` is there already; choose another name, or replace it with --force")]
    Exists(String),
    /// There is no such database.
    #[error("there is no database `{0}`")]
    Missing(String),
    /// A backup cannot take its own place.
    #[error("`{0}` is the database itself; `accept-history` declares what it holds the newest")]
    Itself(String),
    /// What the database knew is not known.
    #[error(
        "what the database `{database}` knew is not known, since it cannot be read ({why}): say what routers may have seen \
         with --above NUMBER,REVISION; 0,0 if nothing is known"
    )]
    AboveUnknown {
        /// The database.
        database: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Does what was told, and returns the exit code.
#[must_use]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the outcome is for whoever asked on the command line"
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

/// Says on standard error what begins and may take long.
#[expect(clippy::print_stderr, reason = "progress is for whoever waits at the command line")]
fn progress(what: &str) {
    eprintln!("{what} …");
}

/// Verifies a database and understands what it holds.
async fn read(database: &Path) -> Result<State, CommandError> {
    let loaded = store::inspect(database).await?;
    Ok(commit::load::state(loaded)?)
}

/// Begins a new life of a database that no registry runs on, in the way that a registry does.
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

/// Which state of which store it is.
fn described(state: &State) -> String {
    let cursor = state.items.cursor(View::Router);
    format!(
        "store {}, incarnation {} ({}), revision {}",
        cursor.store, cursor.incarnation.number, cursor.incarnation.id, cursor.revision
    )
}
