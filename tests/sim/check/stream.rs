//! Checks what registries send on their streams.

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

/// The state of one stream since its hello.
#[derive(Debug, Default)]
struct Stream {
    resume: Option<Cursor>,
    is_watcher: bool,
    volume: usize,
    welcome: Option<registry::Welcome>,
    /// The last cursor whose state was sent completely.
    position: Option<Cursor>,
    resources: Plain,
    /// Number of parts already sent of the snapshot or delta in progress.
    parts: i32,
}

/// One message of a stream, with the stream's state before and after it.
struct Step<'a> {
    number: usize,
    before: &'a Stream,
    after: &'a Stream,
    kind: &'a Kind,
    /// The durable revisions of the volume on which the registry runs.
    durable: &'a BTreeMap<Revision, ChainDigest>,
}

/// Visits all messages of all streams.
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
                    // A watcher without a cursor that does not take a snapshot begins at the current revision.
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

/// The revisions of one life have no gaps, and each delta leads to a later revision than everything sent before it.
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
                found.push(format!("stream {}: a delta to {to} follows {at}", step.number));
            }
        }
    });
    found
}

/// Each delta begins at the revision at which the previous one ended, and no part is missing.
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
                found.push(format!(
                    "stream {number}: got part {} instead of part {parts}",
                    part.part
                ));
            }
            _ => {}
        }
    });
    found
}

/// A bookmark names exactly the state that was sent completely on its stream.
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

/// However a stream reached a revision, it shows the state that the registry published there.
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

/// The registry resumes a cursor only if its history contains the cursor and all later changes are still kept. It sends
/// a snapshot or withholds the history only for the reasons that the contract allows.
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
            found.push(format!(
                "stream {}: a life other than the one in its welcome",
                step.number
            ));
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
            // A watcher does not use the configuration, so it may always begin again with a snapshot.
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

/// No API token ever appears on a stream.
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
                found.push(format!("stream {}: `{}` contains a token", step.number, resource.name));
            }
        }
    });
    found
}
