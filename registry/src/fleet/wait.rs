//! Decides whether a revision is in force on every router of a set. Pure.
//!
//! The one hard idea: the set grows with every router that connects, and shrinks only when a router leaves properly. A
//! router whose stream breaks may still answer calls with an older revision, so it stays in the set until a new process
//! replaces it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use switchboard::{
    history::Incarnation,
    names::{Group, IncarnationId, Revision, RouterId},
    stream::{HeldReport, Report, WelcomeMode},
};

use super::{ROUTERS_MAX, RouterInstance};
use crate::domain::state::State;

/// Maximum number of routers that an error lists.
const NAMED_MAX: usize = 20;

/// A request to wait for a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedRevision {
    /// The revision to wait for. `None`: the newest.
    pub revision: Option<Revision>,
    /// The incarnation that the revision belongs to. `None`: the current one.
    pub incarnation: Option<IncarnationId>,
    /// Only routers of this group count. Empty: all routers count.
    pub group: Group,
    /// Minimum number of routers in the set.
    pub min_routers: usize,
}

/// Why a revision is not in force everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The maximum number of calls is already waiting.
    #[error("the maximum of {max} calls is already waiting for a revision")]
    TooMany {
        /// The maximum number of waiting calls.
        max: usize,
    },
    /// The revision belongs to another incarnation than the current one.
    #[error("the revision belongs to another incarnation than the current one")]
    OtherIncarnation {
        /// The current incarnation.
        present: Incarnation,
    },
    /// The revision does not exist yet.
    #[error("revision {wanted} does not exist yet: the newest is {newest}")]
    InFuture {
        /// The requested revision.
        wanted: Revision,
        /// The oldest revision that is kept.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// Too few routers are connected.
    #[error("only {connected} of at least {min} routers are connected")]
    TooFew {
        /// The minimum number of routers.
        min: usize,
        /// The number of connected routers.
        connected: usize,
    },
    /// Routers cannot use an item of the revision.
    #[error("a router cannot use an item of the revision")]
    Refused(Vec<Refused>),
    /// The time limit was reached.
    #[error("revision {wanted} was not in force on {count} of {of} routers in time")]
    NotApplied {
        /// The requested revision.
        wanted: Revision,
        /// The first routers that have not applied it, ordered by id.
        routers: Vec<RouterId>,
        /// Number of all routers that have not applied it.
        count: usize,
        /// Number of routers in the set.
        of: usize,
    },
    /// The registry is shutting down.
    #[error("the registry is shutting down")]
    Draining,
}

/// An item that a router cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The router.
    pub router: RouterId,
    /// The held item, with the reason why the router cannot use it.
    pub held: HeldReport,
}

/// A revision that is in force on all routers of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The revision.
    pub revision: Revision,
    /// The incarnation that the revision belongs to.
    pub incarnation: Incarnation,
    /// The routers of the set.
    pub routers: Vec<RouterId>,
}

/// The state of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WaitVerdict {
    Waiting,
    InForce(InForce),
    Refused(Vec<Refused>),
}

/// The routers that are waited for, with the progress of each.
#[derive(Debug)]
pub(super) struct Set {
    goal: Goal,
    group: Group,
    min_routers: usize,
    routers: BTreeMap<RouterInstance, AwaitedRouter>,
    /// Number of routers that ever joined. Distinguishes later processes from earlier ones.
    joined: u64,
    /// Number of routers that have not reached the goal, number of those that cannot use it, and number of lost
    /// routers.
    behind: usize,
    refusing: usize,
    lost: usize,
    /// Number of lost routers that did not fit into the set.
    unlisted: usize,
}

#[derive(Debug)]
struct AwaitedRouter {
    joined: u64,
    is_connected: bool,
    is_withheld: bool,
    standing: RouterStanding,
}

/// The progress of one router.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RouterStanding {
    Behind,
    InForce,
    Refused(HeldReport),
}

/// The revision to reach, and the newest state when the wait began. The state shows whether an item changed up to the
/// revision.
#[derive(Debug)]
struct Goal {
    revision: Revision,
    state: Arc<State>,
}

