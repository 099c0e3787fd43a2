//! Converts the errors of waits for a revision into failures.

use std::time::Duration;

use switchboard::{
    failure::Failure,
    reason::{Reason, key},
};

use crate::fleet::wait::WaitError;

/// Maximum size of a list in bytes: a status is sent in headers, and some clients accept only 8 KiB of them.
const LISTED_BYTES_MAX: usize = 1_024;

/// When to retry if it is unknown how long the condition will last.
const RETRY: Duration = Duration::from_secs(1);

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let message = error.to_string();
        match error {
            WaitError::TooMany { .. } => Self::new(Reason::WatchLimitReached, message).retry_after(RETRY),
            WaitError::OtherIncarnation { present } => {
                Self::new(Reason::StoreIncarnationChanged, message).with(key::INCARNATION, present.id)
            }
            WaitError::InFuture { oldest, newest, .. } => Self::new(Reason::RevisionInFuture, message)
                .with(key::OLDEST, oldest)
                .with(key::NEWEST, newest),
            WaitError::TooFew { connected, .. } => Self::new(Reason::NoRouterConnected, message)
                .with(key::ROUTER_COUNT, connected)
                .retry_after(RETRY),
            WaitError::NotApplied {
                wanted, routers, count, ..
            } => {
                // Ids contain no spaces.
                let named = listed(routers.iter().map(ToString::to_string)).join(" ");
                Self::new(Reason::RevisionNotApplied, format!("{message}: {named}"))
                    .with(key::ROUTERS, named)
                    .with(key::ROUTER_COUNT, count)
                    .with(key::REVISION, wanted)
                    .retry_after(RETRY)
            }
            WaitError::Refused(refused) => {
                let one = |refused: &crate::fleet::wait::Refused| {
                    let (router, held) = (&refused.router, &refused.held);
                    let what = if held.field.is_empty() {
                        held.reason.to_string()
                    } else {
                        format!("{}: {}", held.field, held.reason)
                    };
                    (format!("{router} {}", held.resource), what)
                };
                let all: Vec<(String, String)> = refused.iter().map(one).collect();
                let first = all.first().map(|(subject, what)| format!("{subject}: {what}"));
                let failure = Self::new(
                    Reason::RevisionRefused,
                    format!("{message}: {}", first.unwrap_or_default()),
                );
                let fitting = listed(all.iter().map(|(subject, what)| format!("{subject}{what}"))).len();
                all.into_iter().take(fitting).fold(failure, |failure, (subject, what)| {
                    failure.with_precondition(subject, what)
                })
            }
            WaitError::Draining => Self::new(Reason::ServerDraining, message).retry_after(RETRY),
        }
    }
}

/// Returns as many of the texts as fit, but at least one.
fn listed(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut bytes = 0;
    texts
        .take_while(|text| {
            let is_first = bytes == 0;
            bytes += text.len() + 1;
            is_first || bytes <= LISTED_BYTES_MAX
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use switchboard::{
        history::Incarnation,
        names::{IncarnationId, Revision, RouterId},
        stream::{HeldKind, HeldReport},
    };
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::fleet::wait::Refused;

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn router(id: &str) -> RouterId {
        RouterId::parse(id).unwrap()
    }

    fn refused(id: &str) -> Refused {
        Refused {
            router: router(id),
            held: HeldReport {
                resource: "models/a".into(),
                field: "family".into(),
                reason: "FAMILY_UNKNOWN".into(),
                revision: revision(7),
                used_revision: revision(3),
                message: Box::default(),
                kind: HeldKind::Refused,
            },
        }
    }

    #[test]
    fn each_end_of_a_wait_has_its_code_and_reason() {
        let present = Incarnation {
            number: 2,
            id: IncarnationId::random(),
        };
        type Row = (WaitError, Code, &'static str, Vec<(&'static str, String)>);
        let rows: [Row; 7] = [
            (
                WaitError::TooMany { max: 64 },
                Code::ResourceExhausted,
                "WATCH_LIMIT_REACHED",
                vec![],
            ),
            (
                WaitError::OtherIncarnation { present },
                Code::FailedPrecondition,
                "STORE_INCARNATION_CHANGED",
                vec![("incarnation", present.id.to_string())],
            ),
            (
                WaitError::InFuture {
                    wanted: revision(9),
                    oldest: revision(1),
                    newest: revision(8),
                },
                Code::OutOfRange,
                "REVISION_IN_FUTURE",
                vec![("oldest", "1".to_owned()), ("newest", "8".to_owned())],
            ),
            (
                WaitError::TooFew { min: 2, connected: 1 },
                Code::FailedPrecondition,
                "NO_ROUTER_CONNECTED",
                vec![("router_count", "1".to_owned())],
            ),
            (
                WaitError::NotApplied {
                    wanted: revision(8),
                    routers: vec![router("a"), router("b")],
                    count: 2,
                    of: 3,
                },
                Code::DeadlineExceeded,
                "REVISION_NOT_APPLIED",
                vec![
                    ("routers", "a b".to_owned()),
                    ("router_count", "2".to_owned()),
                    ("revision", "8".to_owned()),
                ],
            ),
            (
                WaitError::Refused(vec![refused("a")]),
                Code::FailedPrecondition,
                "REVISION_REFUSED",
                vec![],
            ),
            (WaitError::Draining, Code::Unavailable, "SERVER_DRAINING", vec![]),
        ];
        for (error, code, reason, metadata) in rows {
            let status = Status::from(Failure::from(error));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (code, reason));
            for (key, value) in metadata {
                assert_eq!(info.metadata.get(key), Some(&value), "{reason}");
            }
        }
    }

    #[test]
    fn a_refusal_names_router_resource_field_and_reason() {
        let status = Status::from(Failure::from(WaitError::Refused(vec![refused("a"), refused("b")])));
        let details = status.get_error_details();
        let violations = &details.precondition_failure().unwrap().violations;
        assert_eq!(violations.len(), 2);
        assert_eq!(
            (
                &*violations[0].r#type,
                &*violations[0].subject,
                &*violations[0].description
            ),
            ("REVISION_REFUSED", "a models/a", "family: FAMILY_UNKNOWN")
        );
        assert!(
            status.message().ends_with("a models/a: family: FAMILY_UNKNOWN"),
            "{}",
            status.message()
        );
    }

    #[test]
    fn a_status_with_long_ids_fits_into_a_header() {
        let long = |number: usize| router(&format!("{number:x>255}"));
        let refused = (0..20).map(|number| Refused {
            router: long(number),
            ..refused("a")
        });
        let errors = [
            WaitError::NotApplied {
                wanted: revision(8),
                routers: (0..20).map(long).collect(),
                count: 900,
                of: 1_000,
            },
            WaitError::Refused(refused.collect()),
        ];
        for error in errors {
            let status = Status::from(Failure::from(error));
            let bytes = status.details().len() + status.message().len();
            assert!(bytes < 4 * 1024, "{bytes}");
        }
    }
}
