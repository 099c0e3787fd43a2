//! What routers say about themselves, once it is read: pure.

use std::{collections::BTreeSet, fmt, time::Duration};

use switchboard::{
    history::Cursor,
    names::{InstanceId, ModelName, Revision},
};

use super::check::Findings;
use crate::feed::welcome::Resume;

/// One message from a router.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "all but the first are reports")]
pub enum Message {
    /// First, once.
    Hello(Hello),
    /// How far the router is.
    Report(Report),
    /// What a check has found.
    Findings(Findings),
}

/// The text is no router id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {} visible ASCII characters", RouterId::LENGTH_MAX)]
pub struct RouterIdError;

/// A router's stable id, the same over restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Box<str>);

impl RouterId {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 255;

    /// Parses an id: 1 to [`Self::LENGTH_MAX`] visible ASCII characters.
    ///
    /// # Errors
    ///
    /// [`RouterIdError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, RouterIdError> {
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(RouterIdError)
        }
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must have at most {} characters, none of them a control character",
    Group::LENGTH_MAX
)]
pub struct GroupError;

/// What a router belongs to, for example a cluster or a zone. Empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group(Box<str>);

impl Group {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a group.
    ///
    /// # Errors
    ///
    /// [`GroupError`] for a text that is too long or has control characters.
    pub fn parse(text: &str) -> Result<Self, GroupError> {
        if text.chars().count() <= Self::LENGTH_MAX && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(GroupError)
        }
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A router introduces itself.
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
    /// What it has received whole.
    pub resume: Resume,
    /// Whether it wants a snapshot although it has a cursor.
    pub want_snapshot: bool,
}

/// How far a router is. Each report replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The state from which the catalog in use was compiled, less what is held.
    pub applied: Option<Cursor>,
    /// The state received whole.
    pub received: Option<Cursor>,
    /// The state that it would begin with after a restart. `None`: it keeps none.
    pub persisted: Option<Cursor>,
    /// Items whose newest state cannot be used, as many as are listed.
    pub held: Vec<Held>,
    /// How many items are held in all: no fewer than are listed.
    pub held_total: usize,
    /// The router refuses to follow this history.
    pub history_refusal: Option<HistoryRefusal>,
    /// How long the catalog in use took.
    pub apply_duration: Duration,
    /// Servers of models whose state has changed. Unlike the rest this adds to what earlier reports said.
    pub endpoints: Vec<EndpointReport>,
}

impl Report {
    /// The most held items that are listed.
    pub const HELD_MAX: usize = 256;
    /// The most endpoints that are listed.
    pub const ENDPOINTS_MAX: usize = 1_000;
}

/// How one server of a model does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// The model.
    pub model: ModelName,
    /// The endpoint, as the model gives it.
    pub uri: Box<str>,
    /// How it does. `None`: the router no longer knows it.
    pub state: Option<EndpointState>,
    /// Why, for programs. Empty where it does well.
    pub reason: Box<str>,
}

/// How a server does, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// It answers.
    Healthy,
    /// It asked for less load.
    BackingOff,
    /// It failed; nothing has answered since.
    Recovering,
    /// It gets no calls for now.
    Ejected,
    /// Somebody has to change something.
    Misconfigured,
}

/// An item whose newest state a router cannot use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Name of the resource.
    pub resource: Box<str>,
    /// The field at fault; empty: the whole.
    pub field: Box<str>,
    /// The reason, for programs.
    pub reason: Box<str>,
    /// The revision that cannot be used.
    pub revision: Revision,
    /// The revision in use instead; 0: none.
    pub used_revision: Revision,
    /// Why it is held.
    pub why: HeldWhy,
}

/// Why an item is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldWhy {
    /// It is unreadable or invalid for the router.
    Refused,
    /// It needs a capability that the router lacks.
    CapabilityMissing,
    /// Its credential has not been fetched yet.
    CredentialPending,
    /// It names an item that has no usable state.
    Dependency,
}

/// A router's judgement that a history must not be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRefusal {
    /// What is wrong with it.
    pub why: HistoryRefusalWhy,
    /// What the registry offered, if the router names it.
    pub offered: Option<Cursor>,
}

/// Why a router refuses a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRefusalWhy {
    /// It is older than what the router has.
    RevisionRegressed,
    /// It is of another store.
    StoreChanged,
    /// It did not have the digest that it claimed.
    StateMismatch,
}

