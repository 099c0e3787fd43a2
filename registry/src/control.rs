//! The control socket: lets a command ask the running registry for a write that only its writer may make.
//!
//! The socket is next to the database file; only the registry's own user and root may use it. A request is one line of
//! JSON, and so is its answer. Callers are served one at a time.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    select,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use switchboard::{names::StoreId, service::chain::Chain};

use crate::{
    commit::{BegunLife, Commit, CommitError},
    domain::{
        life::{LifeCause, Mark, MarkError, NewLife},
        state::State,
    },
    feed::withheld::Withheld,
    store::companion,
};

/// Maximum length of a line, in bytes.
const LINE_MAX: u64 = 4096;

/// Time limit for reading or writing one line.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// Time limit for the registry's answer, which may have to wait for a write to a busy disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Pause after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// A request to the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Begin a new incarnation with the current configuration.
    AcceptHistory {
        /// A [`Mark`] as text. The incarnation begins above it, and above everything that the registry knows.
        above: String,
        /// Store id to adopt. `None` keeps the current one.
        adopt_store: Option<String>,
        /// Only answer what would begin. Left out if false, so that a registry of an earlier release takes the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    },
}

/// The registry's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ControlAnswer {
    Begun(LifeReply),
    Planned(PlanReply),
    Error(String),
}

/// The answer to a request that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlReply {
    /// An incarnation has begun.
    Begun(LifeReply),
    /// An incarnation would begin, and nothing was changed.
    Planned(PlanReply),
}

/// The incarnation that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeReply {
    /// Id of the store.
    pub store: String,
    /// Number of the incarnation.
    pub incarnation_number: i64,
    /// Id of the incarnation.
    pub incarnation: String,
    /// Its first revision.
    pub revision: i64,
}

/// The incarnation that a request would begin, and the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReply {
    /// Id of the store now.
    pub store: String,
    /// Number of the present incarnation.
    pub incarnation_number: i64,
    /// Id of the present incarnation.
    pub incarnation: String,
    /// The newest revision.
    pub revision: i64,
    /// Id of the store in the new incarnation.
    pub new_store: String,
    /// Number of the new incarnation.
    pub new_incarnation_number: i64,
    /// First revision of the new incarnation.
    pub new_revision: i64,
    /// The highest incarnation number and the highest revision that routers have reported of histories that the
    /// database does not have. `None`: they have reported none, or no registry runs that they could report to.
    pub seen: Option<(i64, i64)>,
}

impl From<BegunLife> for LifeReply {
    fn from(begun: BegunLife) -> Self {
        Self {
            store: begun.store.to_string(),
            incarnation_number: begun.incarnation.number,
            incarnation: begun.incarnation.id.to_string(),
            revision: begun.revision.get(),
        }
    }
}

impl PlanReply {
    /// Describes what a request would do to a state. `seen` is what routers have reported from other histories.
    #[must_use]
    pub fn new(state: &State, new: &NewLife, seen: Mark) -> Self {
        let (items, life) = (&state.items, state.items.next_life(new));
        Self {
            store: items.store().to_string(),
            incarnation_number: items.incarnation().number,
            incarnation: items.incarnation().id.to_string(),
            revision: items.revision().get(),
            new_store: life.store.to_string(),
            new_incarnation_number: life.incarnation.number,
            new_revision: life.first.get(),
            seen: (seen != Mark::NONE).then(|| (seen.number(), seen.revision().get())),
        }
    }
}

/// Why a request to the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket could not be used.
    #[error("could not use the control socket `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The registry did not answer.
    #[error("the registry did not answer in time; `verify` shows whether the request was carried out")]
    Silent,
    /// This program does not understand the answer.
    #[error("could not read the registry's answer")]
    Unreadable(#[source] serde_json::Error),
    /// The registry refused the request.
    #[error("the registry answered: {0}")]
    Refused(String),
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("could not read the request")]
    Line(#[source] io::Error),
    #[error("the request did not arrive in time")]
    Late,
    #[error("this registry does not know the request")]
    Unknown(#[source] serde_json::Error),
    #[error("invalid `above`")]
    Above(#[source] MarkError),
    #[error("`adopt_store` must be 32 hexadecimal characters")]
    Store,
    #[error("could not begin a new incarnation")]
    Begin(#[source] CommitError),
}

/// The control socket of a registry that holds its database.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl ControlSocket {
    /// Creates the socket next to `database`. This process must hold the database, so an existing socket belongs to a
    /// process that has ended, and is replaced.
    ///
    /// # Errors
    ///
    /// [`ControlError::Socket`] if the socket cannot be created.
    pub fn bind(database: &Path) -> Result<Self, ControlError> {
        let path = path_of(database);
        let bound = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            let owner = fs::metadata(&path)?.uid();
            Ok((listener, owner))
        };
        match bound() {
            Ok((listener, owner)) => Ok(Self { listener, path, owner }),
            Err(source) => Err(ControlError::Socket { path, source }),
        }
    }

    /// Serves until `stop` is cancelled, then removes the socket.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the current request may or may not have been carried out, and the socket is not
    /// removed.
    pub async fn serve(self, commit: Commit, withheld: Arc<Withheld>, stop: CancellationToken) {
        loop {
            let caller = select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match caller {
                Ok((stream, _)) => self.answer(stream, &commit, &withheld).await,
                // For example too many open files, a condition that passes.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection on the control socket, will try again");
                    drop(timeout(ACCEPT_AGAIN, stop.cancelled()).await);
                }
            }
        }
        drop(fs::remove_file(&self.path));
    }

    async fn answer(&self, stream: UnixStream, commit: &Commit, withheld: &Withheld) {
        // For a moment after its creation, the socket had the default mode of the process.
        let is_allowed = stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0);
        if !is_allowed {
            tracing::warn!("refused a connection of another user on the control socket");
            return;
        }
        let (reading, mut writing) = stream.into_split();
        let answer = match handle(reading, commit, withheld).await {
            Ok(ControlReply::Planned(plan)) => ControlAnswer::Planned(plan),
            Ok(ControlReply::Begun(life)) => {
                tracing::info!(
                    store = %life.store, incarnation.number = life.incarnation_number, revision = life.revision,
                    "a new incarnation has begun, as requested by `accept-history`"
                );
                ControlAnswer::Begun(life)
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "a request on the control socket failed");
                ControlAnswer::Error(error)
            }
        };
        let Ok(mut line) = serde_json::to_vec(&answer) else {
            return;
        };
        line.push(b'\n');
        // The caller may have disconnected.
        drop(timeout(LINE_WITHIN, writing.write_all(&line)).await);
    }
}