impl Set {
    /// Creates an empty set for a request, checked against a published state.
    pub(super) fn new(wanted: AwaitedRevision, state: Arc<State>) -> Result<Self, WaitError> {
        let items = &state.items;
        let present = items.incarnation();
        if wanted.incarnation.is_some_and(|incarnation| incarnation != present.id) {
            return Err(WaitError::OtherIncarnation { present });
        }
        let newest = items.revision();
        let revision = wanted.revision.unwrap_or(newest);
        if revision > newest {
            return Err(WaitError::InFuture {
                wanted: revision,
                oldest: items.oldest_resumable(),
                newest,
            });
        }
        Ok(Self {
            goal: Goal { revision, state },
            group: wanted.group,
            min_routers: wanted.min_routers,
            routers: BTreeMap::new(),
            joined: 0,
            behind: 0,
            refusing: 0,
            lost: 0,
            unlisted: 0,
        })
    }

    /// Returns the incarnation that the revision belongs to.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.goal.state.items.incarnation()
    }

    /// Adds a router that connects. It replaces every earlier process of its id that was lost.
    pub(super) fn join(&mut self, key: &RouterInstance, group: &Group, mode: WelcomeMode) {
        if !self.group.is_empty() && self.group != *group {
            // The router has left the group, and its lost processes are no longer waited for.
            for replaced in self.others(key, |other| !other.is_connected) {
                self.remove(&replaced);
            }
            return;
        }
        self.joined += 1;
        let joined = self.joined;
        let awaited = self.remove(key).unwrap_or(AwaitedRouter {
            joined,
            is_connected: true,
            is_withheld: false,
            standing: RouterStanding::Behind,
        });
        let replaced = self.others(key, |other| !other.is_connected && other.joined < awaited.joined);
        for replaced in replaced {
            self.remove(&replaced);
        }
        self.put(
            key,
            AwaitedRouter {
                is_connected: true,
                is_withheld: matches!(mode, WelcomeMode::Withheld(_)),
                ..awaited
            },
        );
    }

    /// Updates a router's progress from its report.
    pub(super) fn report(&mut self, key: &RouterInstance, report: &Report) {
        if let Some(awaited) = self.remove(key) {
            let standing = self.goal.judge(report);
            self.put(key, AwaitedRouter { standing, ..awaited });
        }
    }

    /// Handles the loss of a router's stream: the router stays in the set, unless a later process of its id is
    /// connected.
    pub(super) fn lose(&mut self, key: &RouterInstance) {
        let Some(awaited) = self.remove(key) else { return };
        let later = self.others(key, |other| other.is_connected && other.joined > awaited.joined);
        if !later.is_empty() {
            return;
        }
        if self.lost >= ROUTERS_MAX {
            self.unlisted += 1;
            return;
        }
        let lost = AwaitedRouter {
            is_connected: false,
            ..awaited
        };
        self.put(key, lost);
    }

    /// Removes a router that shuts down properly, because it no longer answers calls.
    pub(super) fn leave(&mut self, key: &RouterInstance) {
        self.remove(key);
    }

    /// Returns whether the wait is decided.
    pub(super) fn verdict(&self) -> WaitVerdict {
        if self.refusing > 0 {
            let refused = self.routers.iter().filter_map(|((router, _), awaited)| {
                Some(Refused {
                    router: router.clone(),
                    held: awaited.refused()?.clone(),
                })
            });
            return WaitVerdict::Refused(refused.take(NAMED_MAX).collect());
        }
        // Ids are only counted if the number of processes suffices, so that they are not counted at each report.
        if self.behind > 0 || self.unlisted > 0 || self.routers.len() < self.min_routers {
            return WaitVerdict::Waiting;
        }
        let routers: BTreeSet<&RouterId> = self.routers.keys().map(|(router, _)| router).collect();
        if routers.len() < self.min_routers {
            return WaitVerdict::Waiting;
        }
        WaitVerdict::InForce(InForce {
            revision: self.goal.revision,
            incarnation: self.incarnation(),
            routers: routers.into_iter().cloned().collect(),
        })
    }

    /// Returns the error for a wait that is not decided when its time is over.
    pub(super) fn overdue(&self) -> WaitError {
        let ids = |keep: fn(&AwaitedRouter) -> bool| -> BTreeSet<&RouterId> {
            let routers = self.routers.iter().filter(|(_, awaited)| keep(awaited));
            routers.map(|((router, _), _)| router).collect()
        };
        let all = ids(|_| true);
        if all.len() + self.unlisted < self.min_routers {
            return WaitError::TooFew {
                min: self.min_routers,
                connected: ids(|awaited| awaited.is_connected).len(),
            };
        }
        let behind = ids(|awaited| !awaited.is_in_force());
        WaitError::NotApplied {
            wanted: self.goal.revision,
            count: behind.len() + self.unlisted,
            of: all.len() + self.unlisted,
            routers: behind.into_iter().take(NAMED_MAX).cloned().collect(),
        }
    }

    /// Returns the other processes with the same id that satisfy `fits`.
    fn others(&self, key: &RouterInstance, fits: impl Fn(&AwaitedRouter) -> bool) -> Vec<RouterInstance> {
        let (id, _) = key;
        let before = self.routers.range(..key).rev();
        let after = self.routers.range((Bound::Excluded(key), Bound::Unbounded));
        let is_of_id = |((other, _), _): &(&RouterInstance, &AwaitedRouter)| other == id;
        let others = before.take_while(is_of_id).chain(after.take_while(is_of_id));
        let fitting = others.filter(|(_, awaited)| fits(awaited));
        fitting.map(|(key, _)| key.clone()).collect()
    }

    fn put(&mut self, key: &RouterInstance, awaited: AwaitedRouter) {
        self.behind += usize::from(!awaited.is_in_force());
        self.refusing += usize::from(awaited.refused().is_some());
        self.lost += usize::from(!awaited.is_connected);
        self.routers.insert(key.clone(), awaited);
    }

    fn remove(&mut self, key: &RouterInstance) -> Option<AwaitedRouter> {
        let awaited = self.routers.remove(key)?;
        self.behind -= usize::from(!awaited.is_in_force());
        self.refusing -= usize::from(awaited.refused().is_some());
        self.lost -= usize::from(!awaited.is_connected);
        Some(awaited)
    }
}

