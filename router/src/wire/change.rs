//! The change stream, both ways: what the registry says, read, and what the router says, written.
//!
//! A message that cannot be read is an error as a whole; a resource that cannot is not, see [`super::resource`].

use std::{sync::Arc, time::Duration};

use switchboard::{
    capability, duration,
    history::{Cursor, View},
    names::Revision,
    pb::{registry, types},
};

use super::check;
use crate::{
    endpoints::{Change, Health},
    subscription::{
        apply::Applied,
        compile::{Held, HeldWhy},
        config::SubscriptionConfig,
        order::Answer,
        resource::Resource,
        session::{
            Bookmark, Delta, Goodbye, GoodbyeWhy, HEARTBEAT_DEFAULT, HistoryRefusal, Message, Mode, RefusalWhy,
            SnapshotBegin, SnapshotPart, Standing, Welcome,
        },
    },
};

/// A report names no more held items.
pub(crate) const HELD_MAX: usize = 256;
/// A report tells of no more endpoints.
pub(crate) const ENDPOINTS_MAX: usize = 1_000;
/// Of version 00, the only one so far.
const TRACEPARENT_LENGTH: usize = 55;
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// A message that this build cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message on the change stream cannot be read")]
pub struct MessageError;

impl TryFrom<registry::SubscribeResponse> for Message {
    type Error = MessageError;

    fn try_from(wire: registry::SubscribeResponse) -> Result<Self, MessageError> {
        use registry::subscribe_response::Kind;
        Ok(match wire.kind.ok_or(MessageError)? {
            Kind::Welcome(welcome) => Self::Welcome(Welcome {
                mode: mode(&welcome)?,
                heartbeat: match span(welcome.heartbeat.as_ref()) {
                    Duration::ZERO => HEARTBEAT_DEFAULT,
                    heartbeat => heartbeat.min(HEARTBEAT_MAX),
                },
                head: cursor(welcome.head.as_ref())?,
            }),
            Kind::SnapshotBegin(begin) => Self::SnapshotBegin(SnapshotBegin {
                at: cursor(begin.at.as_ref())?,
                resources: usize::try_from(begin.resources).map_err(|_negative| MessageError)?,
            }),
            Kind::SnapshotPart(part) => Self::SnapshotPart(SnapshotPart {
                part: u32::try_from(part.part).map_err(|_negative| MessageError)?,
                resources: resources(part.resources)?,
            }),
            Kind::SnapshotEnd(end) => Self::SnapshotEnd(cursor(end.at.as_ref())?),
            Kind::Delta(delta) => Self::Delta(Delta {
                from: Revision::new(delta.from_revision).ok_or(MessageError)?,
                to: cursor(delta.to.as_ref())?,
                upserts: resources(delta.upserts)?,
                deletes: names(delta.deletes)?,
                part: u32::try_from(delta.part).map_err(|_negative| MessageError)?,
                more: delta.more,
                traceparent: traceparent(&delta.traceparent),
            }),
            Kind::Bookmark(bookmark) => Self::Bookmark(Bookmark {
                at: bookmark.at.as_ref().map(|at| cursor(Some(at))).transpose()?,
                head: Revision::new(bookmark.head_revision).ok_or(MessageError)?,
                probe: bookmark.probe,
                stalled: bookmark.stalled,
            }),
            Kind::Goodbye(goodbye) => Self::Goodbye(Goodbye {
                why: match goodbye.why() {
                    registry::GoodbyeWhy::TooSlow => GoodbyeWhy::TooSlow,
                    registry::GoodbyeWhy::Moved => GoodbyeWhy::Moved,
                    registry::GoodbyeWhy::Unspecified
                    | registry::GoodbyeWhy::Rotation
                    | registry::GoodbyeWhy::Drain => GoodbyeWhy::Other,
                },
                min_wait: span(goodbye.min_wait.as_ref()),
                spread: span(goodbye.spread.as_ref()),
            }),
            Kind::CheckRequest(request) => Self::Check(check::order(request).ok_or(MessageError)?),
        })
    }
}

fn mode(welcome: &registry::Welcome) -> Result<Mode, MessageError> {
    match welcome.mode() {
        registry::Mode::Resumed => Ok(Mode::Resumed),
        registry::Mode::Snapshot => Ok(Mode::Snapshot {
            is_fork: welcome.reason() == registry::ModeReason::Fork,
        }),
        registry::Mode::Withheld => Ok(Mode::Withheld {
            other_store: welcome.reason() == registry::ModeReason::OtherStore,
        }),
        registry::Mode::Unspecified => Err(MessageError),
    }
}

