//! What the revisions of a round leave behind together: each resource once, as the last of them leaves it. Pure.

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

/// The rows that revisions come to.
#[derive(Debug, Default)]
pub(super) struct Round<'a> {
    /// The lives that begin, each with its first revision.
    pub(super) lives: Vec<(&'a Life, &'a Past)>,
    /// The revisions of the newest life, and who made them: of a life that ends in the round none is kept.
    pub(super) revisions: Vec<(&'a Past, Actor)>,
    /// What these revisions changed, and the item that each change ended.
    pub(super) changes: Vec<(&'a ItemChange, Option<&'a Item>)>,
    /// Names that were deleted, also where there is a resource of that name again: nothing of the earlier one stays.
    pub(super) deleted: BTreeSet<&'a str>,
    /// The resources that were put, and are there in the end.
    pub(super) live: BTreeMap<&'a str, Live<'a>>,
    /// The credentials that were touched, of models that are there in the end, by the models' names; and when.
    pub(super) credentials: BTreeMap<String, (&'a ModelCredential, SystemTime)>,
}

/// A resource that was put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live<'a> {
    pub(super) item: &'a Item,
    /// When it was put first: only of a new resource this is when it was created.
    pub(super) create_time: SystemTime,
    pub(super) update_time: SystemTime,
}

impl<'a> Round<'a> {
    /// That of these revisions, made by `actor`.
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
