//! A snapshot or a delta as a sequence of messages, each encoded once and shared by all readers.
//!
//! A message is encoded when the first reader asks for it, so that no reader waits for the whole run. A newer state may
//! have been published by then, but all messages of a run show the state with which the run began.

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

/// The content of a message before it is encoded.
type RunContent = RegistryMessage<Arc<Item>>;

/// Maximum size of a part in bytes, unless a single resource is larger.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// Upper bound for the encoded size in bytes of the fields around the resources of a part.
const PART_OVERHEAD_BYTES: usize = 512;

/// Upper bound for the encoded size in bytes of the tags, lengths and numbers around the texts of one resource.
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
    /// The part that is not encoded yet. `None`: everything is encoded.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    state: Arc<State>,
    /// Number of encoded parts and encoded changes.
    parts: u32,
    changes: usize,
}

/// One message of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMessage {
    /// The encoded message.
    pub bytes: Bytes,
    /// Whether this is the last message of the run.
    pub is_last: bool,
}

impl Run {
    /// Creates a snapshot of `state`.
    #[must_use]
    pub fn snapshot(state: &Arc<State>, view: View) -> Self {
        Self::new(state, view, None)
    }

    /// Creates a delta from `from` to `state`, which must still have all changes after `from`.
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

    /// Returns the view.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// Returns the revision that the delta starts from. `None`: the run is a snapshot.
    #[must_use]
    pub const fn from(&self) -> Option<Revision> {
        self.from
    }

    /// Returns the cursor of the state that the run leads to.
    #[must_use]
    pub const fn to(&self) -> Cursor {
        self.to
    }

    /// Returns the message at an index, counted from 0. `None` after the last message.
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

    /// Returns all messages, for tests.
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

/// The result of [`Rest::take`].
struct Part {
    number: u32,
    upserts: Vec<Arc<Item>>,
    deletes: Vec<Deleted>,
    more: bool,
}

impl Rest {
    /// Takes the next part of `all`, which must contain the same changes in the same order at each call.
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

/// Returns an upper bound for the encoded size of the change in bytes.
fn weight(change: &RunChange<'_>) -> usize {
    ITEM_OVERHEAD_BYTES
        + match change {
            RunChange::Upsert(item) => item.key.len() + item.type_url.len() + item.value.len(),
            RunChange::Delete(tombstone) => tombstone.key.len(),
        }
}

#[cfg(test)]
mod tests;
