//! What routers say, read: every field has its bound, so that a connected router costs no more than a known amount.

use std::time::Duration;

use switchboard::{
    history::Cursor,
    names::{InstanceId, Revision},
    pb::{registry, types},
    reason::FieldReason,
    violation::Violations,
};

use super::change::resume;
use crate::fleet::{
    report::{Held, HeldWhy, Hello, HistoryRefusal, HistoryRefusalWhy, Message, Report, RouterId},
    uplink::UplinkError,
};

/// The most characters of a build, of a resource name and of a field path.
const TEXT_MAX: usize = 255;

/// The most characters of a reason.
const REASON_MAX: usize = 63;

impl TryFrom<registry::SubscribeRequest> for Message {
    type Error = UplinkError;

    fn try_from(wire: registry::SubscribeRequest) -> Result<Self, UplinkError> {
        use registry::subscribe_request::Kind;
        match wire.kind {
            Some(Kind::Hello(hello)) => Hello::try_from(&hello).map(Self::Hello),
            Some(Kind::Report(report)) => Report::try_from(&report).map(Self::Report),
            None => return Err(UplinkError::UnknownMessage),
        }
        .map_err(UplinkError::Malformed)
    }
}

impl TryFrom<&registry::Hello> for Hello {
    type Error = Violations;

    fn try_from(wire: &registry::Hello) -> Result<Self, Violations> {
        let mut fields = Fields::default();
        let router = fields.take("hello.router_id", RouterId::parse(&wire.router_id));
        let instance = fields.take("hello.instance", InstanceId::parse(&wire.instance));
        let build = fields.text("hello.build", &wire.build, TEXT_MAX);
        match (router, instance, build) {
            (Some(router), Some(instance), Some(build)) => Ok(Self {
                router,
                instance,
                build,
                resume: resume(wire.resume.as_ref()),
                want_snapshot: wire.want_snapshot,
            }),
            _ => Err(fields.violations),
        }
    }
}

impl TryFrom<&registry::Report> for Report {
    type Error = Violations;

    fn try_from(wire: &registry::Report) -> Result<Self, Violations> {
        let mut fields = Fields::default();
        let applied = fields.cursor("report.applied", wire.applied.as_ref());
        let received = fields.cursor("report.received", wire.received.as_ref());
        let held = fields.held(&wire.held);
        let held_total = fields.held_total(wire.held_total, wire.held.len());
        let history_refusal = wire.history_refusal.as_ref().and_then(|wire| fields.refusal(wire));
        let apply_duration = fields.duration("report.apply_duration", wire.apply_duration);
        fields.violations.or(Self {
            applied,
            received,
            held,
            held_total,
            history_refusal,
            apply_duration,
        })
    }
}

/// Reads fields and collects what is wrong with them.
#[derive(Default)]
struct Fields {
    violations: Violations,
}

