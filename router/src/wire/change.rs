//! The change stream, both ways: what the registry says, read, and what the router says, written.
//!
//! A message that cannot be read is an error as a whole; a resource that cannot is not, see [`super::resource`].

use std::time::Duration;

use switchboard::{
    history::{Cursor, View},
    names::{InstanceId, Revision},
    pb::{registry, types},
};

use crate::subscription::{
    apply::Applied,
    compile::{Held, HeldWhy},
    resource::Resource,
    session::{
        Bookmark, Delta, Goodbye, HEARTBEAT_DEFAULT, HistoryRefusal, Message, Mode, RefusalWhy, SnapshotBegin,
        SnapshotPart, Standing, Welcome,
    },
};

/// A report names no more held items.
pub(crate) const HELD_MAX: usize = 256;
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
                heartbeat: match duration(welcome.heartbeat.as_ref()) {
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
                part: u32::try_from(delta.part).map_err(|_negative| MessageError)?,
                more: delta.more,
            }),
            Kind::Bookmark(bookmark) => Self::Bookmark(Bookmark {
                at: bookmark.at.as_ref().map(|at| cursor(Some(at))).transpose()?,
                probe: bookmark.probe,
            }),
            Kind::Goodbye(goodbye) => Self::Goodbye(Goodbye {
                min_wait: duration(goodbye.min_wait.as_ref()),
                spread: duration(goodbye.spread.as_ref()),
            }),
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

/// A negative time is none.
fn duration(wire: Option<&prost_types::Duration>) -> Duration {
    wire.and_then(|wire| Duration::try_from(*wire).ok()).unwrap_or_default()
}

/// The first message of a stream.
#[must_use]
pub fn hello(
    router_id: &str,
    instance: InstanceId,
    build: &str,
    resume: Option<&Cursor>,
    want_snapshot: bool,
) -> registry::SubscribeRequest {
    upward(registry::subscribe_request::Kind::Hello(registry::Hello {
        router_id: router_id.to_owned(),
        instance: instance.to_string(),
        build: build.to_owned(),
        resume: resume.map(Into::into),
        want_snapshot,
    }))
}

/// How far the router is.
#[must_use]
pub fn report(standing: &Standing, applied: &Applied) -> registry::SubscribeRequest {
    upward(registry::subscribe_request::Kind::Report(registry::Report {
        applied: applied.cursor.as_ref().map(Into::into),
        received: standing.received.as_ref().map(Into::into),
        held: applied.held.iter().take(HELD_MAX).map(held).collect(),
        held_total: i32::try_from(applied.held.len()).unwrap_or(i32::MAX),
        history_refusal: standing.refusal.as_ref().map(refusal),
        probe: standing.probe,
        apply_duration: prost_types::Duration::try_from(applied.duration).ok(),
    }))
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
