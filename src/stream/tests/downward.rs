//! Tests of messages from the registry: both conversions, and which malformed parts of a message are tolerated.

use std::time::SystemTime;

use super::*;
use crate::names::{CredentialId, ModelName};

/// A resource whose content these tests do not look at.
#[derive(Debug, Clone, PartialEq)]
struct Carried(registry::Resource);

impl Streamed for Carried {
    fn to_wire(&self) -> registry::Resource {
        self.0.clone()
    }
}

impl From<registry::Resource> for Carried {
    fn from(wire: registry::Resource) -> Self {
        Self(wire)
    }
}

type Said = RegistryMessage<Carried>;

fn carried(name: &str) -> Carried {
    Carried(registry::Resource {
        name: name.to_owned(),
        create_revision: 1,
        revision: 2,
        payload: None,
        requires: vec!["later".to_owned()],
    })
}

fn read(kind: subscribe_response::Kind) -> Result<Said, RegistryMessageError> {
    RegistryMessage::read(registry::SubscribeResponse { kind: Some(kind) }, View::Router)
}

fn read_again(message: &Said) -> Result<Said, RegistryMessageError> {
    let wire = registry::SubscribeResponse::decode(message.clone().encode()).unwrap();
    RegistryMessage::read(wire, View::Router)
}

fn welcome(mode: WelcomeMode) -> Welcome {
    Welcome {
        head: cursor(9),
        oldest_resumable: revision(2),
        heartbeat: Duration::from_secs(20),
        mode,
    }
}

fn delta() -> Delta<Carried> {
    Delta {
        from: revision(7),
        to: cursor(9),
        upserts: vec![carried("models/a")],
        deletes: vec![Deleted {
            name: "models/b".into(),
            revision: revision(8),
        }],
        part: 3,
        more: true,
        commit_time: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    }
}

#[test]
fn messages_from_the_registry_survive_the_conversion_and_back() {
    let bookmark = Bookmark {
        at: Some(cursor(8)),
        head: revision(9),
        probe: 4,
        stalled: true,
    };
    let begin = SnapshotBegin {
        at: cursor(9),
        resources: 2,
        bytes: 100,
    };
    let part = SnapshotPart {
        part: 1,
        resources: vec![carried("models/a"), carried("models/b")],
    };
    let check = |target, credential| {
        Said::Check(CheckRequest {
            id: CheckId::random(),
            target,
            credential,
            timeout: Duration::from_secs(7),
        })
    };
    for message in [
        Said::SnapshotBegin(begin),
        Said::SnapshotPart(part),
        Said::SnapshotEnd(cursor(9)),
        Said::Delta(delta()),
        Said::Bookmark(bookmark),
        Said::Bookmark(Bookmark { at: None, ..bookmark }),
        check(CheckTarget::Registered(ModelName::parse("models/a").unwrap()), None),
        check(CheckTarget::Unsaved(Box::default()), Some(CredentialId::random())),
    ] {
        assert_eq!(read_again(&message), Ok(message));
    }
    for why in [
        GoodbyeWhy::Rotation,
        GoodbyeWhy::Drain,
        GoodbyeWhy::TooSlow,
        GoodbyeWhy::Moved,
        GoodbyeWhy::Unknown,
    ] {
        let goodbye = Said::Goodbye(Goodbye {
            why,
            min_wait: Duration::from_millis(500),
            spread: Duration::from_secs(5),
        });
        assert_eq!(read_again(&goodbye), Ok(goodbye));
    }
}

