//! Configuration of the subscription: the registries, and the identity of this router.

use switchboard::names::{Group, InstanceId, RouterId};

use super::persist::SnapshotFile;

/// The registries to follow, and the identity of this router.
#[derive(Debug, Clone)]
pub struct SubscriptionConfig {
    /// Base addresses of the registries, `http://host:port`. At least one. They are tried in turn.
    pub registry_addrs: Vec<http::Uri>,
    /// The router's id, which stays the same across restarts.
    pub router_id: RouterId,
    /// The group that the router belongs to.
    pub group: Group,
    /// The id of this start of the process.
    pub instance: InstanceId,
    /// The version of this program, for display.
    pub build: Box<str>,
    /// The file in which the newest state is stored for the next start. `None`: it is not stored.
    pub snapshot: Option<SnapshotFile>,
}