impl Fields {
    fn take<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .map_err(|error| {
                self.violations
                    .push(field, FieldReason::ValueMalformed, error.to_string());
            })
            .ok()
    }

    fn text(&mut self, field: &str, text: &str, length_max: usize) -> Option<Box<str>> {
        if text.chars().count() > length_max {
            let description = format!("must have at most {length_max} characters");
            self.violations.push(field, FieldReason::ValueOutOfRange, description);
            return None;
        }
        // These texts go to the log, where a control character could forge a line.
        if text.chars().any(char::is_control) {
            self.violations
                .push(field, FieldReason::ValueMalformed, "must have no control characters");
            return None;
        }
        Some(text.into())
    }

    fn cursor(&mut self, field: &str, wire: Option<&types::Cursor>) -> Option<Cursor> {
        self.take(field, Cursor::try_from(wire?))
    }

    fn revision(&mut self, field: &str, number: i64) -> Option<Revision> {
        let revision = Revision::new(number);
        if revision.is_none() {
            self.violations
                .push(field, FieldReason::ValueOutOfRange, "must not be negative");
        }
        revision
    }

    fn duration(&mut self, field: &str, wire: Option<prost_types::Duration>) -> Duration {
        let duration = wire.map_or(Ok(Duration::ZERO), Duration::try_from);
        duration.unwrap_or_else(|_negative| {
            self.violations
                .push(field, FieldReason::ValueOutOfRange, "must not be negative");
            Duration::ZERO
        })
    }

    fn held_total(&mut self, total: i32, listed: usize) -> usize {
        match usize::try_from(total) {
            Ok(total) if total >= listed => total,
            Ok(_) | Err(_) => {
                self.violations.push(
                    "report.held_total",
                    FieldReason::ValueOutOfRange,
                    format!("must be at least the {listed} that `held` lists"),
                );
                listed
            }
        }
    }

    fn held(&mut self, wire: &[registry::Held]) -> Vec<Held> {
        if wire.len() > Report::HELD_MAX {
            self.violations.push(
                "report.held",
                FieldReason::ValueOutOfRange,
                format!("must list at most {} items", Report::HELD_MAX),
            );
            return Vec::new();
        }
        let one = |(index, wire)| self.held_item(&format!("report.held[{index}]"), wire);
        wire.iter().enumerate().filter_map(one).collect()
    }

    fn held_item(&mut self, path: &str, wire: &registry::Held) -> Option<Held> {
        let Some(item) = &wire.item else {
            self.violations
                .push(format!("{path}.item"), FieldReason::FieldRequired, "is required");
            return None;
        };
        let why = match wire.why() {
            registry::HeldWhy::Refused => Some(HeldWhy::Refused),
            registry::HeldWhy::CapabilityMissing => Some(HeldWhy::CapabilityMissing),
            registry::HeldWhy::CredentialPending => Some(HeldWhy::CredentialPending),
            registry::HeldWhy::Dependency => Some(HeldWhy::Dependency),
            registry::HeldWhy::Unspecified => None,
        };
        if why.is_none() {
            self.unknown(&format!("{path}.why"));
        }
        let resource = self.text(&format!("{path}.item.resource"), &item.resource, TEXT_MAX);
        let field = self.text(&format!("{path}.item.field"), &item.field, TEXT_MAX);
        let reason = self.text(&format!("{path}.item.reason"), &item.reason, REASON_MAX);
        let revision = self.revision(&format!("{path}.item.revision"), item.revision);
        let used_revision = self.revision(&format!("{path}.used_revision"), wire.used_revision);
        Some(Held {
            resource: resource?,
            field: field?,
            reason: reason?,
            revision: revision?,
            used_revision: used_revision?,
            why: why?,
        })
    }

    fn refusal(&mut self, wire: &registry::HistoryRefusal) -> Option<HistoryRefusal> {
        let why = match wire.why() {
            registry::HistoryRefusalWhy::RevisionRegressed => Some(HistoryRefusalWhy::RevisionRegressed),
            registry::HistoryRefusalWhy::StoreChanged => Some(HistoryRefusalWhy::StoreChanged),
            registry::HistoryRefusalWhy::StateMismatch => Some(HistoryRefusalWhy::StateMismatch),
            registry::HistoryRefusalWhy::Unspecified => None,
        };
        if why.is_none() {
            self.unknown("report.history_refusal.why");
        }
        let offered = self.cursor("report.history_refusal.offered", wire.offered.as_ref());
        Some(HistoryRefusal { why: why?, offered })
    }

    fn unknown(&mut self, field: &str) {
        self.violations
            .push(field, FieldReason::ValueUnknown, "must be one of the listed values");
    }
}

#[cfg(test)]
mod tests {
    use switchboard::history::View;

    use super::*;
    use crate::{feed::testing::History, feed::welcome::Resume};

    fn hello() -> registry::Hello {
        registry::Hello {
            router_id: "router-1".to_owned(),
            instance: InstanceId::random().to_string(),
            build: "1.2.3".to_owned(),
            resume: None,
            want_snapshot: true,
        }
    }

    fn held() -> registry::Held {
        registry::Held {
            item: Some(types::Refusal {
                resource: "models/a".to_owned(),
                field: "model.family".to_owned(),
                reason: "VALUE_UNKNOWN".to_owned(),
                message: "x".repeat(10_000),
                revision: 7,
            }),
            why: registry::HeldWhy::Dependency.into(),
            used_revision: 5,
        }
    }

    fn report() -> registry::Report {
        let at = History::with_revisions(3).cursor_at(3, View::Router);
        registry::Report {
            applied: Some((&at).into()),
            received: Some((&at).into()),
            held: vec![held()],
            held_total: 1,
            history_refusal: Some(registry::HistoryRefusal {
                why: registry::HistoryRefusalWhy::StoreChanged.into(),
                offered: Some((&at).into()),
            }),
            probe: 3,
            apply_duration: prost_types::Duration::try_from(Duration::from_millis(20)).ok(),
        }
    }

    fn bad_fields<T: std::fmt::Debug>(parsed: Result<T, Violations>) -> Vec<(String, FieldReason)> {
        let violations = parsed.unwrap_err();
        let bad = violations.as_slice().iter();
        bad.map(|bad| (bad.field.clone(), bad.reason)).collect()
    }

    #[test]
    fn a_hello_is_read() {
        let wire = hello();
        let read = Hello::try_from(&wire).unwrap();
        assert_eq!(read.router.to_string(), wire.router_id);
        assert_eq!(read.instance.to_string(), wire.instance);
        assert_eq!((&*read.build, read.want_snapshot), ("1.2.3", true));
        assert_eq!(read.resume, Resume::Nothing);
    }

    #[test]
    fn a_hello_with_a_cursor_that_cannot_be_read_is_no_mistake() {
        let wire = registry::Hello {
            resume: Some(types::Cursor::default()),
            ..hello()
        };
        assert_eq!(Hello::try_from(&wire).unwrap().resume, Resume::Unreadable);
    }

