//! The two that are compared: the registry, and etcd doing the same work.
//!
//! A model of the registry stands beside a key of etcd, an update beside a put, a subscription beside a watch of all keys,
//! a snapshot beside a range read. Both sync each commit to the disk before they answer.

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

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Registry,
    Etcd,
}

/// Both, in the order in which they take turns.
pub(crate) const SIDES: [Side; 2] = [Side::Registry, Side::Etcd];

/// The programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) registry: PathBuf,
    pub(crate) etcd: PathBuf,
}

/// Where a follower begins.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// With everything there is.
    Nothing,
    /// With what comes after a place: an encoded cursor, or a revision.
    Place(Place),
}

/// A place in a history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    /// As the registry gave it.
    pub(crate) cursor: Bytes,
}

/// What one message down a stream says.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The follower has everything up to here.
    pub(crate) place: Option<Place>,
    /// It is told that nothing newer exists.
    pub(crate) is_caught_up: bool,
    /// What to say back, if anything.
    pub(crate) reply: Option<Vec<u8>>,
}

/// A server that runs.
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

    /// Makes a key with a value of about this many bytes.
    pub(crate) fn create(self, key: usize, bytes: usize) -> Call {
        match self {
            Self::Registry => registry::create(key, bytes),
            Self::Etcd => etcd::put(key, 0, bytes),
        }
    }

    /// Changes it. `serial` is another one each time.
    pub(crate) fn change(self, key: usize, serial: usize, bytes: usize) -> Call {
        match self {
            Self::Registry => registry::change(key, serial),
            Self::Etcd => etcd::put(key, serial, bytes),
        }
    }

    /// Begins to follow.
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
    /// Starts it, with what it left in this folder, and waits until it answers.
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

    /// The same again, in a new process.
    pub(crate) async fn restart(self) -> Result<Self> {
        self.process.end().await?;
        Self::start(self.side, &self.programs, &self.folder).await
    }

    /// Where its history is now.
    pub(crate) async fn place(&self) -> Result<Place> {
        connected(self.addr, None, async |caller| match self.side {
            Side::Registry => {
                let (_up, mut messages) = self.side.follow(&caller, usize::MAX, &From::Nothing).await?;
                while let Some(message) = messages.next().await? {
                    let seen = registry::see(&message);
                    if seen.is_caught_up {
                        return seen.place.context("a bookmark says where");
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

/// Two ports that were free a moment ago.
fn free_addrs() -> Result<[SocketAddr; 2]> {
    let sockets = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let [one, two] = sockets;
    Ok([one?.local_addr()?, two?.local_addr()?])
}
