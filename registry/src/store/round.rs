//! Combines the revisions of a round: each resource is written once, in its final state. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use crate::domain::{
    actor::Actor,
    credential::ModelCredential,
    items::{Item, ItemChange, Past},
    life::Life,
    state::RevisionEffect,
};

/// The rows to write for a round of revisions.
#[derive(Debug, Default)]
pub(super) struct Round<'a> {
    /// The lives that begin in the round, each with its first revision.
    pub(super) lives: Vec<(&'a Life, &'a Past)>,
    /// The revisions of the newest life, with their actors. Revisions of a life that ends in the round are not kept.
    pub(super) revisions: Vec<(&'a Past, Actor)>,
    /// The changes of these revisions, each with the item that it replaced or deleted.
    pub(super) changes: Vec<(&'a ItemChange, Option<&'a Item>)>,
    /// Names that were deleted, even if a resource of that name exists again: nothing of the earlier resource remains.
    pub(super) deleted: BTreeSet<&'a str>,
    /// The resources that were written and still exist after the round.
    pub(super) live: BTreeMap<&'a str, Live<'a>>,
    /// The credentials that were changed, and when, by model name. Only of models that still exist after the round.
    pub(super) credentials: BTreeMap<String, (&'a ModelCredential, SystemTime)>,
}

/// A resource that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live<'a> {
    pub(super) item: &'a Item,
    /// Time of the first write in the round. This is the creation time only if the resource is new.
    pub(super) create_time: SystemTime,
    pub(super) update_time: SystemTime,
}

impl<'a> Round<'a> {
    /// Combines these revisions, which were made by `actor`.
    pub(super) fn of(revisions: &'a [RevisionEffect], actor: Actor) -> Self {
        let mut round = Self::default();
        revisions.iter().for_each(|revision| round.add(revision, actor));
        round
    }

    fn add(&mut self, revision: &'a RevisionEffect, actor: Actor) {
        let past = &revision.past;
        if let Some(life) = &revision.life {
            self.lives.push((life, past));
            self.revisions.clear();
            self.changes.clear();
        }
        let actor = revision.life.as_ref().map_or(actor, |_life| Actor::System);
        self.revisions.push((past, actor));
        for change in &revision.changes {
            let before = revision.before.get(change.key());
            self.changes.push((change, before.map(AsRef::as_ref)));
            match change {
                ItemChange::Put(item) => self.put(item, past.commit_time),
                ItemChange::Delete(tombstone) => self.delete(&tombstone.key),
            }
        }
        for (model, credential) in &revision.credentials {
            let touched = (credential, past.commit_time);
            self.credentials.insert(model.to_string(), touched);
        }
    }

    fn put(&mut self, item: &'a Item, now: SystemTime) {
        let live = self.live.entry(&item.key).or_insert(Live {
            item,
            create_time: now,
            update_time: now,
        });
        (live.item, live.update_time) = (item, now);
    }

    fn delete(&mut self, name: &'a str) {
        self.deleted.insert(name);
        self.live.remove(name);
        self.credentials.remove(name);
    }
}