/// What a report tells that an operator should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News<'a> {
    /// The router refuses the history, or now for another cause.
    RefusesHistory(&'a HistoryRefusal),
    /// It no longer does.
    AcceptsHistory,
    /// Items are held that were not before; the first of them.
    Holds(&'a Held),
    /// Nothing is held any longer.
    HoldsNothing,
    /// Another state is in use.
    Applied(&'a Cursor),
}

impl Report {
    /// What is new since the report `before`.
    pub(super) fn news_since<'a>(&'a self, before: &Self) -> Vec<News<'a>> {
        let mut news = Vec::new();
        match (&before.history_refusal, &self.history_refusal) {
            (Some(_), None) => news.push(News::AcceptsHistory),
            (old, Some(new)) if old.map(|old| old.why) != Some(new.why) => news.push(News::RefusesHistory(new)),
            (None | Some(_), Some(_)) | (None, None) => {}
        }
        let known: BTreeSet<_> = before.lasting().map(Held::identity).collect();
        if let Some(first) = self.lasting().find(|held| !known.contains(&held.identity())) {
            news.push(News::Holds(first));
        }
        if !known.is_empty() && self.lasting().next().is_none() {
            news.push(News::HoldsNothing);
        }
        if let Some(applied) = &self.applied
            && before.applied.as_ref() != Some(applied)
        {
            news.push(News::Applied(applied));
        }
        news
    }

    /// The items that will not heal by themselves in a moment.
    fn lasting(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| match held.why {
            HeldWhy::Refused | HeldWhy::CapabilityMissing => true,
            // A step on the way of every new API token; a router whose fetch fails says so itself.
            HeldWhy::CredentialPending | HeldWhy::Dependency => false,
        })
    }
}

impl Held {
    const fn identity(&self) -> (&str, Revision) {
        (&self.resource, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use switchboard::history::View;

    use super::*;
    use crate::feed::testing::History;

    fn held(resource: &str, revision: i64) -> Held {
        Held {
            resource: resource.into(),
            field: "".into(),
            reason: "VALUE_UNKNOWN".into(),
            revision: Revision::new(revision).unwrap(),
            used_revision: Revision::ZERO,
            why: HeldWhy::Refused,
        }
    }

    fn holding(items: &[Held]) -> Report {
        Report {
            held: items.to_vec(),
            held_total: items.len(),
            ..Report::default()
        }
    }

    #[test]
    fn a_router_id_is_visible_ascii() {
        assert!(RouterId::parse(&"r".repeat(255)).is_ok());
        for bad in ["", "a b", "é", &"r".repeat(256)] {
            assert_eq!(RouterId::parse(bad), Err(RouterIdError), "{bad}");
        }
    }

    #[test]
    fn held_items_are_news_when_they_appear_and_when_all_are_gone() {
        let (a, b) = (held("models/a", 2), held("models/b", 3));
        let (none, one, two) = (
            Report::default(),
            holding(std::slice::from_ref(&a)),
            holding(&[a.clone(), b.clone()]),
        );
        assert_eq!(one.news_since(&none), [News::Holds(&a)]);
        assert!(one.news_since(&one).is_empty());
        assert_eq!(two.news_since(&one), [News::Holds(&b)]);
        let pending = holding(&[Held {
            why: HeldWhy::CredentialPending,
            ..a
        }]);
        assert_eq!(pending.news_since(&none), []);
        assert_eq!(none.news_since(&pending), []);
        assert!(one.news_since(&two).is_empty());
        assert_eq!(none.news_since(&one), [News::HoldsNothing]);

        let newer = held("models/a", 9);
        assert_eq!(
            holding(std::slice::from_ref(&newer)).news_since(&one),
            [News::Holds(&newer)]
        );
    }

    #[test]
    fn a_refusal_is_news_once_for_each_cause() {
        let refusing = |why| Report {
            history_refusal: Some(HistoryRefusal { why, offered: None }),
            ..Report::default()
        };
        let none = Report::default();
        let regressed = refusing(HistoryRefusalWhy::RevisionRegressed);
        let other_store = refusing(HistoryRefusalWhy::StoreChanged);
        for (before, after) in [(&none, &regressed), (&regressed, &other_store)] {
            let refusal = after.history_refusal.as_ref().unwrap();
            assert_eq!(after.news_since(before), [News::RefusesHistory(refusal)]);
        }
        assert!(regressed.news_since(&regressed).is_empty());
        assert_eq!(none.news_since(&regressed), [News::AcceptsHistory]);
    }

    #[test]
    fn another_applied_state_is_news() {
        let history = History::with_revisions(1);
        let applied = history.cursor_at(1, View::Router);
        let report = Report {
            applied: Some(applied),
            ..Report::default()
        };
        assert_eq!(report.news_since(&Report::default()), [News::Applied(&applied)]);
        assert!(report.news_since(&report).is_empty());
    }
}
