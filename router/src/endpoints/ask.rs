//! The inputs of the choice of a server.

use tokio::time::Instant;

use super::{ServerId, Work};

/// What the choice of a server for a call depends on.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Affinity key: calls with the same key prefer the same server. `None`: no preference.
    pub key: Option<u64>,
    /// The servers that this call has tried already.
    pub tried: &'a [ServerId],
    /// What the expected duration of the attempt depends on.
    pub work: Work,
    /// When the call must be finished.
    pub deadline: Instant,
    /// Whether a failing server may be chosen if all servers of the model are failing.
    pub may_be_degraded: bool,
}
