//! Whether a revision is in force on every router of a set: pure.
//!
//! The one hard idea: the set only grows by what connects, and shrinks only by what leaves in order. A router whose stream
//! breaks off may still answer calls by an older revision, so it stays in the set until a new process takes its place.

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

/// The most routers that an error names.
const NAMED_MAX: usize = 20;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedRevision {
    /// The revision. `None`: the newest.
    pub revision: Option<Revision>,
    /// The incarnation in which it counts. `None`: the present one.
    pub incarnation: Option<IncarnationId>,
    /// Only routers of this group count. Empty: all do.
    pub group: Group,
    /// How many routers there must be at least.
    pub min_routers: usize,
}

/// Why a revision is not in force everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// There are as many waits as there may be.
    #[error("{max} calls wait for a revision already")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// The revision counts in another incarnation than the present one.
    #[error("the revision is of another incarnation than the present one")]
    OtherIncarnation {
        /// The present incarnation.
        present: Incarnation,
    },
    /// The revision is not yet.
    #[error("revision {wanted} is not yet: the newest is {newest}")]
    InFuture {
        /// The revision that is waited for.
        wanted: Revision,
        /// The oldest revision that is kept.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// There are too few routers.
    #[error("{connected} of at least {min} routers are connected")]
    TooFew {
        /// How many there must be.
        min: usize,
        /// How many there are.
        connected: usize,
    },
    /// Routers cannot use an item of the revision.
    #[error("a router cannot use an item of the revision")]
    Refused(Vec<Refused>),
    /// The time is over.
    #[error("revision {wanted} is not in force on {count} of {of} routers in time")]
    NotApplied {
        /// The revision that is waited for.
        wanted: Revision,
        /// The first of the routers on which it is not, by id.
        routers: Vec<RouterId>,
        /// How many these are in all.
        count: usize,
        /// How many routers were waited for.
        of: usize,
    },
    /// The registry shuts down.
    #[error("the registry shuts down")]
    Draining,
}

/// An item that a router cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The router.
    pub router: RouterId,
    /// The item, with what is wrong with it.
    pub held: HeldReport,
}

/// A revision that is in force on all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The revision.
    pub revision: Revision,
    /// The incarnation in which it counts.
    pub incarnation: Incarnation,
    /// The routers.
    pub routers: Vec<RouterId>,
}

/// How far a wait is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WaitVerdict {
    Waiting,
    InForce(InForce),
    Refused(Vec<Refused>),
}

/// The routers that are waited for, and how far each is.
#[derive(Debug)]
pub(super) struct Set {
    goal: Goal,
    group: Group,
    min_routers: usize,
    routers: BTreeMap<RouterInstance, AwaitedRouter>,
    /// Counts the routers that ever joined, so that a later process can be told from an earlier.
    joined: u64,
    /// How many routers are not at the goal, how many of these refuse it, and how many of all are of lost routers.
    behind: usize,
    refusing: usize,
    lost: usize,
    /// How many lost routers found no room in the set.
    unlisted: usize,
}

#[derive(Debug)]
struct AwaitedRouter {
    joined: u64,
    is_connected: bool,
    is_withheld: bool,
    standing: RouterStanding,
}

/// How far one router is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RouterStanding {
    Behind,
    InForce,
    Refused(HeldReport),
}

/// A revision, with the state by which is told whether an item changed up to it: the newest when the wait began.
#[derive(Debug)]
struct Goal {
    revision: Revision,
    state: Arc<State>,
}

impl Set {
    /// An empty set that waits for what is wanted, as of a published state.
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

    /// The incarnation in which the revision counts.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.goal.state.items.incarnation()
    }

    /// A router connects. It takes the place of every earlier process of its id that was lost.
    pub(super) fn join(&mut self, key: &RouterInstance, group: &Group, mode: WelcomeMode) {
        if !self.group.is_empty() && self.group != *group {
            // It has left the group, and took the lost processes of its id along.
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

    /// A router reports.
    pub(super) fn report(&mut self, key: &RouterInstance, report: &Report) {
        if let Some(awaited) = self.remove(key) {
            let standing = self.goal.judge(report);
            self.put(key, AwaitedRouter { standing, ..awaited });
        }
    }

    /// A router's stream breaks off: it stays, unless a later process of its id is there.
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

    /// A router shuts down in order: it answers no calls any longer.
    pub(super) fn leave(&mut self, key: &RouterInstance) {
        self.remove(key);
    }

    /// Whether it is decided.
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
        // There are no more ids than places: whether there are enough is not counted anew at each report.
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

    /// What is told when the time is over before it is decided.
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

    /// Other processes under the same id.
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
        // What a router has whose history contradicts this one proves nothing about it.
        !self.is_withheld && self.standing == RouterStanding::InForce
    }

    const fn refused(&self) -> Option<&HeldReport> {
        match &self.standing {
            RouterStanding::Refused(held) if !self.is_withheld => Some(held),
            RouterStanding::Refused(_) | RouterStanding::Behind | RouterStanding::InForce => None,
        }
    }
}

/// Whether an item that is held changed after the version in use, up to the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldChange {
    No,
    Yes,
    /// It changed after the goal, which hides whether it did before.
    Perhaps,
}

impl Goal {
    fn judge(&self, report: &Report) -> RouterStanding {
        let is_applied = report.applied.is_some_and(|applied| {
            applied.incarnation == self.state.items.incarnation() && applied.revision >= self.revision
        });
        // What an older state holds back the goal may heal.
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
        // The router is past the goal. Whatever is not in this state came after it.
        match self.state.items.get(&held.resource) {
            Some(item) if item.revision > self.revision => HeldChange::Perhaps,
            Some(item) if item.revision > held.used_revision => HeldChange::Yes,
            Some(_) | None => HeldChange::No,
        }
    }
}

#[cfg(test)]
mod tests;
