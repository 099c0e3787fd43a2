//! The HTTP clients: one for all servers that are dialled alike, so that no connection is shared by mistake.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::Instant;

use super::{
    HEADER_BYTES_MAX, UpstreamError,
    connector::{Connector, DialError},
};
use crate::catalog::Tls;

/// How long a connection may lie unused: less than the 5 s after which common servers close theirs.
const IDLE: Duration = Duration::from_secs(4);
/// The most bytes that one read of the network takes. The header's size is only looked at between two reads.
const READ_BYTES_MAX: usize = HEADER_BYTES_MAX / 2;
/// How long a client is kept that nobody uses. Its connections are closed by then; it is built again when it is needed.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// A client of servers that are dialled alike.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) pooled: Client<Connector, Full<Bytes>>,
    /// Dials for each call, and keeps nothing.
    pub(super) fresh: Client<Connector, Full<Bytes>>,
    /// What both dial by.
    pub(super) connector: Connector,
}

impl Pair {
    fn new(connect_timeout: Duration, tls: Option<&Tls>) -> Result<Self, rustls::Error> {
        let connector = Connector::new(connect_timeout, tls)?;
        // Connections are tasks of the pool's own: they end with it, or with the call that is dropped.
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http1_max_buf_size(READ_BYTES_MAX)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE);
        let pooled = builder.build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector.clone());
        Ok(Self {
            pooled,
            fresh,
            connector,
        })
    }
}

/// How servers are dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Dialling {
    tls: Option<Arc<Tls>>,
    connect_timeout: Duration,
}

/// All clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clients {
    /// Of the servers about which nothing special is said: nearly all.
    usual: Pair,
    connect_timeout: Duration,
    special: Arc<Mutex<HashMap<Dialling, (Pair, Instant)>>>,
}

impl Clients {
    pub(super) fn new(connect_timeout: Duration) -> Result<Self, rustls::Error> {
        Ok(Self {
            usual: Pair::new(connect_timeout, None)?,
            connect_timeout,
            special: Arc::default(),
        })
    }

    /// The client of the servers that are dialled so; it is built at the first call.
    pub(super) fn dialling(
        &self,
        tls: Option<&Arc<Tls>>,
        connect_timeout: Option<Duration>,
    ) -> Result<Pair, UpstreamError> {
        let connect_timeout = connect_timeout.unwrap_or(self.connect_timeout);
        if tls.is_none() && connect_timeout == self.connect_timeout {
            return Ok(self.usual.clone());
        }
        let dialling = Dialling {
            tls: tls.cloned(),
            connect_timeout,
        };
        let now = Instant::now();
        let mut special = self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((pair, used)) = special.get_mut(&dialling) {
            *used = now;
            return Ok(pair.clone());
        }
        let pair = Pair::new(connect_timeout, dialling.tls.as_deref())
            .map_err(|error| UpstreamError::Dial(DialError::Handshake(Arc::new(error))))?;
        special.retain(|_, (_, used)| now.duration_since(*used) < KEPT);
        special.insert(dialling, (pair.clone(), now));
        Ok(pair)
    }
}
