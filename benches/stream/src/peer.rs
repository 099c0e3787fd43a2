//! The two servers that are compared: the registry, and etcd with the same work.
//!
//! A model of the registry corresponds to a key of etcd, an update to a put, a subscription to a watch of all keys, and
//! a snapshot to a range read. Both sync each commit to the disk before they answer.

mod etcd;
mod registry;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use switchboard_comparison::{
    figures::Column,
    grpc::Messages,
    process::{self, Process},
};
use tokio::time::{Instant, sleep};

use crate::call::{Call, Caller, Uplink, connected};

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Registry,
    Etcd,
}

/// Both servers, in the order in which they are measured.
pub(crate) const SIDES: [Side; 2] = [Side::Registry, Side::Etcd];

/// The paths of the programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) registry: PathBuf,
    pub(crate) etcd: PathBuf,
}

/// The point at which a follower begins.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// With the whole state.
    Nothing,
    /// After this position.
    Place(Place),
}

/// A position in a history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    /// The encoded cursor of the registry. Empty for etcd.
    pub(crate) cursor: Bytes,
}

/// The content of one message of a stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The follower has received everything up to this position.
    pub(crate) place: Option<Place>,
    /// The server reports that nothing newer exists.
    pub(crate) is_caught_up: bool,
    /// The reply that the follower must send, if any.
    pub(crate) reply: Option<Vec<u8>>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) side: Side,
    pub(crate) addr: SocketAddr,
    pub(crate) process: Process,
    programs: Programs,
    folder: PathBuf,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Etcd => "etcd",
        }
    }

    pub(crate) const fn column(self) -> Column {
        match self {
            Self::Registry => Column::First,
            Self::Etcd => Column::Second,
        }
    }

    /// Builds a call that creates a key with a value of about this many bytes.
    pub(crate) fn create(self, key: usize, bytes: usize) -> Call {
        match self {
            Self::Registry => registry::create(key, bytes),
            Self::Etcd => etcd::put(key, 0, bytes),
        }
    }

    /// Builds a call that changes the key. `serial` must differ each time.
    pub(crate) fn change(self, key: usize, serial: usize, bytes: usize) -> Call {
        match self {
            Self::Registry => registry::change(key, serial),
            Self::Etcd => etcd::put(key, serial, bytes),
        }
    }

    /// Opens a stream of changes.
    pub(crate) async fn follow(self, caller: &Caller, index: usize, from: &From) -> Result<(Uplink, Messages)> {
        match self {
            Self::Registry => caller.stream(registry::subscribe(index, from)).await,
            Self::Etcd => {
                let after = match from {
                    From::Nothing => etcd::revision_of_range(&caller.unary(etcd::range()).await?),
                    From::Place(place) => place.revision,
                };
                caller.stream(etcd::watch(after)).await
            }
        }
    }

    pub(crate) fn see(self, message: &Bytes) -> Seen {
        match self {
            Self::Registry => registry::see(message),
            Self::Etcd => etcd::see(message),
        }
    }

    pub(crate) fn version(self, programs: &Programs) -> Result<String> {
        process::version(self.program(programs))
    }

    fn program(self, programs: &Programs) -> &Path {
        match self {
            Self::Registry => &programs.registry,
            Self::Etcd => &programs.etcd,
        }
    }
}

impl Server {
    /// Starts a server with the data in this folder, and waits until it answers.
    pub(crate) async fn start(side: Side, programs: &Programs, folder: &Path) -> Result<Self> {
        let [addr, other] = free_addrs()?;
        let arguments = match side {
            Side::Registry => registry::arguments(addr, other, folder),
            Side::Etcd => etcd::arguments(addr, other, folder),
        };
        let process = Process::start(side.program(programs), &arguments)?;
        let server = Self {
            side,
            addr,
            process,
            programs: programs.clone(),
            folder: folder.to_owned(),
        };
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            match server.place().await {
                Ok(_) => return Ok(server),
                Err(error) if Instant::now() > give_up => return Err(error).context(side.name()),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Restarts the server in a new process.
    pub(crate) async fn restart(self) -> Result<Self> {
        self.process.end().await?;
        Self::start(self.side, &self.programs, &self.folder).await
    }

    /// Returns the current position of the server's history.
    pub(crate) async fn place(&self) -> Result<Place> {
        connected(self.addr, None, async |caller| match self.side {
            Side::Registry => {
                let (_up, mut messages) = self.side.follow(&caller, usize::MAX, &From::Nothing).await?;
                while let Some(message) = messages.next().await? {
                    let seen = registry::see(&message);
                    if seen.is_caught_up {
                        return seen.place.context("the bookmark has no cursor");
                    }
                }
                anyhow::bail!("the stream ended")
            }
            Side::Etcd => Ok(Place {
                revision: etcd::revision_of_range(&caller.unary(etcd::range()).await?),
                cursor: Bytes::new(),
            }),
        })
        .await
    }
}

/// Returns two ports that were free a moment ago.
fn free_addrs() -> Result<[SocketAddr; 2]> {
    let sockets = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let [one, two] = sockets;
    Ok([one?.local_addr()?, two?.local_addr()?])
}
