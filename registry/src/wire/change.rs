//! Frames of the change stream as messages. Payloads go out as they are stored: nothing is encoded again.

use std::{sync::Arc, time::Duration};

use switchboard::{
    history::Cursor,
    pb::{registry, types},
};

use crate::{
    domain::items::Item,
    feed::{
        frame::{Bookmark, Delta, Frame, Goodbye, GoodbyeWhy},
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

/// The two messages have the same kinds under the same numbers, but the generator makes two types of them.
macro_rules! frames {
    ($message:ident, $module:ident) => {
        impl From<Frame> for registry::$message {
            fn from(frame: Frame) -> Self {
                use registry::$module::Kind;
                let kind = match frame {
                    Frame::Welcome { welcome, heartbeat } => Kind::Welcome(from_welcome(&welcome, heartbeat)),
                    Frame::SnapshotBegin { at, resources, bytes } => Kind::SnapshotBegin(registry::SnapshotBegin {
                        at: Some((&at).into()),
                        resources: count(resources),
                        bytes: count(bytes),
                    }),
                    Frame::SnapshotPart { part, resources } => Kind::SnapshotPart(registry::SnapshotPart {
                        part,
                        resources: from_items(&resources),
                    }),
                    Frame::SnapshotEnd { at } => Kind::SnapshotEnd(registry::SnapshotEnd {
                        at: Some((&at).into()),
                    }),
                    Frame::Delta(delta) => Kind::Delta(from_delta(&delta)),
                    Frame::Bookmark(bookmark) => Kind::Bookmark(from_bookmark(&bookmark)),
                    Frame::Goodbye(goodbye) => Kind::Goodbye(from_goodbye(&goodbye)),
                };
                Self { kind: Some(kind) }
            }
        }
    };
}

frames!(WatchResponse, watch_response);
frames!(SubscribeResponse, subscribe_response);

fn from_welcome(welcome: &Welcome, heartbeat: Duration) -> registry::Welcome {
    let (mode, reason) = match welcome.mode {
        Mode::Resumed(_) => (registry::Mode::Resumed, registry::ModeReason::Unspecified),
        Mode::Snapshot(why) => (registry::Mode::Snapshot, from_snapshot_why(why)),
        Mode::Withheld(why) => (registry::Mode::Withheld, from_withheld_why(why)),
    };
    registry::Welcome {
        head: Some((&welcome.head).into()),
        oldest_resumable: welcome.oldest_resumable.get(),
        heartbeat: duration(heartbeat),
        mode: mode.into(),
        reason: reason.into(),
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

fn from_delta(delta: &Delta) -> registry::Delta {
    registry::Delta {
        from_revision: delta.from.get(),
        to: Some((&delta.to).into()),
        upserts: from_items(&delta.upserts),
        part: delta.part,
        more: delta.more,
        commit_time: Some(delta.commit_time.into()),
        traceparent: delta.traceparent.as_deref().map(str::to_owned).unwrap_or_default(),
        ..Default::default()
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
    use prost::Message as _;
    use switchboard::history::View;

    use super::*;
    use crate::feed::{
        follower::{Follower, PART_BYTES_MAX},
        testing::History,
    };

    #[test]
    fn both_streams_have_the_same_bytes_and_no_part_is_larger_than_it_may_be() {
        let history = History::new();
        let name = |id: usize| format!("models/{}{id}", "m".repeat(50));
        let names: Vec<String> = (0..2_000).map(name).collect();
        history.commit(names.iter().map(|name| (&**name, 10)));
        let state = history.state();
        let mut follower = Follower::new(View::Config, Mode::Snapshot(SnapshotWhy::First));
        let mut frames: Vec<Frame> = std::iter::from_fn(|| follower.next(&state)).collect();
        let mut behind = Follower::new(
            View::Config,
            Mode::Resumed(Cursor {
                revision: switchboard::names::Revision::ZERO,
                ..state.items.cursor(View::Config)
            }),
        );
        frames.extend(std::iter::from_fn(|| behind.next(&state)));
        frames.push(behind.bookmark(&state, true));
        assert!(frames.len() > 6);
        for frame in frames {
            let watch = registry::WatchResponse::from(frame.clone()).encode_to_vec();
            let subscribe = registry::SubscribeResponse::from(frame).encode_to_vec();
            assert_eq!(watch, subscribe);
            assert!(watch.len() <= PART_BYTES_MAX, "{}", watch.len());
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
