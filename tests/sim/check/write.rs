//! Checks the answers that clients receive against the content of the disk.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use switchboard::{
    names::Revision,
    pb::registry::{self, subscribe_response::Kind},
};
use switchboard_registry::domain::state::State;

use super::Found;
use crate::history::{Event, History, Outcome};

/// No client or router sees a revision that a power cut could lose, and no durable revision is missing after the next
/// start.
pub(super) fn durable_before_visible_1(history: &History) -> Found {
    let mut found = Found::new();
    let mut volumes = BTreeMap::new();
    let mut writes = BTreeMap::new();
    let mut lives = BTreeMap::new();
    let mut durable: BTreeMap<usize, BTreeMap<Revision, _>> = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Durable {
                volume,
                places,
                incarnation,
                ..
            } => {
                durable.entry(*volume).or_default().extend(places.iter().copied());
                let first = places.first().map_or(Revision::ZERO, |(first, _)| *first);
                let life = lives.entry(*volume).or_insert((*incarnation, first));
                if life.0 != *incarnation {
                    *life = (*incarnation, first);
                }
            }
            Event::Began { run, volume, state } => {
                volumes.insert(*run, *volume);
                let (begins, newest) = (state.items.revision(), durable[volume].keys().next_back());
                let head = state.items.head();
                if newest != Some(&begins) || durable[volume].get(&begins) != Some(&head.chain) {
                    found.push(format!("run {run} begins at {begins}, but the volume has {newest:?}"));
                }
            }
            Event::Published { run, state } => {
                let head = state.items.head();
                if durable[&volumes[run]].get(&head.revision) != Some(&head.chain) {
                    found.push(format!("run {run} publishes {} before it is durable", head.revision));
                }
            }
            Event::Said { stream, run, message } => {
                let shown = match &message.kind {
                    Some(Kind::Welcome(welcome)) => welcome.head.as_ref().map(|head| head.revision),
                    Some(Kind::Delta(delta)) => delta.to.as_ref().map(|to| to.revision),
                    Some(Kind::SnapshotEnd(end)) => end.at.as_ref().map(|at| at.revision),
                    Some(Kind::Bookmark(bookmark)) => Some(bookmark.head_revision),
                    _ => None,
                };
                let shown = shown.and_then(Revision::new);
                if shown.is_some_and(|shown| !durable[&volumes[run]].contains_key(&shown)) {
                    found.push(format!("stream {stream} shows {shown:?} before it is durable"));
                }
            }
            Event::Asked { write, run, .. } => {
                writes.insert(*write, *run);
            }
            Event::Answered {
                write,
                outcome: Outcome::Written {
                    revision, incarnation, ..
                },
            } => {
                let volume = volumes[&writes[write]];
                let places = &durable[&volume];
                // Writes that were synced in the same batch as a new life are part of that life and not known by their
                // own revision.
                let (life, first) = lives[&volume];
                let is_of_life = life == *incarnation && *revision >= first;
                if is_of_life && !places.contains_key(revision) && is_above_floor(places, *revision) {
                    found.push(format!(
                        "write {write} is answered with {revision} before it is durable"
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// Revisions below those that the volume held when it was first logged may have been compacted.
fn is_above_floor<T>(durable: &BTreeMap<Revision, T>, revision: Revision) -> bool {
    durable.keys().next().is_none_or(|floor| revision >= *floor)
}

/// The answers to each request id on each volume: revision and encoded message.
type Answers<'a> = BTreeMap<(usize, &'a str), Vec<(Revision, &'a [u8])>>;

fn volumes(history: &History) -> BTreeMap<usize, usize> {
    let began = history.events().filter_map(|event| match event {
        Event::Began { run, volume, .. } => Some((*run, *volume)),
        _ => None,
    });
    began.collect()
}

/// The same request id always gets the same answer and makes at most one revision.
pub(super) fn idempotent_writes_13(history: &History) -> Found {
    let volumes = volumes(history);
    let mut asked = BTreeMap::new();
    let mut answers = Answers::new();
    let mut stored: BTreeMap<(usize, &str), BTreeSet<Revision>> = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Asked {
                write, run, request_id, ..
            } => {
                asked.insert(*write, (volumes[run], &**request_id));
            }
            Event::Answered {
                write,
                outcome: Outcome::Written { revision, answer, .. },
            } => answers.entry(asked[write]).or_default().push((*revision, answer)),
            Event::Durable { volume, answers, .. } => {
                for (id, revision) in answers {
                    stored.entry((*volume, id)).or_default().insert(*revision);
                }
            }
            _ => {}
        }
    }
    let different = answers
        .iter()
        .filter(|(_, answers)| answers.windows(2).any(|pair| pair[0] != pair[1]));
    let different = different.map(|((volume, id), _)| format!("{id} on volume {volume} has two different answers"));
    let twice = stored.iter().filter(|(_, revisions)| revisions.len() > 1);
    let twice = twice
        .map(|((volume, id), revisions)| format!("{id} on volume {volume} has made several revisions: {revisions:?}"));
    different.chain(twice).collect()
}

/// A write that is conditional on an etag is applied to the version of that etag: no other write changed the resource
/// in between.
pub(super) fn etag_14(history: &History) -> Found {
    let volumes = volumes(history);
    let mut asked = BTreeMap::new();
    let mut of_etag: BTreeMap<String, i64> = BTreeMap::new();
    let mut published: BTreeMap<usize, Vec<&State>> = BTreeMap::new();
    let mut found = Found::new();
    for event in history.events() {
        match event {
            Event::Began { run, state, .. } | Event::Published { run, state } => {
                published.entry(volumes[run]).or_default().push(state);
            }
            Event::Asked {
                write,
                run,
                base: Some((name, etag)),
                ..
            } => {
                asked.insert(*write, (volumes[run], &**name, &**etag));
            }
            Event::Answered {
                write,
                outcome: Outcome::Written { revision, answer, .. },
            } => {
                if let Some((volume, name, etag)) = asked.get(write)
                    && let Some(base) = of_etag.get(*etag)
                {
                    let between = published[volume].iter().filter_map(|state| state.items.get(name));
                    let between = between.map(|item| item.revision.get());
                    let lost: BTreeSet<i64> = between.filter(|at| at > base && *at < revision.get()).collect();
                    if !lost.is_empty() {
                        found.push(format!(
                            "write {write} to {name} is based on {base} and overwrites {lost:?}"
                        ));
                    }
                }
                if let Ok(model) = registry::Model::decode(&**answer)
                    && !model.etag.is_empty()
                {
                    of_etag.insert(model.etag, model.revision);
                }
            }
            _ => {}
        }
    }
    found
}