#[test]
fn each_welcome_mode_has_its_reason_in_the_contract() {
    use registry::ModeReason as Reason;
    let rows = [
        (WelcomeMode::Resumed, Reason::Unspecified),
        (WelcomeMode::Snapshot(SnapshotWhy::First), Reason::First),
        (
            WelcomeMode::Snapshot(SnapshotWhy::CursorUnreadable),
            Reason::CursorUnreadable,
        ),
        (WelcomeMode::Snapshot(SnapshotWhy::Compacted), Reason::Compacted),
        (WelcomeMode::Snapshot(SnapshotWhy::Fork), Reason::Fork),
        (WelcomeMode::Snapshot(SnapshotWhy::StateMismatch), Reason::StateMismatch),
        (WelcomeMode::Snapshot(SnapshotWhy::View), Reason::View),
        (WelcomeMode::Snapshot(SnapshotWhy::Ahead), Reason::Ahead),
        (WelcomeMode::Snapshot(SnapshotWhy::Unknown), Reason::Unspecified),
        (WelcomeMode::Withheld(WithheldWhy::OtherStore), Reason::OtherStore),
        (WelcomeMode::Withheld(WithheldWhy::StaleHistory), Reason::StaleHistory),
        (WelcomeMode::Withheld(WithheldWhy::Ahead), Reason::Ahead),
        (WelcomeMode::Withheld(WithheldWhy::Diverged), Reason::Diverged),
        (WelcomeMode::Withheld(WithheldWhy::Unknown), Reason::Unspecified),
    ];
    for (mode, reason) in rows {
        assert_eq!(mode.to_wire().1, reason);
        let message = Said::Welcome(welcome(mode));
        assert_eq!(read_again(&message), Ok(message));
    }
}

#[test]
fn an_absent_heartbeat_has_the_default_and_a_long_one_is_cut() {
    let hour = Duration::from_secs(3600);
    for (said, heard) in [(Duration::ZERO, Welcome::HEARTBEAT_DEFAULT), (hour * 2, hour)] {
        let said = Welcome {
            heartbeat: said,
            ..welcome(WelcomeMode::Resumed)
        };
        let Ok(RegistryMessage::Welcome(read)) = read_again(&Said::Welcome(said)) else {
            panic!("could not read the welcome")
        };
        assert_eq!(read.heartbeat, heard);
    }
}

#[test]
fn a_cursor_of_another_view_is_refused() {
    let other = Cursor {
        view: View::Config,
        ..cursor(9)
    };
    assert_eq!(read_again(&Said::SnapshotEnd(other)), Err(RegistryMessageError));
    let bookmark = Bookmark {
        at: Some(other),
        head: revision(9),
        probe: 0,
        stalled: false,
    };
    assert_eq!(read_again(&Said::Bookmark(bookmark)), Err(RegistryMessageError));
}

#[test]
fn an_unreadable_cursor_differs_from_an_absent_one() {
    let mut wire = types::Cursor::from(&cursor(9));
    assert_eq!(Resume::read(None), Resume::Nothing);
    assert_eq!(Resume::read(Some(&wire)), Resume::At(cursor(9)));
    wire.format = 9;
    assert_eq!(Resume::read(Some(&wire)), Resume::Unreadable);
}

#[test]
fn a_delete_without_a_name_is_refused() {
    let unnamed = Deleted {
        name: "".into(),
        revision: revision(8),
    };
    let delta = Delta {
        deletes: vec![unnamed],
        ..delta()
    };
    assert_eq!(read_again(&Said::Delta(delta)), Err(RegistryMessageError));
}

#[test]
fn a_malformed_trace_context_is_ignored() {
    let formed = delta().traceparent.unwrap();
    for other in ["", "00", &formed.replace('-', "\n"), &formed.repeat(2)] {
        let delta = Delta {
            traceparent: Some(other.into()),
            ..delta()
        };
        let Ok(RegistryMessage::Delta(read)) = read_again(&Said::Delta(delta)) else {
            panic!("could not read the delta")
        };
        assert_eq!(read.traceparent, None);
    }
}

#[test]
fn the_smallest_number_of_seconds_counts_as_absent() {
    let smallest = prost_types::Duration {
        seconds: i64::MIN,
        nanos: 0,
    };
    let wire = registry::Goodbye {
        min_wait: Some(smallest),
        ..Default::default()
    };
    let Ok(RegistryMessage::Goodbye(goodbye)) = read(subscribe_response::Kind::Goodbye(wire)) else {
        panic!("could not read the goodbye")
    };
    assert_eq!((goodbye.min_wait, goodbye.why), (Duration::ZERO, GoodbyeWhy::Unknown));
}