    #[test]
    fn every_bad_field_of_a_hello_is_named() {
        let wire = registry::Hello {
            router_id: "a b".to_owned(),
            instance: "X".to_owned(),
            build: "b".repeat(256),
            ..hello()
        };
        let expected = [
            ("hello.router_id".to_owned(), FieldReason::ValueMalformed),
            ("hello.instance".to_owned(), FieldReason::ValueMalformed),
            ("hello.build".to_owned(), FieldReason::ValueOutOfRange),
        ];
        assert_eq!(bad_fields(Hello::try_from(&wire)), expected);
    }

    #[test]
    fn a_report_is_read() {
        let wire = report();
        let read = Report::try_from(&wire).unwrap();
        assert_eq!(read.applied.unwrap().revision.get(), 3);
        assert_eq!(read.received, read.applied);
        assert_eq!(read.held_total, 1);
        assert_eq!(read.apply_duration, Duration::from_millis(20));
        let [held] = &read.held[..] else { panic!("{read:?}") };
        assert_eq!(
            (&*held.resource, &*held.field, &*held.reason),
            ("models/a", "model.family", "VALUE_UNKNOWN")
        );
        assert_eq!((held.revision.get(), held.used_revision.get()), (7, 5));
        assert_eq!(held.why, HeldWhy::Dependency);
        let refusal = read.history_refusal.unwrap();
        assert_eq!(
            (refusal.why, refusal.offered),
            (HistoryRefusalWhy::StoreChanged, read.applied)
        );
        assert_eq!(Report::try_from(&registry::Report::default()), Ok(Report::default()));
    }

    #[test]
    fn every_bad_field_of_a_report_is_named() {
        let spoilt = |spoil: fn(&mut registry::Report)| {
            let mut wire = report();
            spoil(&mut wire);
            bad_fields(Report::try_from(&wire))
        };
        fn item(report: &mut registry::Report) -> &mut types::Refusal {
            report.held[0].item.as_mut().unwrap()
        }
        type Row = (fn(&mut registry::Report), &'static str, FieldReason);
        let rows: [Row; 14] = [
            (
                |r| r.applied = Some(types::Cursor::default()),
                "report.applied",
                FieldReason::ValueMalformed,
            ),
            (
                |r| r.received = Some(types::Cursor::default()),
                "report.received",
                FieldReason::ValueMalformed,
            ),
            (|r| r.held_total = 0, "report.held_total", FieldReason::ValueOutOfRange),
            (|r| r.held_total = -1, "report.held_total", FieldReason::ValueOutOfRange),
            (
                |r| r.held[0].item = None,
                "report.held[0].item",
                FieldReason::FieldRequired,
            ),
            (|r| r.held[0].why = 0, "report.held[0].why", FieldReason::ValueUnknown),
            (
                |r| r.held[0].used_revision = -1,
                "report.held[0].used_revision",
                FieldReason::ValueOutOfRange,
            ),
            (
                |r| item(r).revision = -1,
                "report.held[0].item.revision",
                FieldReason::ValueOutOfRange,
            ),
            (
                |r| item(r).resource = "m".repeat(256),
                "report.held[0].item.resource",
                FieldReason::ValueOutOfRange,
            ),
            (
                |r| item(r).field = "a\nb".to_owned(),
                "report.held[0].item.field",
                FieldReason::ValueMalformed,
            ),
            (
                |r| item(r).reason = "R".repeat(64),
                "report.held[0].item.reason",
                FieldReason::ValueOutOfRange,
            ),
            (
                |r| r.history_refusal = Some(registry::HistoryRefusal::default()),
                "report.history_refusal.why",
                FieldReason::ValueUnknown,
            ),
            (
                |r| r.history_refusal.as_mut().unwrap().offered = Some(types::Cursor::default()),
                "report.history_refusal.offered",
                FieldReason::ValueMalformed,
            ),
            (
                |r| r.apply_duration = Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                "report.apply_duration",
                FieldReason::ValueOutOfRange,
            ),
        ];
        for (spoil, field, reason) in rows {
            assert_eq!(spoilt(spoil), [(field.to_owned(), reason)]);
        }
    }

    #[test]
    fn a_report_lists_at_most_256_held_items() {
        let listing = |count: usize| registry::Report {
            held: vec![held(); count],
            held_total: 300,
            ..report()
        };
        assert_eq!(Report::try_from(&listing(256)).unwrap().held.len(), 256);
        let expected = [("report.held".to_owned(), FieldReason::ValueOutOfRange)];
        assert_eq!(bad_fields(Report::try_from(&listing(257))), expected);
    }

    #[test]
    fn a_message_of_no_known_kind_is_refused() {
        let message = Message::try_from(registry::SubscribeRequest { kind: None });
        assert_eq!(message, Err(UplinkError::UnknownMessage));
    }
}
