//! Builds the router's hello and its reports.

use switchboard::{
    history::Cursor,
    stream::{EndpointReport, HeldKind, HeldReport, Hello, Report, Resume},
};

use super::{
    Applied, SubscriptionConfig,
    compile::{Held, HeldWhy},
    session::StreamStanding,
};
use crate::endpoints::{Health, HealthChange};

/// Builds the first message of a stream.
pub(super) fn hello(
    config: &SubscriptionConfig,
    can_check: bool,
    resume: Option<Cursor>,
    want_snapshot: bool,
) -> Hello {
    Hello {
        router: config.router_id.clone(),
        instance: config.instance,
        group: config.group.clone(),
        build: config.build.clone(),
        can_check,
        resume: resume.map_or(Resume::Nothing, Resume::At),
        want_snapshot,
    }
}

/// Builds a report: what the router has received and applied, what a restart would begin with (`persisted`), and which
/// servers have changed their health, at most [`Report::ENDPOINTS_MAX`].
pub(super) fn report(
    standing: &StreamStanding,
    applied: &Applied,
    persisted: Option<Cursor>,
    endpoints: &[HealthChange],
) -> Report {
    Report {
        applied: applied.cursor,
        received: standing.received,
        persisted,
        held: applied.held.iter().take(Report::HELD_MAX).map(Into::into).collect(),
        held_total: applied.held.len(),
        history_refusal: standing.refusal,
        probe: standing.probe,
        apply_duration: applied.duration,
        endpoints: endpoints.iter().map(Into::into).collect(),
    }
}

impl From<&Held> for HeldReport {
    fn from(held: &Held) -> Self {
        let (kind, field, reason) = match &held.why {
            HeldWhy::Refused(refusal) => (HeldKind::Refused, refusal.field.as_str(), refusal.reason.as_str()),
            HeldWhy::CapabilityMissing(_) => (HeldKind::CapabilityMissing, "", "CAPABILITY_MISSING"),
            HeldWhy::CredentialPending => (HeldKind::CredentialPending, "credential", "CREDENTIAL_PENDING"),
            HeldWhy::Dependency(_) => (HeldKind::Dependency, "model", "DEPENDENCY"),
        };
        Self {
            resource: held.name.to_string().into(),
            field: field.into(),
            reason: reason.into(),
            message: held.why.to_string().into(),
            revision: held.revision,
            used_revision: held.used_revision,
            kind,
        }
    }
}

impl From<&HealthChange> for EndpointReport {
    fn from(change: &HealthChange) -> Self {
        let reason = change.health.and_then(Health::reason);
        Self {
            model: change.model.clone(),
            uri: change.uri.as_str().into(),
            state: change.health.map(Health::state),
            reason: reason.map(|reason| reason.to_string()).unwrap_or_default().into(),
        }
    }
}
