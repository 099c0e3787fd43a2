//! A router introduces itself.

use super::fields::{ReportFields, TEXT_MAX};
use crate::{
    capability,
    history::Cursor,
    names::{Group, InstanceId, RouterId},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

/// The most capabilities, and the most characters of one.
const CAPABILITIES_MAX: usize = 64;
const CAPABILITY_MAX: usize = 63;

/// The first message of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its stable id.
    pub router: RouterId,
    /// This start of its process.
    pub instance: InstanceId,
    /// What it belongs to.
    pub group: Group,
    /// The version of its program, for people.
    pub build: Box<str>,
    /// Whether it answers check requests.
    pub can_check: bool,
    /// The state that it has received completely.
    pub resume: Resume,
    /// Whether it wants a snapshot although it has a cursor.
    pub want_snapshot: bool,
}

/// What a follower says about where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It has no cursor.
    Nothing,
    /// Its cursor is malformed or of an unknown format.
    Unreadable,
    /// At this cursor.
    At(Cursor),
}

impl Resume {
    /// Reads where a follower wants to go on. That a cursor cannot be read is an answer too, not an error.
    #[must_use]
    pub fn read(wire: Option<&types::Cursor>) -> Self {
        wire.map_or(Self::Nothing, |wire| {
            Cursor::try_from(wire).map_or(Self::Unreadable, Self::At)
        })
    }

    /// The cursor, if there is one that can be read.
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
