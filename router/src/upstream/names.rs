//! Where the hosts of model servers are.
//!
//! Of each name one look-up runs at a time, whoever waits for it, so that a slow resolver is not asked the same by every
//! call. The last good answer is kept: while the resolver fails or is slow, servers are dialled where they were.

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
use switchboard::endpoint::EndpointUri;
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

/// How often each name is looked up.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long a good answer is used when no newer one comes.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How long a look-up may take before a call goes by the kept answer.
const SLOW: Duration = Duration::from_millis(200);
/// How long a look-up may take at all. Calls wait less: as long as they may dial.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The most addresses of one name that are servers of their own.
const SERVERS_MAX: usize = 64;

/// How a name is looked up.
pub type Lookup = Box<dyn Fn(Box<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the resolver does not know it")]
pub struct LookupError(#[source] Arc<io::Error>);

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

/// The names that servers are dialled by. A clone shares what is known.
#[derive(Clone)]
pub struct Names {
    shared: Arc<NameCache>,
}

struct NameCache {
    lookup: Lookup,
    known: Mutex<KnownAddresses>,
    /// Grows with each change of what is a server of its own.
    version: AtomicU64,
}

#[derive(Default)]
struct KnownAddresses {
    entries: HashMap<Box<str>, KnownName>,
    /// The look-ups that run: at most one for each entry. They end with the last of the names.
    lookups: JoinSet<()>,
}

struct KnownName {
    good: Option<Good>,
    running: Option<RunningLookup>,
    /// When it was asked for last.
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
    /// In the resolver's order, which is the one to try them in.
    addresses: Arc<[IpAddr]>,
    /// Those that are servers of their own; sorted.
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

/// How a look-up ends.
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
            // Its task was dropped: the process ends.
            Ok(None) | Err(_) => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
        }
    }
}

impl Default for Names {
    /// By the system's resolver.
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
    /// Names that are looked up so.
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

    /// Keeps looking up the names of the catalog in use, until `stop`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
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
                    tracing::debug!(host = %host, error = %error.0, "a look-up has failed");
                }
            }
        };
        rounds::run(due, look_up, stop).await;
    }

    /// Where a host is now. The kept answer stands in when the resolver fails or is slow.
    ///
    /// # Cancel safety
    ///
    /// The look-up goes on, for whoever asks next.
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

    /// Joins the look-up that runs, or begins one. Beside it, the last good answer while it may be used.
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
                Ok(Ok(found)) if found.is_empty() => Err(io::ErrorKind::NotFound.into()),
                Ok(found) => found,
                Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
            };
            let outcome = found.map(Good::new).map_err(LookupError::from);
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

/// Takes down how a look-up has ended. A failure leaves the last good answer, while it may be used.
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

    /// None too when it is not looked up yet.
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

/// The names of a catalog's servers; addresses need no look-up.
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

/// The addresses of a name that are servers of their own: none of a name with one. The two families mostly lead to the
/// same servers, so only that of the resolver's first choice counts.
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
