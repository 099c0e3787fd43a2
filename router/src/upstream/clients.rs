//! The HTTP clients: one for each set of connection settings, so that servers with different settings never share a
//! connection.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    HEADER_BYTES_MAX, UpstreamError,
    connector::{Connector, DialError, Security},
    names::Names,
    tls,
};
use crate::catalog::CompiledTls;

/// How long a connection may stay idle in the pool: less than the 5 s after which common servers close theirs.
const IDLE: Duration = Duration::from_secs(4);
/// Maximum number of bytes that one read from the network takes. hyper checks the header's size only between two reads.
const READ_BYTES_MAX: usize = HEADER_BYTES_MAX / 2;
/// How long an unused client is kept. By then its connections are closed; the client is built again when it is needed.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// The clients for servers with the same connection settings.
pub(super) struct Pair {
    pub(super) pooled: Client<Connector, Full<Bytes>>,
    /// Opens a connection for each request and keeps none.
    pub(super) fresh: Client<Connector, Full<Bytes>>,
    /// The connector that both clients use.
    pub(super) connector: Connector,
}

impl Pair {
    fn new(connector: Connector) -> Self {
        // The pool spawns a task for each connection. The task ends with the pool, or when the call that uses it is
        // dropped.
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http1_max_buf_size(READ_BYTES_MAX)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE);
        let pooled = builder.build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector.clone());
        Self {
            pooled,
            fresh,
            connector,
        }
    }
}

/// The settings for connecting to a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Dialling {
    /// The TLS settings for verifying the server. `None`: its certificate is verified against the system's roots.
    pub(super) tls: Option<Arc<CompiledTls>>,
    /// Time limit for connecting. `None`: the default of [`Clients::connect_timeout`].
    pub(super) connect_timeout: Option<Duration>,
    /// The only address to connect to, one of those of the host name. `None`: any address of the host name.
    pub(super) address: Option<IpAddr>,
}

/// All HTTP clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clients {
    names: Names,
    connect_timeout: Duration,
    usual_security: Security,
    /// Client for servers without TLS, timeout or address overrides: almost every server.
    usual: Arc<Pair>,
    special: Arc<Mutex<HashMap<Dialling, Special>>>,
}

struct Special {
    pair: Arc<Pair>,
    security: Security,
    used: Instant,
}

impl Clients {
    pub(super) fn new(connect_timeout: Duration, names: Names) -> Result<Self, rustls::Error> {
        let usual_security = Security::usual()?;
        let connector = Connector::new(connect_timeout, usual_security.clone(), names.clone(), None);
        Ok(Self {
            names,
            connect_timeout,
            usual_security,
            usual: Arc::new(Pair::new(connector)),
            special: Arc::default(),
        })
    }

    pub(super) const fn names(&self) -> &Names {
        &self.names
    }

    pub(super) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Returns the client for servers with these connection settings. The client is built when it is first needed.
    pub(super) fn dialling(&self, dialling: Dialling) -> Result<Arc<Pair>, UpstreamError> {
        let dialling = Dialling {
            connect_timeout: dialling
                .connect_timeout
                .filter(|&timeout| timeout != self.connect_timeout),
            ..dialling
        };
        if dialling == Dialling::USUAL {
            return Ok(Arc::clone(&self.usual));
        }
        let now = Instant::now();
        let mut special = self.special.lock();
        if let Some(special) = special.get_mut(&dialling) {
            special.used = now;
            return Ok(Arc::clone(&special.pair));
        }
        let security = match &dialling.tls {
            None => self.usual_security.clone(),
            // An entry with the same TLS settings is usually another address of the same server.
            Some(tls) => match special.iter().find(|(other, _)| other.tls == dialling.tls) {
                Some((_, alike)) => alike.security.clone(),
                None => self
                    .usual_security
                    .with(tls)
                    .map_err(|error| UpstreamError::Dial(DialError::Handshake(tls::handshake(&error))))?,
            },
        };
        let timeout = dialling.connect_timeout.unwrap_or(self.connect_timeout);
        let connector = Connector::new(timeout, security.clone(), self.names.clone(), dialling.address);
        let pair = Arc::new(Pair::new(connector));
        special.retain(|_, special| now.duration_since(special.used) < KEPT);
        special.insert(
            dialling,
            Special {
                pair: Arc::clone(&pair),
                security,
                used: now,
            },
        );
        Ok(pair)
    }
}

impl Dialling {
    const USUAL: Self = Self {
        tls: None,
        connect_timeout: None,
        address: None,
    };
}
