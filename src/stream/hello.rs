//! The first message of a router: the router introduces itself.

use super::fields::{ReportFields, TEXT_MAX};
use crate::{
    capability,
    history::Cursor,
    names::{Group, InstanceId, RouterId},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

/// The maximum number of capabilities.
const CAPABILITIES_MAX: usize = 64;
/// The maximum length of a capability, in characters.
const CAPABILITY_MAX: usize = 63;

/// The first message of a router on the change stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The router's stable id.
    pub router: RouterId,
    /// The id of this run of the router's process.
    pub instance: InstanceId,
    /// The group that the router belongs to.
    pub group: Group,
    /// The version of the router's program, for people.
    pub build: Box<str>,
    /// Whether the router answers check requests.
    pub can_check: bool,
    /// The newest state that the router has received completely.
    pub resume: Resume,
    /// Whether the router asks for a snapshot although it has a cursor.
    pub want_snapshot: bool,
}

/// The position from which a follower wants to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The follower has no cursor.
    Nothing,
    /// The follower's cursor is malformed or has an unknown format.
    Unreadable,
    /// The follower wants to resume after this cursor.
    At(Cursor),
}

impl Resume {
    /// Reads the position from a message. A cursor that cannot be read is not an error: the result is
    /// [`Self::Unreadable`].
    #[must_use]
    pub fn read(wire: Option<&types::Cursor>) -> Self {
        wire.map_or(Self::Nothing, |wire| {
            Cursor::try_from(wire).map_or(Self::Unreadable, Self::At)
        })
    }

    /// Returns the cursor. `None`: there is no cursor, or it cannot be read.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::At(cursor) => Some(cursor),
            Self::Nothing | Self::Unreadable => None,
        }
    }
}

impl TryFrom<&registry::Hello> for Hello {
    type Error = Violations;

    fn try_from(wire: &registry::Hello) -> Result<Self, Violations> {
        let mut fields = ReportFields::default();
        let router = fields.take("hello.router_id", RouterId::parse(&wire.router_id));
        let instance = fields.take("hello.instance", InstanceId::parse(&wire.instance));
        let group = fields.take("hello.group", Group::parse(&wire.group));
        let build = fields.text("hello.build", &wire.build, TEXT_MAX);
        let capabilities = fields.capabilities(&wire.capabilities);
        match (router, instance, group, build, capabilities) {
            (Some(router), Some(instance), Some(group), Some(build), Some(capabilities)) => Ok(Self {
                router,
                instance,
                group,
                build,
                can_check: capabilities.contains(&capability::CHECKS.to_owned()),
                resume: Resume::read(wire.resume.as_ref()),
                want_snapshot: wire.want_snapshot,
            }),
            _ => Err(fields.violations),
        }
    }
}

impl From<&Hello> for registry::Hello {
    fn from(hello: &Hello) -> Self {
        let capabilities = hello.can_check.then(|| capability::CHECKS.to_owned());
        Self {
            router_id: hello.router.to_string(),
            instance: hello.instance.to_string(),
            group: hello.group.to_string(),
            build: hello.build.to_string(),
            capabilities: capabilities.into_iter().collect(),
            resume: match &hello.resume {
                Resume::Nothing => None,
                Resume::Unreadable => Some(types::Cursor::default()),
                Resume::At(cursor) => Some(cursor.into()),
            },
            want_snapshot: hello.want_snapshot,
        }
    }
}

impl ReportFields {
    fn capabilities<'a>(&mut self, wire: &'a [String]) -> Option<&'a [String]> {
        let is_word = |text: &String| text.len() <= CAPABILITY_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if wire.len() > CAPABILITIES_MAX || !wire.iter().all(is_word) {
            let description =
                format!("must be at most {CAPABILITIES_MAX} words of at most {CAPABILITY_MAX} characters");
            self.violations
                .push("hello.capabilities", FieldReason::ValueOutOfRange, description);
            return None;
        }
        Some(wire)
    }
}
