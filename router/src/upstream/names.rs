//! Resolves the host names of model servers.
//!
//! Each name has at most one DNS look-up at a time, which all waiting calls share, so that a slow resolver does not get
//! the same query from every call. The last successful answer is kept: while the resolver fails or is slow, the router
//! connects to the addresses that it last returned.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use switchboard::{endpoint::EndpointUri, service::cause::Cause};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, ModelState},
    current::Current,
    endpoints::Addresses,
    rounds::{self, Rounds},
};

/// Interval between look-ups of each name.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long a successful answer is used if no newer one arrives.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How long a call waits for a look-up before it uses the kept answer.
const SLOW: Duration = Duration::from_millis(200);
/// Time limit of a look-up. Calls wait for less: for a share of their time limit for connecting.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of addresses of one name that count as separate servers.
const SERVERS_MAX: usize = 64;

/// The function that resolves a host name.
pub type Lookup = Box<dyn Fn(Box<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Why a host name could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(Cause);

impl LookupError {
    /// Creates the error for a look-up that took too long.
    #[must_use]
    pub fn timed_out() -> Self {
        Self(Cause::new("the look-up of the host name timed out"))
    }

    /// Creates the error for a name without an address.
    fn no_address() -> Self {
        Self(Cause::new("the host name has no address"))
    }
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        Self(Cause::of(&error))
    }
}

/// The resolved host names of model servers. Clones share their state.
#[derive(Clone)]
pub struct Names {
    shared: Arc<NameCache>,
}

struct NameCache {
    lookup: Lookup,
    known: Mutex<KnownAddresses>,
    /// Incremented whenever the separate servers of a name may have changed.
    version: AtomicU64,
}

#[derive(Default)]
struct KnownAddresses {
    entries: HashMap<Box<str>, KnownName>,
    /// The running look-ups, at most one for each entry. They are aborted when the last clone of [`Names`] is dropped.
    lookups: JoinSet<()>,
}

struct KnownName {
    good: Option<Good>,
    running: Option<RunningLookup>,
    /// When the name was last asked for.
    asked: Instant,
}

impl KnownName {
    fn servers(&self) -> Arc<[IpAddr]> {
        let good = self.good.as_ref();
        good.map(|good| Arc::clone(&good.servers)).unwrap_or_default()
    }
}

#[derive(Clone)]
struct Good {
    /// In the resolver's order, which is the order in which they are tried.
    addresses: Arc<[IpAddr]>,
    /// The addresses that count as separate servers; sorted.
    servers: Arc<[IpAddr]>,
    at: Instant,
}

impl Good {
    fn new(addresses: Vec<IpAddr>) -> Self {
        Self {
            servers: servers(&addresses).into(),
            addresses: addresses.into(),
            at: Instant::now(),
        }
    }

    fn is_usable(&self) -> bool {
        self.at.elapsed() < KEPT
    }
}

/// The result of a look-up.
type LookupOutcome = Result<Arc<[IpAddr]>, LookupError>;

#[derive(Clone)]
struct RunningLookup {
    begun: Instant,
    outcome: watch::Receiver<Option<LookupOutcome>>,
}

impl RunningLookup {
    async fn outcome(&mut self) -> LookupOutcome {
        match self.outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task of the look-up was dropped, because the process is ending.
            Ok(None) | Err(_) => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
        }
    }
}

impl Default for Names {
    /// Resolves with the operating system's resolver.
    fn default() -> Self {
        Self::new(Box::new(|host| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((&*host, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        }))
    }
}

impl Names {
    /// Creates an empty cache whose look-ups use `lookup`.
    #[must_use]
    pub fn new(lookup: Lookup) -> Self {
        Self {
            shared: Arc::new(NameCache {
                lookup,
                known: Mutex::default(),
                version: AtomicU64::new(0),
            }),
        }
    }

    /// Looks up the host names of the catalog in use at regular intervals, until `stop` is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the future loses no state.
    pub async fn follow(self, current: Arc<Current>, stop: CancellationToken) {
        let mut rounds = Rounds::new(INTERVAL);
        let due = |now| {
            let hosts = current.load().map(|catalog| hosts(&catalog)).unwrap_or_default();
            rounds.due(hosts, now, fastrand::f64)
        };
        let look_up = |host: Box<str>| {
            let names = self.clone();
            async move {
                let (mut running, _) = names.look_up(&host);
                if let Err(error) = running.outcome().await {
                    tracing::debug!(host = %host, %error, "could not resolve a host name");
                }
            }
        };
        rounds::run(due, look_up, stop).await;
    }