fn cursor(wire: Option<&types::Cursor>) -> Result<Cursor, MessageError> {
    wire.and_then(|wire| Cursor::try_from(wire).ok())
        .filter(|cursor| cursor.view == View::Router)
        .ok_or(MessageError)
}

fn resources(wire: Vec<registry::Resource>) -> Result<Vec<Resource>, MessageError> {
    let read = wire.into_iter().map(Resource::try_from).collect::<Result<_, _>>();
    read.map_err(|_without_place| MessageError)
}

fn names(tombstones: Vec<registry::Tombstone>) -> Result<Vec<Arc<str>>, MessageError> {
    let read = |tombstone: registry::Tombstone| (!tombstone.name.is_empty()).then(|| tombstone.name.into());
    tombstones
        .into_iter()
        .map(read)
        .collect::<Option<_>>()
        .ok_or(MessageError)
}

/// For display only, so what has not the form of one is left out.
fn traceparent(wire: &str) -> Option<Arc<str>> {
    let is_formed = wire.len() == TRACEPARENT_LENGTH && wire.bytes().all(|byte| byte.is_ascii_graphic());
    is_formed.then(|| wire.into())
}

/// A negative time is none.
fn span(wire: Option<&prost_types::Duration>) -> Duration {
    wire.and_then(|wire| duration::read(*wire)).unwrap_or_default()
}

/// The first message of a stream.
#[must_use]
pub fn hello(
    config: &SubscriptionConfig,
    can_check: bool,
    resume: Option<&Cursor>,
    want_snapshot: bool,
) -> registry::SubscribeRequest {
    upward(registry::subscribe_request::Kind::Hello(registry::Hello {
        router_id: config.router_id.clone(),
        instance: config.instance.to_string(),
        group: config.group.clone(),
        build: config.build.clone(),
        capabilities: can_check.then(|| capability::CHECKS.to_owned()).into_iter().collect(),
        resume: resume.map(Into::into),
        want_snapshot,
    }))
}

