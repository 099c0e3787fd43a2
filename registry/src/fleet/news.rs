//! The events in a router's reports that an operator should know about. Pure.

use std::collections::BTreeSet;

use switchboard::{
    history::Cursor,
    names::Revision,
    stream::{HeldReport, HistoryRefusal, Report},
};

/// An event in a report that an operator should know about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News<'a> {
    /// The router refuses the history, or refuses it for a new reason.
    RefusesHistory(&'a HistoryRefusal),
    /// The router no longer refuses the history.
    AcceptsHistory,
    /// The router holds items that it did not hold before. Contains the first of them.
    Holds(&'a HeldReport),
    /// The router no longer holds any item.
    HoldsNothing,
    /// The router uses another state.
    Applied(&'a Cursor),
}

/// Returns the events in a report, compared with the report `before`.
pub(super) fn news_since<'a>(report: &'a Report, before: &Report) -> Vec<News<'a>> {
    let mut news = Vec::new();
    match (&before.history_refusal, &report.history_refusal) {
        (Some(_), None) => news.push(News::AcceptsHistory),
        (old, Some(new)) if old.map(|old| old.why) != Some(new.why) => news.push(News::RefusesHistory(new)),
        (None | Some(_), Some(_)) | (None, None) => {}
    }
    let known: BTreeSet<_> = lasting(before).map(identity).collect();
    if let Some(first) = lasting(report).find(|held| !known.contains(&identity(held))) {
        news.push(News::Holds(first));
    }
    if !known.is_empty() && lasting(report).next().is_none() {
        news.push(News::HoldsNothing);
    }
    if let Some(applied) = &report.applied
        && before.applied.as_ref() != Some(applied)
    {
        news.push(News::Applied(applied));
    }
    news
}

/// Returns the held items that will not become usable by themselves soon. Items that wait for a new API token are left
/// out: a router whose fetch fails logs that itself.
fn lasting(report: &Report) -> impl Iterator<Item = &HeldReport> {
    report.held.iter().filter(|held| held.kind.is_lasting())
}

const fn identity(held: &HeldReport) -> (&str, Revision) {
    (&held.resource, held.revision)
}

#[cfg(test)]
mod tests {
    use switchboard::{
        history::View,
        stream::{HeldKind, HistoryRefusalWhy},
    };

    use super::*;
    use crate::testing::History;

    fn held(resource: &str, revision: i64) -> HeldReport {
        HeldReport {
            resource: resource.into(),
            field: "".into(),
            reason: "VALUE_UNKNOWN".into(),
            message: Box::default(),
            revision: Revision::new(revision).unwrap(),
            used_revision: Revision::ZERO,
            kind: HeldKind::Refused,
        }
    }

    fn holding(items: &[HeldReport]) -> Report {
        Report {
            held: items.to_vec(),
            held_total: items.len(),
            ..Report::default()
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
        assert_eq!(news_since(&one, &none), [News::Holds(&a)]);
        assert!(news_since(&one, &one).is_empty());
        assert_eq!(news_since(&two, &one), [News::Holds(&b)]);
        let pending = holding(&[HeldReport {
            kind: HeldKind::CredentialPending,
            ..a
        }]);
        assert_eq!(news_since(&pending, &none), []);
        assert_eq!(news_since(&none, &pending), []);
        assert!(news_since(&one, &two).is_empty());
        assert_eq!(news_since(&none, &one), [News::HoldsNothing]);

        let newer = held("models/a", 9);
        assert_eq!(
            news_since(&holding(std::slice::from_ref(&newer)), &one),
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
            assert_eq!(news_since(after, before), [News::RefusesHistory(refusal)]);
        }
        assert!(news_since(&regressed, &regressed).is_empty());
        assert_eq!(news_since(&none, &regressed), [News::AcceptsHistory]);
    }

    #[test]
    fn another_applied_state_is_news() {
        let history = History::with_revisions(1);
        let applied = history.cursor_at(1, View::Router);
        let report = Report {
            applied: Some(applied),
            ..Report::default()
        };
        assert_eq!(news_since(&report, &Report::default()), [News::Applied(&applied)]);
        assert!(news_since(&report, &report).is_empty());
    }
}
