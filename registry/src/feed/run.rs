//! A snapshot or a delta as the messages that carry it, each encoded once and shared by all who read it.
//!
//! A message is encoded when the first reader asks for it, so that nobody waits for the whole; by then the newest state may
//! be another one, but all messages of a run show the one that it began with.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use switchboard::{
    history::{Cursor, View},
    names::Revision,
    stream::{Deleted, Delta, RegistryMessage, SnapshotBegin, SnapshotPart},
};

use crate::domain::{
    items::{Item, Tombstone},
    state::State,
};

/// A piece of the configuration, before it is encoded.
type RunContent = RegistryMessage<Arc<Item>>;

/// The most bytes of one part, unless a single resource is larger.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// More than the fields around the resources of a part take on the wire.
const PART_OVERHEAD_BYTES: usize = 512;

/// More than the tags, lengths and numbers around the texts of one resource take on the wire.
const ITEM_OVERHEAD_BYTES: usize = 64;

/// The messages of one snapshot or one delta.
#[derive(Debug)]
pub struct Run {
    view: View,
    from: Option<Revision>,
    to: Cursor,
    encoded: Mutex<EncodedPart>,
}

#[derive(Debug)]
struct EncodedPart {
    messages: Vec<Bytes>,
    /// What is not encoded yet. `None`: all is.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    state: Arc<State>,
    /// How many parts, and how many of the changes, are encoded.
    parts: u32,
    changes: usize,
}

/// One message of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMessage {
    /// As it goes out.
    pub bytes: Bytes,
    /// Whether the run ends with it.
    pub is_last: bool,
}

impl Run {
    /// Everything that `state` has.
    #[must_use]
    pub fn snapshot(state: &Arc<State>, view: View) -> Self {
        Self::new(state, view, None)
    }

    /// What has changed after `from` up to `state`, which must remember that far back.
    #[must_use]
    pub fn delta(state: &Arc<State>, view: View, from: Revision) -> Self {
        Self::new(state, view, Some(from))
    }

    fn new(state: &Arc<State>, view: View, from: Option<Revision>) -> Self {
        let rest = Rest {
            state: Arc::clone(state),
            parts: 0,
            changes: 0,
        };
        Self {
            view,
            from,
            to: state.items.cursor(view),
            encoded: Mutex::new(EncodedPart {
                messages: Vec::new(),
                rest: Some(rest),
            }),
        }
    }

    /// The view that it is of.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// The revision after which its changes come; `None` for a snapshot.
    #[must_use]
    pub const fn from(&self) -> Option<Revision> {
        self.from
    }

    /// The state that it leads to.
    #[must_use]
    pub const fn to(&self) -> Cursor {
        self.to
    }

    /// The message at a place, counted from 0; `None` past the last.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<RunMessage> {
        let mut encoded = self.encoded.lock();
        while encoded.messages.len() <= index
            && let Some(mut rest) = encoded.rest.take()
        {
            let (content, is_last) = self.next_content(&mut rest, encoded.messages.is_empty());
            encoded.messages.push(content.encode());
            encoded.rest = (!is_last).then_some(rest);
        }
        let bytes = encoded.messages.get(index)?.clone();
        Some(RunMessage {
            bytes,
            is_last: encoded.rest.is_none() && index + 1 == encoded.messages.len(),
        })
    }

    /// All messages, for tests.
    #[cfg(test)]
    pub(crate) fn frames(&self) -> Vec<Bytes> {
        let messages = (0..).map_while(|index| self.message(index));
        messages.map(|message| message.bytes).collect()
    }

    fn next_content(&self, rest: &mut Rest, is_first: bool) -> (RunContent, bool) {
        let (view, at) = (self.view, self.to);
        let state = Arc::clone(&rest.state);
        let items = &state.items;
        let Some(from) = self.from else {
            if is_first {
                let begin = SnapshotBegin {
                    at,
                    resources: items.all(view).count(),
                    bytes: items.all(view).map(|item| item.value.len()).sum(),
                };
                return (RunContent::SnapshotBegin(begin), false);
            }
            let part = rest.take(items.all(view).map(RunChange::Upsert));
            if part.upserts.is_empty() {
                return (RunContent::SnapshotEnd(at), true);
            }
            let part = SnapshotPart {
                part: part.number,
                resources: part.upserts,
            };
            return (RunContent::SnapshotPart(part), false);
        };
        let upserts = items.changed_after(view, from).map(RunChange::Upsert);
        let part = rest.take(upserts.chain(items.deleted_after(from).map(RunChange::Delete)));
        let delta = Delta {
            from,
            to: at,
            upserts: part.upserts,
            deletes: part.deletes,
            part: part.number,
            more: part.more,
            commit_time: Some(items.head().commit_time),
            traceparent: state.traceparent.as_deref().map(Into::into),
        };
        (RunContent::Delta(delta), !part.more)
    }
}

enum RunChange<'a> {
    Upsert(&'a Arc<Item>),
    Delete(Tombstone),
}

/// What [`Rest::take`] takes.
struct Part {
    number: u32,
    upserts: Vec<Arc<Item>>,
    deletes: Vec<Deleted>,
    more: bool,
}

impl Rest {
    /// The next part of `all`, which must be the same changes in the same order at each call.
    fn take<'a>(&mut self, all: impl Iterator<Item = RunChange<'a>>) -> Part {
        let mut rest = all.skip(self.changes).peekable();
        let mut part = Part {
            number: self.parts,
            upserts: Vec::new(),
            deletes: Vec::new(),
            more: false,
        };
        let mut bytes = PART_OVERHEAD_BYTES;
        let mut taken = 0;
        while let Some(change) = rest.next_if(|change| taken == 0 || bytes + weight(change) <= PART_BYTES_MAX) {
            bytes += weight(&change);
            taken += 1;
            match change {
                RunChange::Upsert(item) => part.upserts.push(Arc::clone(item)),
                RunChange::Delete(tombstone) => part.deletes.push(Deleted {
                    name: tombstone.key,
                    revision: tombstone.revision,
                }),
            }
        }
        part.more = rest.peek().is_some();
        self.parts += 1;
        self.changes += taken;
        part
    }
}

/// No fewer bytes than the change takes on the wire.
fn weight(change: &RunChange<'_>) -> usize {
    ITEM_OVERHEAD_BYTES
        + match change {
            RunChange::Upsert(item) => item.key.len() + item.type_url.len() + item.value.len(),
            RunChange::Delete(tombstone) => tombstone.key.len(),
        }
}

#[cfg(test)]
mod tests;
