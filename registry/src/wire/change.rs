//! Frames of the change stream as messages. Payloads go out as they are stored: nothing is encoded again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    history::Cursor,
    pb::{
        registry::{self, subscribe_response::Kind},
        types,
    },
};

use super::check;
use crate::{
    domain::items::{Item, Tombstone},
    feed::{
        frame::{Bookmark, Content, Delta, Frame, Goodbye, GoodbyeWhy},
        welcome::{Mode, Resume, SnapshotWhy, Welcome, WithheldWhy},
    },
};

/// Reads where a follower wants to go on. That a cursor cannot be read is an answer too, not an error.
#[must_use]
pub fn resume(cursor: Option<&types::Cursor>) -> Resume {
    cursor.map_or(Resume::Nothing, |cursor| {
        Cursor::try_from(cursor).map_or(Resume::Unreadable, Resume::At)
    })
}

/// The message of a frame, for watchers and routers alike: the two have the same kinds under the same numbers, and only
/// routers get checks.
#[must_use]
pub fn encode(frame: Frame) -> Bytes {
    message(match frame {
        Frame::Shared(bytes) => return bytes,
        Frame::Welcome { welcome, heartbeat } => Kind::Welcome(from_welcome(&welcome, heartbeat)),
        Frame::Bookmark(bookmark) => Kind::Bookmark(from_bookmark(&bookmark)),
        Frame::Goodbye(goodbye) => Kind::Goodbye(from_goodbye(&goodbye)),
        Frame::Check(order) => Kind::CheckRequest(check::request(&order)),
    })
}

/// The same of a piece of the configuration, for [`Frame::Shared`].
#[must_use]
pub fn encode_content(content: Content) -> Bytes {
    message(match content {
        Content::SnapshotBegin { at, resources, bytes } => Kind::SnapshotBegin(registry::SnapshotBegin {
            at: Some((&at).into()),
            resources: count(resources),
            bytes: count(bytes),
        }),
        Content::SnapshotPart { part, resources } => Kind::SnapshotPart(registry::SnapshotPart {
            part,
            resources: from_items(&resources),
        }),
        Content::SnapshotEnd { at } => Kind::SnapshotEnd(registry::SnapshotEnd { at: Some((&at).into()) }),
        Content::Delta(delta) => Kind::Delta(from_delta(delta)),
    })
}

fn message(kind: Kind) -> Bytes {
    registry::SubscribeResponse { kind: Some(kind) }.encode_to_vec().into()
}

fn from_welcome(welcome: &Welcome, heartbeat: Duration) -> registry::Welcome {
    let (mode, reason) = mode(welcome.mode);
    registry::Welcome {
        head: Some((&welcome.head).into()),
        oldest_resumable: welcome.oldest_resumable.get(),
        heartbeat: duration(heartbeat),
        mode: mode.into(),
        reason: reason.into(),
    }
}

/// How a stream begins, and why it is not resumed.
pub(super) const fn mode(mode: Mode) -> (registry::Mode, registry::ModeReason) {
    match mode {
        Mode::Resumed(_) => (registry::Mode::Resumed, registry::ModeReason::Unspecified),
        Mode::Snapshot(why) => (registry::Mode::Snapshot, from_snapshot_why(why)),
        Mode::Withheld(why) => (registry::Mode::Withheld, from_withheld_why(why)),
    }
}

const fn from_snapshot_why(why: SnapshotWhy) -> registry::ModeReason {
    match why {
        SnapshotWhy::First => registry::ModeReason::First,
        SnapshotWhy::CursorUnreadable => registry::ModeReason::CursorUnreadable,
        SnapshotWhy::Compacted => registry::ModeReason::Compacted,
        SnapshotWhy::Fork => registry::ModeReason::Fork,
        SnapshotWhy::StateMismatch => registry::ModeReason::StateMismatch,
        SnapshotWhy::View => registry::ModeReason::View,
        SnapshotWhy::Ahead => registry::ModeReason::Ahead,
    }
}

const fn from_withheld_why(why: WithheldWhy) -> registry::ModeReason {
    match why {
        WithheldWhy::OtherStore => registry::ModeReason::OtherStore,
        WithheldWhy::StaleHistory => registry::ModeReason::StaleHistory,
        WithheldWhy::Ahead => registry::ModeReason::Ahead,
        WithheldWhy::Diverged => registry::ModeReason::Diverged,
    }
}

fn from_delta(delta: Delta) -> registry::Delta {
    registry::Delta {
        from_revision: delta.from.get(),
        to: Some((&delta.to).into()),
        upserts: from_items(&delta.upserts),
        deletes: delta.deletes.iter().map(from_tombstone).collect(),
        part: delta.part,
        more: delta.more,
        commit_time: Some(delta.commit_time.into()),
        traceparent: delta.traceparent.map(String::from).unwrap_or_default(),
    }
}

fn from_tombstone(tombstone: &Tombstone) -> registry::Tombstone {
    registry::Tombstone {
        name: tombstone.key.to_string(),
        revision: tombstone.revision.get(),
    }
}

