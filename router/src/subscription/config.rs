//! Whom a subscription follows, and as whom.

use switchboard::names::{Group, InstanceId, RouterId};

use super::persist::SnapshotFile;

/// Whom to follow, and as whom.
#[derive(Debug, Clone)]
pub struct SubscriptionConfig {
    /// The registries' base addresses, `http://host:port`, one at least: tried in turn.
    pub registry_addrs: Vec<http::Uri>,
    /// The router's stable id.
    pub router_id: RouterId,
    /// What the router belongs to.
    pub group: Group,
    /// The id of this start of the process.
    pub instance: InstanceId,
    /// The version of this program, for people.
    pub build: Box<str>,
    /// Where the newest state is kept for the next start. `None`: nowhere.
    pub snapshot: Option<SnapshotFile>,
}