impl AwaitedRouter {
    fn is_in_force(&self) -> bool {
        // The cursor of a router whose history contradicts this one proves nothing about this history.
        !self.is_withheld && self.standing == RouterStanding::InForce
    }

    const fn refused(&self) -> Option<&HeldReport> {
        match &self.standing {
            RouterStanding::Refused(held) if !self.is_withheld => Some(held),
            RouterStanding::Refused(_) | RouterStanding::Behind | RouterStanding::InForce => None,
        }
    }
}

/// Whether a held item changed after the version that the router uses, and not after the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldChange {
    No,
    Yes,
    /// The item changed after the goal, so it is unknown whether it also changed before.
    Perhaps,
}

impl Goal {
    fn judge(&self, report: &Report) -> RouterStanding {
        let is_applied = report.applied.is_some_and(|applied| {
            applied.incarnation == self.state.items.incarnation() && applied.revision >= self.revision
        });
        // The goal may make an item usable that the router holds at an older state.
        if !is_applied {
            return RouterStanding::Behind;
        }
        let refused = report
            .held
            .iter()
            .find(|held| held.kind.is_lasting() && self.changed(held) == HeldChange::Yes);
        if let Some(refused) = refused {
            return RouterStanding::Refused(refused.clone());
        }
        let is_all_listed = report.held.len() >= report.held_total;
        if is_all_listed && report.held.iter().all(|held| self.changed(held) == HeldChange::No) {
            RouterStanding::InForce
        } else {
            RouterStanding::Behind
        }
    }

    fn changed(&self, held: &HeldReport) -> HeldChange {
        if held.used_revision >= self.revision {
            return HeldChange::No;
        }
        if held.revision <= self.revision {
            return HeldChange::Yes;
        }
        // The router is past the goal. An item that is not in this state was created after the goal.
        match self.state.items.get(&held.resource) {
            Some(item) if item.revision > self.revision => HeldChange::Perhaps,
            Some(item) if item.revision > held.used_revision => HeldChange::Yes,
            Some(_) | None => HeldChange::No,
        }
    }
}

#[cfg(test)]
mod tests;