/// How far the router is, what a restart would go on from (`persisted`), and what has changed of the servers that it calls:
/// at most a thousand.
#[must_use]
pub fn report(
    standing: &Standing,
    applied: &Applied,
    persisted: Option<&Cursor>,
    endpoints: &[Change],
) -> registry::SubscribeRequest {
    upward(registry::subscribe_request::Kind::Report(registry::Report {
        applied: applied.cursor.as_ref().map(Into::into),
        received: standing.received.as_ref().map(Into::into),
        persisted: persisted.map(Into::into),
        held: applied.held.iter().take(HELD_MAX).map(held).collect(),
        held_total: i32::try_from(applied.held.len()).unwrap_or(i32::MAX),
        history_refusal: standing.refusal.as_ref().map(refusal),
        probe: standing.probe,
        apply_duration: prost_types::Duration::try_from(applied.duration).ok(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }))
}

/// What a check has found.
#[must_use]
pub fn check_result(answer: &Answer) -> registry::SubscribeRequest {
    upward(registry::subscribe_request::Kind::CheckResult(check::result(answer)))
}

fn endpoint(change: &Change) -> registry::EndpointReport {
    registry::EndpointReport {
        model: change.model.to_string(),
        uri: change.uri.as_str().to_owned(),
        state: state(change.health).into(),
        reason: reason(change.health),
    }
}

/// How a server does. `None`: nothing is known of it.
pub(super) const fn state(health: Option<Health>) -> types::EndpointState {
    use types::EndpointState as State;
    match health {
        None => State::Unspecified,
        Some(Health::Healthy) => State::Healthy,
        Some(Health::Recovering(_)) => State::Recovering,
        Some(Health::Ejected(_)) => State::Ejected,
        Some(Health::Misconfigured(_)) => State::Misconfigured,
        Some(Health::BackingOff(_)) => State::BackingOff,
    }
}

/// Why a server does not do well. Empty: it does.
pub(super) fn reason(health: Option<Health>) -> String {
    let reason = health.and_then(Health::reason);
    reason.map(|reason| reason.to_string()).unwrap_or_default()
}

const fn upward(kind: registry::subscribe_request::Kind) -> registry::SubscribeRequest {
    registry::SubscribeRequest { kind: Some(kind) }
}

fn held(held: &Held) -> registry::Held {
    use registry::HeldWhy as Why;
    let why = match &held.why {
        HeldWhy::Refused(_) => Why::Refused,
        HeldWhy::CapabilityMissing(_) => Why::CapabilityMissing,
        HeldWhy::CredentialPending => Why::CredentialPending,
        HeldWhy::Dependency(_) => Why::Dependency,
    };
    registry::Held {
        item: Some(held.into()),
        why: why.into(),
        used_revision: held.used_revision.get(),
    }
}

impl From<&Held> for types::Refusal {
    fn from(held: &Held) -> Self {
        let (field, reason) = match &held.why {
            HeldWhy::Refused(refusal) => (refusal.field.as_str(), refusal.reason.as_str()),
            HeldWhy::CapabilityMissing(_) => ("", "CAPABILITY_MISSING"),
            HeldWhy::CredentialPending => ("credential", "CREDENTIAL_PENDING"),
            HeldWhy::Dependency(_) => ("model", "DEPENDENCY"),
        };
        Self {
            resource: held.name.to_string(),
            field: field.to_owned(),
            reason: reason.to_owned(),
            message: held.why.to_string(),
            revision: held.revision.get(),
        }
    }
}

fn refusal(refusal: &HistoryRefusal) -> registry::HistoryRefusal {
    use registry::HistoryRefusalWhy as Why;
    let why = match refusal.why {
        RefusalWhy::RevisionRegressed => Why::RevisionRegressed,
        RefusalWhy::StoreChanged => Why::StoreChanged,
        RefusalWhy::StateMismatch => Why::StateMismatch,
    };
    registry::HistoryRefusal {
        why: why.into(),
        offered: Some((&refusal.offered).into()),
    }
}

#[cfg(test)]
mod tests {
    use registry::subscribe_response::Kind;

    use super::*;
    use crate::subscription::fixture::Store;

    fn read(kind: Kind) -> Result<Message, MessageError> {
        registry::SubscribeResponse { kind: Some(kind) }.try_into()
    }

    fn delta(traceparent: &str, deleted: &str) -> Result<Delta, MessageError> {
        let wire = registry::Delta {
            to: Some((&Store::new().cursor).into()),
            deletes: vec![registry::Tombstone {
                name: deleted.to_owned(),
                revision: 1,
            }],
            traceparent: traceparent.to_owned(),
            ..Default::default()
        };
        match read(Kind::Delta(wire))? {
            Message::Delta(delta) => Ok(delta),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_delete_must_name_what_is_gone() {
        let read = delta("", "gadgets/x").unwrap();
        assert_eq!(read.deletes, ["gadgets/x".into()]);
        assert!(delta("", "").is_err());
    }

    #[test]
    fn a_trace_context_that_is_none_is_left_out_and_spoils_nothing() {
        let formed = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(delta(formed, "a").unwrap().traceparent.as_deref(), Some(formed));
        for other in ["", "00", &formed.replace('-', "\n"), &formed.repeat(2)] {
            assert_eq!(delta(other, "a").unwrap().traceparent, None);
        }
    }

    #[test]
    fn a_goodbye_says_what_a_router_should_hear() {
        for (why, read_as) in [
            (registry::GoodbyeWhy::TooSlow, GoodbyeWhy::TooSlow),
            (registry::GoodbyeWhy::Moved, GoodbyeWhy::Moved),
            (registry::GoodbyeWhy::Drain, GoodbyeWhy::Other),
            (registry::GoodbyeWhy::Unspecified, GoodbyeWhy::Other),
        ] {
            let wire = registry::Goodbye {
                why: why.into(),
                ..Default::default()
            };
            let Ok(Message::Goodbye(goodbye)) = read(Kind::Goodbye(wire)) else {
                panic!("a goodbye is read")
            };
            assert_eq!(goodbye.why, read_as);
        }
    }

    #[test]
    fn the_smallest_number_of_seconds_is_no_time_and_no_end_of_the_router() {
        let smallest = prost_types::Duration {
            seconds: i64::MIN,
            nanos: 0,
        };
        let wire = registry::Goodbye {
            min_wait: Some(smallest),
            ..Default::default()
        };
        let Ok(Message::Goodbye(goodbye)) = read(Kind::Goodbye(wire)) else {
            panic!("a goodbye is read")
        };
        assert_eq!(goodbye.min_wait, Duration::ZERO);
    }
}
