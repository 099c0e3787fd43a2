//! Whether stored revisions, changes and resources belong together: every digest is computed again. Pure.

use std::collections::BTreeMap;

use switchboard::{
    digest::{ChainChange, ChainDigest, ItemDigest, StateDigest},
    history::{Incarnation, View},
    names::{Revision, StoreId},
};

use super::StoreError;
use crate::domain::items::{Item, Past};

/// One change of one revision.
#[derive(Debug, Clone)]
pub(super) struct StoredChange {
    /// The revision.
    pub(super) revision: Revision,
    /// The resource.
    pub(super) name: String,
    /// Its digest as the revision left it.
    pub(super) item: ItemDigest,
}

/// Goes through the history from its beginning: `past` and `changes` are ordered by revision, changes then by name.
pub(super) fn verify(
    store: StoreId,
    incarnation: Incarnation,
    past: &[Past],
    changes: &[StoredChange],
    live: &[Item],
) -> Result<(), StoreError> {
    let mut chain = ChainDigest::of_life(ChainDigest::NONE, store, incarnation.number, incarnation.id);
    let mut state = StateDigest::EMPTY;
    let mut items: BTreeMap<&str, ItemDigest> = BTreeMap::new();
    let mut rest = changes;
    let mut expected = Revision::ZERO;
    for past in past {
        expected = expected.next();
        if past.revision != expected {
            return Err(StoreError::damaged(format!("revision {expected} is missing")));
        }
        let count = rest.partition_point(|change| change.revision <= past.revision);
        let (of_revision, later) = rest.split_at(count);
        rest = later;
        chain = chain.extended(
            past.revision,
            of_revision.iter().map(|change| ChainChange::Upsert(change.item)),
        );
        for change in of_revision {
            state = state.plus(change.item);
            if let Some(old) = items.insert(&change.name, change.item) {
                state = state.minus(old);
            }
        }
        if chain != past.chain {
            return Err(StoreError::damaged(format!(
                "the history up to revision {expected} is not the one that was written"
            )));
        }
        // Every kind of resource that exists is in both views.
        if [View::Config, View::Router]
            .iter()
            .any(|&view| past.state(view) != state)
        {
            return Err(StoreError::damaged(format!(
                "the state at revision {expected} is not the one that was written"
            )));
        }
    }
    if !rest.is_empty() {
        return Err(StoreError::damaged(
            "there are changes of a revision that does not exist",
        ));
    }
    for item in live {
        if items.remove(&*item.key) != Some(item.digest) {
            return Err(StoreError::damaged(format!("`{}` is not what was written", item.name)));
        }
    }
    match items.first_key_value() {
        Some((name, _)) => Err(StoreError::damaged(format!("`{name}` is missing"))),
        None => Ok(()),
    }
}