    /// Returns the addresses of a host. If the resolver fails or is slow, the kept answer is returned instead.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the future does not stop the look-up. Its result serves later calls.
    pub(crate) async fn resolve(&self, host: &str) -> LookupOutcome {
        let (mut running, kept) = self.look_up(host);
        let Some(kept) = kept else {
            return running.outcome().await;
        };
        match timeout_at(running.begun + SLOW, running.outcome()).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(_)) | Err(_) => Ok(kept.addresses),
        }
    }

    /// Joins the running look-up or starts one. Also returns the last successful answer if it is still usable.
    fn look_up(&self, host: &str) -> (RunningLookup, Option<Good>) {
        let now = Instant::now();
        let mut known = self.known();
        let KnownAddresses { entries, lookups } = &mut *known;
        if !entries.contains_key(host) {
            entries.retain(|_, entry| entry.running.is_some() || now.duration_since(entry.asked) < KEPT);
            self.shared.version.fetch_add(1, Ordering::Release);
        }
        let entry = entries.entry(host.into()).or_insert_with(|| KnownName {
            good: None,
            running: None,
            asked: now,
        });
        entry.asked = now;
        let running = entry.running.get_or_insert_with(|| {
            while lookups.try_join_next().is_some() {}
            self.begin(host, lookups)
        });
        (running.clone(), entry.good.clone().filter(Good::is_usable))
    }

    fn begin(&self, host: &str, lookups: &mut JoinSet<()>) -> RunningLookup {
        let (tell, outcome) = watch::channel(None);
        let shared = Arc::downgrade(&self.shared);
        let host: Box<str> = host.into();
        let looking = (self.shared.lookup)(host.clone());
        lookups.spawn(async move {
            let found = match timeout(LOOKUP_TIMEOUT, looking).await {
                Ok(Ok(found)) if found.is_empty() => Err(LookupError::no_address()),
                Ok(found) => found.map_err(LookupError::from),
                Err(_elapsed) => Err(LookupError::timed_out()),
            };
            let outcome = found.map(Good::new);
            keep(&shared, &host, outcome.as_ref().ok());
            tell.send_replace(Some(outcome.map(|good| good.addresses)));
        });
        RunningLookup {
            begun: Instant::now(),
            outcome,
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownAddresses> {
        self.shared.known.lock()
    }
}

/// Stores the result of a look-up. After a failure the last successful answer stays, as long as it is usable.
fn keep(shared: &Weak<NameCache>, host: &str, good: Option<&Good>) {
    let Some(shared) = shared.upgrade() else { return };
    let names = Names { shared };
    let mut known = names.known();
    if let Some(entry) = known.entries.get_mut(host) {
        let before = entry.servers();
        entry.running = None;
        entry.good = good.cloned().or_else(|| entry.good.take().filter(Good::is_usable));
        if entry.servers() != before {
            names.shared.version.fetch_add(1, Ordering::Release);
        }
    }
}

impl Addresses for Names {
    fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Also empty if the name has not been looked up yet.
    fn of(&self, endpoint: &EndpointUri) -> Arc<[IpAddr]> {
        let known = self.known();
        let entry = known.entries.get(endpoint.host());
        entry.map(KnownName::servers).unwrap_or_default()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

/// Returns the host names of a catalog's servers. IP addresses are left out, because they need no look-up.
fn hosts(catalog: &Catalog) -> Vec<Box<str>> {
    let ready = catalog.models.values().filter_map(|state| match state {
        ModelState::Ready(model) => Some(model),
        ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
    });
    let hosts: HashSet<&str> = ready
        .flat_map(|model| model.spec.servers())
        .map(|endpoint| endpoint.uri.host())
        .filter(|host| !is_address(host))
        .collect();
    hosts.into_iter().map(Into::into).collect()
}

fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Returns the addresses of a name that count as separate servers; empty if there are fewer than two. IPv4 and IPv6
/// addresses usually lead to the same servers, so only the family of the resolver's first address counts.
fn servers(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let mut servers: Vec<IpAddr> = addresses
        .iter()
        .filter(|address| address.is_ipv4() == first.is_ipv4())
        .copied()
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers.truncate(SERVERS_MAX);
    if servers.len() < 2 {
        servers.clear();
    }
    servers
}

#[cfg(test)]
mod tests;
