//! The control socket: how a command has the registry that runs do what only the writer may do.
//!
//! It stands beside the database and is for the same user alone. One line of JSON goes in, one comes out; one caller is
//! served at a time.

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
    domain::life::{LifeCause, Mark, MarkError, NewLife},
    feed::withheld::Withheld,
    store::companion,
};

/// The most bytes of a line.
const LINE_MAX: u64 = 4096;

/// How long a line may take to come.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// How long the registry may take: a write that waits for a busy disk included.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long to wait after a caller could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// What the registry can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Begin a new life with what there is.
    AcceptHistory {
        /// Above this [`Mark`], and above what the registry knows.
        above: String,
        /// Under this store id.
        adopt_store: Option<String>,
    },
}

/// What the registry answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ControlAnswer {
    Begun(LifeReply),
    Error(String),
}

/// The life that has begun.
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

/// Why the registry was not reached, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be used.
    #[error("use the control socket `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It did not answer.
    #[error("the registry did not answer in time; whether it was done, `verify` tells")]
    Silent,
    /// Its answer is not one that this program knows.
    #[error("the registry's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// It refused.
    #[error("the registry answered: {0}")]
    Refused(String),
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the line cannot be read")]
    Line(#[source] io::Error),
    #[error("the line did not come in time")]
    Late,
    #[error("the line is no request that this registry knows")]
    Unknown(#[source] serde_json::Error),
    #[error("`above`")]
    Above(#[source] MarkError),
    #[error("`adopt_store` must be 32 hexadecimal characters")]
    Store,
    #[error("begin a new incarnation")]
    Begin(#[source] CommitError),
}

/// The socket of a registry that has its database.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl ControlSocket {
    /// Makes the socket beside `database`, which this process must hold: what stands there is of a process that is gone.
    ///
    /// # Errors
    ///
    /// [`ControlError::Socket`] when it cannot be made.
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

    /// Serves until `stop` is cancelled; then the socket is removed.
    ///
    /// # Cancel safety
    ///
    /// Dropped, what was asked for is done or not, and the socket stays.
    pub async fn serve(self, commit: Commit, withheld: Arc<Withheld>, stop: CancellationToken) {
        loop {
            let caller = select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match caller {
                Ok((stream, _)) => self.answer(stream, &commit, &withheld).await,
                // Such as too many open files: that passes.
                Err(error) => {
                    tracing::warn!(%error, "nobody can be served at the control socket for now");
                    drop(timeout(ACCEPT_AGAIN, stop.cancelled()).await);
                }
            }
        }
        drop(fs::remove_file(&self.path));
    }

    async fn answer(&self, stream: UnixStream, commit: &Commit, withheld: &Withheld) {
        // The socket had the mode that the process gives by default for a moment.
        let is_allowed = stream
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0);
        if !is_allowed {
            tracing::warn!("another user was refused at the control socket");
            return;
        }
        let (reading, mut writing) = stream.into_split();
        let answer = match handle(reading, commit, withheld).await {
            Ok(life) => {
                tracing::info!(
                    store = %life.store, incarnation.number = life.incarnation_number, revision = life.revision,
                    "a new incarnation has begun, as asked for by `accept-history`"
                );
                ControlAnswer::Begun(life)
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "a request at the control socket was not done");
                ControlAnswer::Error(error)
            }
        };
        let Ok(mut line) = serde_json::to_vec(&answer) else {
            return;
        };
        line.push(b'\n');
        // The caller may have gone.
        drop(timeout(LINE_WITHIN, writing.write_all(&line)).await);
    }
}

async fn handle(
    reading: impl AsyncRead + Unpin,
    commit: &Commit,
    withheld: &Withheld,
) -> Result<LifeReply, RequestError> {
    let line = timeout(LINE_WITHIN, line(reading))
        .await
        .map_err(|_elapsed| RequestError::Late)?
        .map_err(RequestError::Line)?;
    let ControlRequest::AcceptHistory { above, adopt_store } =
        serde_json::from_str(&line).map_err(RequestError::Unknown)?;
    let above: Mark = above.parse().map_err(RequestError::Above)?;
    let adopt = adopt_store.map(|id| StoreId::parse(&id)).transpose();
    let new = NewLife {
        cause: LifeCause::AcceptHistory,
        above: above.or_higher(withheld.seen()),
        adopt: adopt.map_err(|_malformed| RequestError::Store)?,
    };
    let begun = commit.begin_life(new).await.map_err(RequestError::Begin)?;
    Ok(begun.into())
}

/// Has the registry that runs on `database` do something.
///
/// # Errors
///
/// [`ControlError`] when it was not done, or when that is not known.
///
/// # Cancel safety
///
/// Dropped, it is done or not.
pub async fn ask(database: &Path, request: &ControlRequest) -> Result<LifeReply, ControlError> {
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
        ControlAnswer::Begun(life) => Ok(life),
        ControlAnswer::Error(error) => Err(ControlError::Refused(error)),
    }
}

async fn line(reading: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(reading.take(LINE_MAX)).read_line(&mut line).await?;
    Ok(line)
}

/// Beside the database, by whatever path that was reached.
fn path_of(database: &Path) -> PathBuf {
    let database = fs::canonicalize(database).unwrap_or_else(|_unknown| database.to_owned());
    companion(&database, ".control")
}