fn from_bookmark(bookmark: &Bookmark) -> registry::Bookmark {
    registry::Bookmark {
        at: bookmark.at.as_ref().map(Into::into),
        head_revision: bookmark.head.get(),
        probe: bookmark.probe,
        stalled: bookmark.stalled,
    }
}

fn from_goodbye(goodbye: &Goodbye) -> registry::Goodbye {
    let why = match goodbye.why {
        GoodbyeWhy::Rotation => registry::GoodbyeWhy::Rotation,
        GoodbyeWhy::Drain => registry::GoodbyeWhy::Drain,
        GoodbyeWhy::TooSlow => registry::GoodbyeWhy::TooSlow,
        GoodbyeWhy::Moved => registry::GoodbyeWhy::Moved,
    };
    registry::Goodbye {
        why: why.into(),
        min_wait: duration(goodbye.min_wait),
        spread: duration(goodbye.spread),
    }
}

fn from_items(items: &[Arc<Item>]) -> Vec<registry::Resource> {
    let resource = |item: &Arc<Item>| registry::Resource {
        name: item.key.to_string(),
        create_revision: item.create_revision.get(),
        revision: item.revision.get(),
        payload: Some(prost_types::Any {
            type_url: item.type_url.to_owned(),
            value: item.value.to_vec(),
        }),
        requires: Vec::new(),
    };
    items.iter().map(resource).collect()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use switchboard::{history::View, names::Revision};

    use super::*;
    use crate::feed::{
        run::{PART_BYTES_MAX, Run},
        testing::History,
    };

    #[test]
    fn both_streams_read_the_same_bytes_and_no_part_is_larger_than_it_may_be() {
        let history = History::new();
        let name = |id: usize| format!("models/{}{id}", "m".repeat(50));
        let names: Vec<String> = (0..2_000).map(name).collect();
        history.commit(names.iter().map(|name| (&**name, 10)));
        history.delete(names[..1_000].iter().map(|name| &**name));
        let state = history.state();
        let snapshot = Run::snapshot(&state, View::Config);
        let delta = Run::delta(&state, View::Config, Revision::ZERO);
        let frames: Vec<Bytes> = [snapshot, delta].iter().flat_map(Run::frames).collect();
        assert!(frames.len() > 6);
        for frame in frames {
            let watch = registry::WatchResponse::decode(&*frame).unwrap();
            let subscribe = registry::SubscribeResponse::decode(&*frame).unwrap();
            assert_eq!(watch.encode_to_vec(), frame);
            assert_eq!(subscribe.encode_to_vec(), frame);
            assert!(frame.len() <= PART_BYTES_MAX, "{}", frame.len());
        }
    }

    #[test]
    fn a_payload_goes_out_as_it_is_stored() {
        let history = History::with_revisions(2);
        let state = history.state();
        let item = state.items.get("models/a").unwrap();
        let [resource] = &from_items(std::slice::from_ref(item))[..] else {
            panic!("one item is one resource")
        };
        assert_eq!((resource.create_revision, resource.revision), (1, 2));
        let payload = resource.payload.as_ref().unwrap();
        assert_eq!(payload.type_url, item.type_url);
        assert_eq!(payload.value, item.value);
    }

    #[test]
    fn each_mode_has_its_reason() {
        let history = History::with_revisions(1);
        let head = history.cursor_at(1, View::Config);
        let said = |mode| {
            let welcome = Welcome {
                head,
                oldest_resumable: head.revision,
                mode,
            };
            let wire = from_welcome(&welcome, Duration::from_secs(15));
            (wire.mode(), wire.reason())
        };
        assert_eq!(
            said(Mode::Resumed(head)),
            (registry::Mode::Resumed, registry::ModeReason::Unspecified)
        );
        for (why, reason) in [
            (SnapshotWhy::First, registry::ModeReason::First),
            (SnapshotWhy::CursorUnreadable, registry::ModeReason::CursorUnreadable),
            (SnapshotWhy::Compacted, registry::ModeReason::Compacted),
            (SnapshotWhy::Fork, registry::ModeReason::Fork),
            (SnapshotWhy::StateMismatch, registry::ModeReason::StateMismatch),
            (SnapshotWhy::View, registry::ModeReason::View),
            (SnapshotWhy::Ahead, registry::ModeReason::Ahead),
        ] {
            assert_eq!(said(Mode::Snapshot(why)), (registry::Mode::Snapshot, reason));
        }
        for (why, reason) in [
            (WithheldWhy::OtherStore, registry::ModeReason::OtherStore),
            (WithheldWhy::StaleHistory, registry::ModeReason::StaleHistory),
            (WithheldWhy::Ahead, registry::ModeReason::Ahead),
            (WithheldWhy::Diverged, registry::ModeReason::Diverged),
        ] {
            assert_eq!(said(Mode::Withheld(why)), (registry::Mode::Withheld, reason));
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_read_is_told_from_none() {
        let history = History::with_revisions(1);
        let cursor = history.cursor_at(1, View::Config);
        let mut wire = types::Cursor::from(&cursor);
        assert_eq!(resume(None), Resume::Nothing);
        assert_eq!(resume(Some(&wire)), Resume::At(cursor));
        wire.format = 9;
        assert_eq!(resume(Some(&wire)), Resume::Unreadable);
    }
}
