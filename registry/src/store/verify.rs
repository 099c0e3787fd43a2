//! Verifies that stored revisions, changes and resources are consistent, by computing every digest again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use switchboard::{
    digest::{ChainChange, ChainDigest, ItemDigest, StateDigest},
    history::View,
    names::Revision,
};

use super::StoreError;
use crate::domain::{
    items::{Item, Past, Tombstone},
    life::Beginning,
};

/// One change of one revision.
#[derive(Debug, Clone)]
pub(super) struct StoredChange {
    /// The revision that made the change.
    pub(super) revision: Revision,
    /// The name of the resource.
    pub(super) name: String,
    /// Digest of the resource after the change. `None`: the change deleted it.
    pub(super) item: Option<ItemDigest>,
    /// Digest of the item that the change replaced or deleted. `None`: there was none.
    pub(super) before: Option<ItemDigest>,
    /// Size of that item's value in bytes.
    pub(super) before_bytes: usize,
}

/// Replays the history, verifies it, and returns the tombstones.
///
/// The replay starts at the beginning of the life, or at the floor if older history was cut off. `past` and `changes` are
/// ordered by revision, and the changes of one revision by name.
///
/// From the start of the replay on, the changes prove the chain. The states are proved step by step: each change
/// subtracts the item that it replaced and adds the new item, and the final sum must match the live resources. This
/// also proves that every old value is the one that was written, even if the change that wrote it is no longer kept.
pub(super) fn verify(
    beginning: &Beginning,
    past: &[Past],
    changes: &[StoredChange],
    live: &[Item],
) -> Result<Vec<Tombstone>, StoreError> {
    let floor = past.first().filter(|first| first.revision > beginning.first);
    let mut replay = match floor {
        None => Replay {
            next: beginning.first,
            chain: beginning.chain,
            // A later life begins with the existing resources and changes none of them.
            state: match past.first() {
                Some(first) if !beginning.is_of_store() => first.router,
                Some(_) | None => StateDigest::EMPTY,
            },
            last: BTreeMap::new(),
        },
        Some(floor) => Replay {
            next: floor.revision.next(),
            chain: floor.chain,
            state: floor.router,
            last: BTreeMap::new(),
        },
    };
    // A live resource without a change must not be newer than this revision.
    let oldest = match floor {
        None if beginning.is_of_store() => Revision::ZERO,
        None => beginning.first,
        Some(floor) => floor.revision,
    };
    let mut rest = changes;
    for past in past.iter().skip(usize::from(floor.is_some())) {
        let count = rest.partition_point(|change| change.revision <= past.revision);
        let (of_revision, later) = rest.split_at(count);
        rest = later;
        replay.step(past, of_revision)?;
    }
    if !rest.is_empty() {
        return Err(StoreError::damaged(
            "there are changes of a revision that does not exist",
        ));
    }
    match past.last() {
        Some(head) => {
            let state = live.iter().fold(StateDigest::EMPTY, |sum, item| sum.plus(item.digest));
            replay.check_live(live, oldest)?;
            check_state(head, state)?;
        }
        // Only a newly created store has no revision yet.
        None if beginning.is_of_store() && live.is_empty() => {}
        None => return Err(StoreError::damaged(format!("revision {} is missing", beginning.first))),
    }
    Ok(replay.tombstones())
}

/// The digests after the replayed part of the history.
struct Replay<'a> {
    next: Revision,
    chain: ChainDigest,
    state: StateDigest,
    /// The last change of each name so far.
    last: BTreeMap<&'a str, &'a StoredChange>,
}

impl<'a> Replay<'a> {
    fn step(&mut self, past: &Past, changes: &'a [StoredChange]) -> Result<(), StoreError> {
        let revision = self.next;
        self.next = revision.next();
        if past.revision != revision {
            return Err(StoreError::damaged(format!("revision {revision} is missing")));
        }
        let hashed = changes.iter().map(|change| match change.item {
            Some(item) => ChainChange::Upsert(item),
            None => ChainChange::Delete(&change.name),
        });
        self.chain = self.chain.extended(revision, hashed);
        if self.chain != past.chain {
            return Err(StoreError::damaged(format!(
                "the history up to revision {revision} differs from the one that was written"
            )));
        }
        for change in changes {
            if let Some(old) = self.last.insert(&change.name, change)
                && old.item != change.before
            {
                return Err(StoreError::damaged(format!(
                    "the value of `{}` before revision {revision} differs from the one that was written",
                    change.name
                )));
            }
            let added = change.item.map_or(self.state, |item| self.state.plus(item));
            self.state = change.before.map_or(added, |before| added.minus(before));
        }
        check_state(past, self.state)
    }

    /// Checks that each live resource is what its last change wrote. A resource without a change must be older than all
    /// changes.
    fn check_live(&self, live: &[Item], oldest: Revision) -> Result<(), StoreError> {
        for item in live {
            let is_as_written = match self.last.get(&*item.key) {
                Some(change) => change.item == Some(item.digest),
                None => item.revision <= oldest,
            };
            if !is_as_written {
                return Err(StoreError::damaged(format!(
                    "`{}` differs from what was written",
                    item.name
                )));
            }
        }
        let names: BTreeSet<&str> = live.iter().map(|item| &*item.key).collect();
        let missing = self
            .last
            .iter()
            .find(|(name, change)| change.item.is_some() && !names.contains(*name));
        match missing {
            Some((name, _)) => Err(StoreError::damaged(format!("`{name}` is missing"))),
            None => Ok(()),
        }
    }

    fn tombstones(self) -> Vec<Tombstone> {
        let deleted = self.last.into_values().filter(|change| change.item.is_none());
        deleted
            .map(|change| Tombstone {
                key: change.name.as_str().into(),
                revision: change.revision,
            })
            .collect()
    }
}

/// Checks the state digest of both views, which are equal because both views contain every kind of resource.
fn check_state(past: &Past, state: StateDigest) -> Result<(), StoreError> {
    if [View::Config, View::Router]
        .iter()
        .all(|&view| past.state(view) == state)
    {
        return Ok(());
    }
    Err(StoreError::damaged(format!(
        "the state at revision {} differs from the one that was written",
        past.revision
    )))
}
