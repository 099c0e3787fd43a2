//! Reports what decoders have passed over: counted in metrics, and an unknown finish reason logged once for each server.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use switchboard::endpoint::{EndpointUri, Origin};

use super::{dialect::Oddities, metrics::UpstreamMetrics};

/// Maximum number of servers whose unknown finish reason is remembered as logged. When the set is full it is cleared, and
/// each server may be logged once more.
const LOGGED_MAX: usize = 1024;
/// Maximum length of a finish reason that is logged, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// The servers whose unknown finish reason was logged. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct LoggedServers(Arc<Mutex<HashSet<Origin>>>);

impl LoggedServers {
    /// Creates the reporter for one answer of a server.
    pub(super) fn reporter(&self, server: &EndpointUri, metrics: &Arc<UpstreamMetrics>) -> OddityReporter {
        OddityReporter {
            logged: self.clone(),
            server: server.origin(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether the server is new to the set.
    fn insert(&self, server: &Origin) -> bool {
        let mut logged = self.0.lock();
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        logged.insert(server.clone())
    }
}

/// Reports what was unexpected in one answer.
#[derive(Debug)]
pub(super) struct OddityReporter {
    logged: LoggedServers,
    server: Origin,
    metrics: Arc<UpstreamMetrics>,
}

impl OddityReporter {
    /// Reports what was unexpected since the last report, and empties it.
    pub(super) fn report(&self, oddities: &mut Oddities) {
        if oddities.is_empty() {
            return;
        }
        let Oddities {
            members,
            events,
            finish,
        } = std::mem::take(oddities);
        self.metrics.passed_over(&members, events);
        if let Some(word) = finish {
            self.metrics.unknown_finish();
            if self.logged.insert(&self.server) {
                let word = printable(word.expose());
                tracing::warn!(
                    upstream.addr = %self.server.host_and_port(),
                    finish_reason = word,
                    "a model server ended an answer with an unknown finish reason"
                );
            }
        }
    }
}

/// The word, if it is an identifier: anything else could be part of an answer.
fn printable(word: &str) -> &str {
    let is_identifier = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if word.len() <= WORD_BYTES_MAX && word.bytes().all(is_identifier) {
        word
    } else {
        "(not an identifier)"
    }
}
