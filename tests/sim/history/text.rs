//! Formats the events of a history as text.

use std::collections::BTreeMap;

use switchboard::{
    history::Cursor,
    pb::registry::{self, subscribe_response::Kind},
};

use super::{Event, Outcome};

/// Random ids, numbered in the order in which they appear.
#[derive(Default)]
pub(super) struct Ids(BTreeMap<String, usize>);

impl Ids {
    fn id(&mut self, id: impl ToString) -> usize {
        let next = self.0.len();
        *self.0.entry(id.to_string()).or_insert(next)
    }

    fn cursor(&mut self, cursor: &Cursor) -> String {
        let life = self.id(cursor.incarnation.id);
        format!("{}@{life}", cursor.revision)
    }

    fn wire(&mut self, cursor: Option<&switchboard::pb::types::Cursor>) -> String {
        cursor.map_or_else(
            || "nothing".to_owned(),
            |cursor| {
                let life = self.id(&cursor.incarnation);
                format!("{}@{life}", cursor.revision)
            },
        )
    }

    pub(super) fn event(&mut self, event: &Event) -> String {
        match event {
            Event::Durable {
                volume,
                incarnation,
                places,
                answers,
            } => {
                let life = self.id(incarnation);
                let revisions: Vec<_> = places.iter().map(|(revision, _)| revision.get()).collect();
                format!("volume {volume} stores {revisions:?}@{life}, answers {answers:?}")
            }
            Event::Began { run, volume, state } => {
                format!("run {run} begins on volume {volume} at {}", state.items.revision())
            }
            Event::Published { run, state } => format!("run {run} publishes {}", state.items.revision()),
            Event::Gone { run, how } => format!("run {run} has ended: {how}"),
            Event::Asked {
                write,
                run,
                request_id,
                base,
                what,
            } => {
                let base = base.as_ref().map(|(name, etag)| (name, self.id(etag)));
                format!("write {write} to run {run} as {request_id}, base {base:?}: {what}")
            }
            Event::Answered { write, outcome } => match outcome {
                Outcome::Written { revision, .. } => format!("write {write} is revision {revision}"),
                Outcome::Refused(why) => format!("write {write} is refused: {why}"),
                Outcome::Unknown => format!("write {write} has an unknown outcome"),
            },
            Event::Hello {
                stream,
                process,
                run,
                hello,
            } => {
                let resume = self.wire(hello.resume.as_ref());
                let want = hello.want_snapshot;
                format!("{process:?} to run {run} on stream {stream}: resume {resume}, snapshot {want}")
            }
            Event::Watched {
                stream,
                run,
                resume,
                include_snapshot,
            } => {
                let resume = resume.as_ref().map(|cursor| self.cursor(cursor));
                format!("a watcher to run {run} on stream {stream}: resume {resume:?}, snapshot {include_snapshot}")
            }
            Event::Said { stream, message, .. } => format!("stream {stream}: {}", self.message(message)),
            Event::Reported {
                stream, report, in_use, ..
            } => {
                let (applied, received) = (self.wire(report.applied.as_ref()), self.wire(report.received.as_ref()));
                let in_use = in_use.as_ref().map(|cursor| self.cursor(cursor));
                let refusal = report.history_refusal.as_ref().map(|refusal| refusal.why());
                format!(
                    "stream {stream}: applied {applied}, received {received}, held {}, probe {}, refuses {refusal:?}, \
                     in use {in_use:?}",
                    report.held_total, report.probe
                )
            }
            Event::Closed { stream, why } => format!("stream {stream} ends: {why}"),
            Event::Started { process, .. } => format!("{process:?} starts"),
            Event::Received { process, state } => {
                let cursor = self.cursor(state.cursor());
                format!(
                    "{process:?} has received {cursor}, {} resources",
                    state.resources().len()
                )
            }
            Event::InUse {
                process,
                applied,
                catalog,
            } => {
                let held: Vec<_> = applied
                    .held
                    .iter()
                    .map(|held| (held.name.to_string(), held.revision.get()))
                    .collect();
                format!("{process:?} uses {}, held {held:?}", self.cursor(&catalog.cursor))
            }
            Event::Fetched { process, id, token } => {
                let id = self.id(id);
                format!("{process:?} has fetched credential {id}: {token}")
            }
            Event::Called {
                process,
                call,
                feature,
                catalog,
            } => {
                let cursor = self.cursor(&catalog.cursor);
                format!("{process:?} begins call {call} of {feature} with {cursor}")
            }
            Event::Sent { process, call, sent } => format!("{process:?} in call {call}: {sent:?}"),
            Event::Waiting {
                wait,
                revision,
                connected,
            } => format!("wait {wait} for {revision}, {} connected", connected.len()),
            Event::Waited { wait, result } => match result {
                Ok(done) => format!("wait {wait}: {} is in force on {:?}", done.revision, done.routers),
                Err(error) => format!("wait {wait}: {error}"),
            },
            Event::Fault(what) => what.clone(),
            Event::Healed { run } => format!("faults are over, run {run} serves"),
            Event::Stopped { head, .. } => format!("the time for convergence is over at {}", self.cursor(head)),
        }
    }

    fn message(&mut self, message: &registry::SubscribeResponse) -> String {
        match &message.kind {
            Some(Kind::Welcome(welcome)) => {
                let head = self.wire(welcome.head.as_ref());
                format!("welcome {:?} {:?} at {head}", welcome.mode(), welcome.reason())
            }
            Some(Kind::SnapshotBegin(begin)) => {
                format!("snapshot of {}, {}", self.wire(begin.at.as_ref()), begin.resources)
            }
            Some(Kind::SnapshotPart(part)) => format!("part {} with {}", part.part, part.resources.len()),
            Some(Kind::SnapshotEnd(end)) => format!("end of {}", self.wire(end.at.as_ref())),
            Some(Kind::Delta(delta)) => {
                let upserts: Vec<_> = delta.upserts.iter().map(|resource| &resource.name).collect();
                let deletes: Vec<_> = delta.deletes.iter().map(|deleted| &deleted.name).collect();
                let to = self.wire(delta.to.as_ref());
                format!(
                    "delta {} to {to}: upserts {upserts:?}, deletes {deletes:?}",
                    delta.from_revision
                )
            }
            Some(Kind::Bookmark(bookmark)) => {
                let at = self.wire(bookmark.at.as_ref());
                let (head, probe, stalled) = (bookmark.head_revision, bookmark.probe, bookmark.stalled);
                format!("bookmark {at} of {head}, probe {probe}, stalled {stalled}")
            }
            Some(Kind::Goodbye(goodbye)) => format!("goodbye {:?}", goodbye.why()),
            Some(Kind::CheckRequest(_)) => "a check".to_owned(),
            None => "nothing".to_owned(),
        }
    }
}
