//! What registries say on their streams.

use std::collections::BTreeMap;

use switchboard::{
    digest::ChainDigest,
    history::{Cursor, View},
    names::Revision,
    pb::{
        registry::{self, Mode, ModeReason, subscribe_response::Kind},
        types,
    },
};

use super::{Found, Plain, difference, plain_of_state, put};
use crate::history::{Event, History};

/// One stream from its hello on.
#[derive(Debug, Default)]
struct Stream {
    resume: Option<Cursor>,
    is_watcher: bool,
    volume: usize,
    welcome: Option<registry::Welcome>,
    /// The last cursor that was sent whole.
    position: Option<Cursor>,
    resources: Plain,
    /// How many parts of what is under way were sent.
    parts: i32,
}

/// What one message is in the course of its stream.
struct Step<'a> {
    number: usize,
    before: &'a Stream,
    after: &'a Stream,
    kind: &'a Kind,
    /// What is durable of the volume that the registry runs on.
    durable: &'a BTreeMap<Revision, ChainDigest>,
}

/// Goes through all streams, message by message.
fn walk(history: &History, mut look: impl FnMut(Step<'_>)) {
    let mut streams: BTreeMap<usize, Stream> = BTreeMap::new();
    let mut volumes = BTreeMap::new();
    let mut durable: BTreeMap<usize, BTreeMap<Revision, ChainDigest>> = BTreeMap::new();
    for event in history.events() {
        match event {
            Event::Durable { volume, places, .. } => durable.entry(*volume).or_default().extend(places.iter().copied()),
            Event::Began { run, volume, .. } => {
                volumes.insert(*run, *volume);
            }
            Event::Hello { stream, run, hello, .. } => {
                let opened = Stream {
                    resume: hello.resume.as_ref().and_then(|wire| Cursor::try_from(wire).ok()),
                    volume: volumes[run],
                    ..Stream::default()
                };
                streams.insert(*stream, opened);
            }
            Event::Watched {
                stream, run, resume, ..
            } => {
                let opened = Stream {
                    resume: *resume,
                    is_watcher: true,
                    volume: volumes[run],
                    ..Stream::default()
                };
                streams.insert(*stream, opened);
            }
            Event::Said { stream, message, .. } => {
                let number = *stream;
                let (Some(before), Some(kind)) = (streams.remove(&number), &message.kind) else {
                    continue;
                };
                let after = before.next(history, kind);
                look(Step {
                    number,
                    before: &before,
                    after: &after,
                    kind,
                    durable: &durable[&before.volume],
                });
                streams.insert(number, after);
            }
            _ => {}
        }
    }
}

impl Stream {
    fn next(&self, history: &History, kind: &Kind) -> Self {
        let mut next = Self {
            resume: self.resume,
            is_watcher: self.is_watcher,
            volume: self.volume,
            welcome: self.welcome.clone(),
            position: self.position,
            resources: self.resources.clone(),
            parts: self.parts,
        };
        match kind {
            Kind::Welcome(welcome) => {
                if welcome.mode() == Mode::Resumed {
                    // A watcher that takes no snapshot and has nothing begins at the present.
                    let present = || cursor(welcome.head.as_ref()).filter(|_| self.is_watcher);
                    next.position = self.resume.or_else(present);
                    let state = next.position.and_then(|at| history.truth(&at));
                    next.resources = state.map(|state| plain_of_state(state)).unwrap_or_default();
                }
                next.welcome = Some(welcome.clone());
            }
            Kind::SnapshotBegin(_) => {
                next.resources.clear();
                next.parts = 0;
            }
            Kind::SnapshotPart(part) => {
                part.resources
                    .iter()
                    .for_each(|resource| put(&mut next.resources, resource));
                next.parts += 1;
            }
            Kind::SnapshotEnd(end) => {
                next.position = cursor(end.at.as_ref());
                next.parts = 0;
            }
            Kind::Delta(delta) => {
                for deleted in &delta.deletes {
                    next.resources.remove(&deleted.name);
                }
                delta
                    .upserts
                    .iter()
                    .for_each(|resource| put(&mut next.resources, resource));
                next.parts += 1;
                if !delta.more {
                    next.position = cursor(delta.to.as_ref());
                    next.parts = 0;
                }
            }
            Kind::Bookmark(_) | Kind::Goodbye(_) | Kind::CheckRequest(_) => {}
        }
        next
    }
}

fn cursor(wire: Option<&types::Cursor>) -> Option<Cursor> {
    wire.and_then(|wire| Cursor::try_from(wire).ok())
}

fn revision(at: Option<&Cursor>) -> i64 {
    at.map_or(0, |at| at.revision.get())
}

/// Revisions of one life have no hole, and each delta leads further than what was sent before.
pub(super) fn dense_and_total_2(history: &History) -> Found {
    let mut found = Found::new();
    let mut newest: BTreeMap<_, Revision> = BTreeMap::new();
    for event in history.events() {
        if let Event::Durable {
            volume,
            incarnation,
            places,
            ..
        } = event
        {
            for (revision, _) in places {
                let before = newest.insert((*volume, *incarnation), *revision);
                if before.is_some_and(|before| before.next() != *revision) {
                    found.push(format!("volume {volume}: {before:?} is followed by {revision}"));
                }
            }
        }
    }
    walk(history, |step| {
        if let Kind::Delta(delta) = step.kind {
            let (at, to) = (
                revision(step.before.position.as_ref()),
                delta.to.as_ref().map_or(0, |to| to.revision),
            );
            if to <= at {
                found.push(format!("stream {}: a delta to {to} comes after {at}", step.number));
            }
        }
    });
    found
}

/// Each delta goes on from where the one before it ended, and no part is missing.
pub(super) fn gap_free_4(history: &History) -> Found {
    let mut found = Found::new();
    walk(history, |step| {
        let (number, parts) = (step.number, step.before.parts);
        match step.kind {
            Kind::Delta(delta) => {
                let at = revision(step.before.position.as_ref());
                if delta.from_revision != at || delta.part != parts {
                    let (from, part) = (delta.from_revision, delta.part);
                    found.push(format!(
                        "stream {number} at {at}, part {parts}: delta from {from}, part {part}"
                    ));
                }
            }
            Kind::SnapshotPart(part) if part.part != parts => {
                found.push(format!("stream {number}: part {} is not part {parts}", part.part));
            }
            _ => {}
        }
    });
    found
}

/// A bookmark names what was sent whole on its stream, and nothing else.
pub(super) fn bookmark_truth_6(history: &History) -> Found {
    let mut found = Found::new();
    walk(history, |step| {
        let Kind::Bookmark(bookmark) = step.kind else { return };
        let (at, sent) = (cursor(bookmark.at.as_ref()), step.before.position);
        if at != sent || bookmark.head_revision < revision(at.as_ref()) {
            let (said, sent) = (revision(at.as_ref()), revision(sent.as_ref()));
            let head = bookmark.head_revision;
            found.push(format!(
                "stream {}: bookmark {said} of {head} after {sent}",
                step.number
            ));
        }
    });
    found
}

/// Whatever way a stream took to a revision, it shows what the registry had published there.
pub(super) fn resume_equals_snapshot_7(history: &History) -> Found {
    let mut found = Found::new();
    walk(history, |step| {
        let (Some(at), number) = (step.after.position, step.number) else {
            return;
        };
        let is_whole = match step.kind {
            Kind::Delta(delta) => !delta.more,
            Kind::SnapshotEnd(_) => true,
            _ => false,
        };
        if !is_whole {
            return;
        }
        let Some(state) = history.truth(&at) else {
            found.push(format!("stream {number}: {} was never published", at.revision));
            return;
        };
        let names = difference(&step.after.resources, &plain_of_state(state));
        if !names.is_empty() || state.items.cursor(at.view) != at {
            found.push(format!("stream {number} at {}: {names:?} differ", at.revision));
        }
    });
    found
}

/// A history that does not go on from a cursor, or of which a part is no longer kept, is never sent as if it did.
pub(super) fn fork_detection_8(history: &History) -> Found {
    let mut found = Found::new();
    walk(history, |step| {
        let life = step
            .after
            .welcome
            .as_ref()
            .and_then(|welcome| cursor(welcome.head.as_ref()));
        let life = life.map(|head| head.incarnation);
        if step.after.position.is_some_and(|at| Some(at.incarnation) != life) {
            found.push(format!("stream {}: another life than it was welcomed to", step.number));
        }
        let Kind::Welcome(welcome) = step.kind else { return };
        let Some(head) = cursor(welcome.head.as_ref()) else {
            return;
        };
        let Some(resume) = step.before.resume else {
            return;
        };
        let (own, theirs) = (resume.incarnation, head.incarnation);
        let is_known = step.durable.get(&resume.revision) == Some(&resume.chain);
        let is_same_life = resume.store == head.store && own == theirs;
        let contradicts = is_same_life
            && (resume.revision > head.revision
                || !is_known && resume.revision.get() >= welcome.oldest_resumable && resume.view == View::Router);
        let is_foreign = resume.store != head.store
            || own.number > theirs.number
            || own.number == theirs.number && own.id != theirs.id;
        let is_kept = resume.revision.get() >= welcome.oldest_resumable;
        let is_right = match welcome.mode() {
            Mode::Resumed => is_same_life && is_known && is_kept,
            // A watcher uses nothing: whatever it had, it may start anew.
            Mode::Snapshot if step.before.is_watcher => true,
            Mode::Snapshot if welcome.reason() == ModeReason::Compacted => is_same_life && !contradicts && !is_kept,
            Mode::Snapshot if welcome.reason() == ModeReason::Fork => {
                resume.store == head.store && own.number < theirs.number
            }
            Mode::Snapshot => !contradicts && !is_foreign,
            Mode::Withheld => !step.before.is_watcher && (contradicts || is_foreign || !is_known),
            Mode::Unspecified => false,
        };
        if !is_right {
            let (mode, why) = (welcome.mode(), welcome.reason());
            found.push(format!(
                "stream {}: {mode:?} {why:?} for {}@{} at {}@{}",
                step.number, resume.revision, own.number, head.revision, theirs.number
            ));
        }
    });
    found
}

/// No API token is ever on a stream.
pub(super) fn no_secret_22(history: &History) -> Found {
    let mut found = Found::new();
    walk(history, |step| {
        let resources = match step.kind {
            Kind::SnapshotPart(part) => &part.resources,
            Kind::Delta(delta) => &delta.upserts,
            _ => return,
        };
        for resource in resources {
            let value = resource
                .payload
                .as_ref()
                .map(|payload| &*payload.value)
                .unwrap_or_default();
            if value.windows(7).any(|bytes| bytes == b"canary-") {
                found.push(format!("stream {}: `{}` has a token", step.number, resource.name));
            }
        }
    });
    found
}
