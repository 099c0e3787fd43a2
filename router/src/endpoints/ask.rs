//! What a call wants of a server.

use tokio::time::Instant;

use super::{ServerId, Work};

/// What a server is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What keeps calls together. `None`: nothing.
    pub key: Option<u64>,
    /// The servers that this call has tried.
    pub tried: &'a [ServerId],
    /// What its time depends on.
    pub work: Work,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Whether a server may be used as if it were well when all are failing.
    pub may_be_degraded: bool,
}