async fn handle(
    reading: impl AsyncRead + Unpin,
    commit: &Commit,
    withheld: &Withheld,
) -> Result<ControlReply, RequestError> {
    let line = timeout(LINE_WITHIN, line(reading))
        .await
        .map_err(|_elapsed| RequestError::Late)?
        .map_err(RequestError::Line)?;
    let ControlRequest::AcceptHistory {
        above,
        adopt_store,
        dry_run,
    } = serde_json::from_str(&line).map_err(RequestError::Unknown)?;
    let above: Mark = above.parse().map_err(RequestError::Above)?;
    let adopt = adopt_store.map(|id| StoreId::parse(&id)).transpose();
    let seen = withheld.seen();
    let new = NewLife {
        cause: LifeCause::AcceptHistory,
        above: above.or_higher(seen),
        adopt: adopt.map_err(|_malformed| RequestError::Store)?,
    };
    if dry_run {
        return Ok(ControlReply::Planned(PlanReply::new(&commit.state(), &new, seen)));
    }
    let begun = commit.begin_life(new).await.map_err(RequestError::Begin)?;
    Ok(ControlReply::Begun(begun.into()))
}

/// Sends a request to the registry that runs on `database`, and returns its answer.
///
/// # Errors
///
/// [`ControlError`] if the request failed, or if it is unknown whether it was carried out.
///
/// # Cancel safety
///
/// If the future is dropped, the request may or may not have been carried out.
pub async fn ask(database: &Path, request: &ControlRequest) -> Result<ControlReply, ControlError> {
    let path = path_of(database);
    let asked = async {
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        let (reading, mut writing) = UnixStream::connect(&path).await?.into_split();
        writing.write_all(text.as_bytes()).await?;
        line(reading).await
    };
    let line = timeout(ANSWER_WITHIN, asked)
        .await
        .map_err(|_elapsed| ControlError::Silent)?
        .map_err(|source: io::Error| ControlError::Socket {
            path: path.clone(),
            source,
        })?;
    match serde_json::from_str(&line).map_err(ControlError::Unreadable)? {
        ControlAnswer::Begun(life) => Ok(ControlReply::Begun(life)),
        ControlAnswer::Planned(plan) => Ok(ControlReply::Planned(plan)),
        ControlAnswer::Error(error) => Err(ControlError::Refused(error)),
    }
}

async fn line(reading: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(reading.take(LINE_MAX)).read_line(&mut line).await?;
    Ok(line)
}

/// Returns the path of the socket: next to the database file, after symbolic links are resolved.
fn path_of(database: &Path) -> PathBuf {
    let database = fs::canonicalize(database).unwrap_or_else(|_unknown| database.to_owned());
    companion(&database, ".control")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dry_run_is_a_request_that_earlier_releases_do_not_know() {
        let request = |dry_run| ControlRequest::AcceptHistory {
            above: "0,0".to_owned(),
            adopt_store: None,
            dry_run,
        };
        let known = r#"{"command":"accept-history","above":"0,0","adopt_store":null}"#;
        assert_eq!(serde_json::to_string(&request(false)).unwrap(), known);
        assert_eq!(serde_json::from_str::<ControlRequest>(known).unwrap(), request(false));
        let dry = serde_json::to_string(&request(true)).unwrap();
        assert_eq!(serde_json::from_str::<ControlRequest>(&dry).unwrap(), request(true));
        assert!(dry.contains("dry_run"), "an earlier release refuses it");
    }
}
