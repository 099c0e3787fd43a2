//! Connected routers, waits for a revision, and the health of model servers in the contract.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use switchboard::{
    duration,
    history::Cursor,
    names::{Group, IncarnationId, InstanceId, Revision, RouterId},
    pb::{registry, types},
    reason::FieldReason,
    stream::{Report, WelcomeMode},
    violation::Violations,
};
use tokio::time::Instant;

use super::{count, page::Page, timestamp};
use crate::{
    domain::items::Items,
    fleet::{
        ROUTERS_MAX, RouterInstance, Seen,
        health::{EndpointHealth, RouterHealth},
        wait::{AwaitedRevision, InForce},
    },
};

/// Maximum size of a page of routers in bytes, so that a page with many held items can still be received.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Maximum duration of a wait.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Duration of a wait if neither the request nor the call has a time limit.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// Returns the router after which a page begins. `None`: it is the first page.
///
/// # Errors
///
/// A violation if the key in the token is not a router.
pub fn after(page: &Page) -> Result<Option<RouterInstance>, Violations> {
    let read = |text: &str| {
        let (router, instance) = text.split_once(' ')?;
        Some((RouterId::parse(router).ok()?, InstanceId::parse(instance).ok()?))
    };
    let key = page.after().map(|text| read(text).ok_or_else(Page::unknown_token));
    key.transpose()
}

/// Returns a page of routers, and the token of the next page. `items` must not be older than `seen`.
#[must_use]
pub fn routers(page: &Page, seen: Vec<Seen>, items: &Items) -> (Vec<registry::Router>, String) {
    let now = SystemTime::now();
    let mut bytes = 0;
    let rows = seen.into_iter().map(|seen| {
        let (router, instance) = &seen.key;
        (format!("{router} {instance}"), router_row(&seen, items, now))
    });
    let fits = |(_, row): &(String, registry::Router)| {
        bytes += row.encoded_len();
        bytes <= PAGE_BYTES_MAX
    };
    let (rows, token) = page.cut_while(rows, fits, |(key, _)| key);
    (rows.into_iter().map(|(_, row)| row).collect(), token)
}

fn router_row(seen: &Seen, items: &Items, now: SystemTime) -> registry::Router {
    let Seen {
        key: (router, instance),
        group,
        build,
        mode: began,
        connected,
        reported,
        report,
        is_duplicate,
        can_check: _,
    } = seen;
    let (mode, mode_reason) = began.to_wire();
    let ago = |age: Duration| now.checked_sub(age).map(timestamp);
    let Report {
        applied,
        received,
        persisted,
        held,
        held_total,
        history_refusal,
        probe: _,
        apply_duration,
        endpoints: _,
    } = &**report;
    registry::Router {
        router_id: router.to_string(),
        instance: instance.to_string(),
        group: group.to_string(),
        build: build.to_string(),
        connect_time: ago(*connected),
        report_time: reported.and_then(ago),
        received: received.as_ref().map(Into::into),
        applied: applied.as_ref().map(Into::into),
        persisted: persisted.as_ref().map(Into::into),
        lag: applied.as_ref().and_then(|applied| lag(applied, *began, items)),
        held: held.iter().map(Into::into).collect(),
        held_total: count(*held_total),
        mode: mode.into(),
        mode_reason: mode_reason.into(),
        history_refusal: history_refusal.as_ref().map(Into::into),
        apply_duration: prost_types::Duration::try_from(*apply_duration).ok(),
        duplicate: *is_duplicate,
    }
}

/// Returns by how many revisions a router is behind the newest. `None`: the router has applied no revision of this
/// history.
fn lag(applied: &Cursor, began: WelcomeMode, items: &Items) -> Option<i64> {
    let is_ours = applied.incarnation == items.incarnation() && !matches!(began, WelcomeMode::Withheld(_));
    is_ours.then(|| items.revision().get().saturating_sub(applied.revision.get()).max(0))
}

/// Reads a request to wait. Returns the request and its time limit. `allowed` is the time that the call may take.
///
/// # Errors
///
/// All violations in the fields.
pub fn wait(
    request: &registry::WaitForRevisionRequest,
    allowed: Option<Duration>,
) -> Result<(AwaitedRevision, Duration), Violations> {
    let mut violations = Violations::new();
    let revision = Revision::new(request.revision);
    if revision.is_none() {
        violations.push("revision", FieldReason::ValueOutOfRange, "must not be negative");
    }
    let incarnation = (!request.incarnation.is_empty()).then(|| IncarnationId::parse(&request.incarnation));
    if let Some(Err(error)) = &incarnation {
        violations.push("incarnation", FieldReason::ValueMalformed, error.to_string());
    }
    let group = Group::parse(&request.group);
    if let Err(error) = &group {
        violations.push("group", FieldReason::ValueMalformed, error.to_string());
    }
    let min_routers = usize::try_from(request.min_routers.unwrap_or(1)).ok();
    let min_routers = min_routers.filter(|min| *min <= ROUTERS_MAX);
    if min_routers.is_none() {
        let description = format!("must be 0 to {ROUTERS_MAX}");
        violations.push("min_routers", FieldReason::ValueOutOfRange, description);
    }
    let timeout = match request.timeout.map(duration::read) {
        Some(given) => given.filter(|timeout| *timeout <= WAIT_MAX),
        None => Some(allowed.map_or(WAIT_DEFAULT, |_| WAIT_MAX)),
    };
    if timeout.is_none() {
        violations.push("timeout", FieldReason::ValueOutOfRange, "must be 0 to 15 minutes");
    }
    let wanted = AwaitedRevision {
        revision: revision.filter(|revision| *revision > Revision::ZERO),
        incarnation: incarnation.and_then(Result::ok),
        group: group.unwrap_or_default(),
        min_routers: min_routers.unwrap_or_default(),
    };
    let timeout = timeout.unwrap_or_default().min(allowed.unwrap_or(WAIT_MAX));
    violations.or((wanted, timeout))
}

/// Returns the answer to a wait whose revision is in force.
#[must_use]
pub fn in_force(done: &InForce) -> registry::WaitForRevisionResponse {
    registry::WaitForRevisionResponse {
        revision: done.revision.get(),
        incarnation: done.incarnation.id.to_string(),
        router_ids: done.routers.iter().map(ToString::to_string).collect(),
    }
}

/// Converts the health of endpoints, with at most `routers_max` reports each.
#[must_use]
pub fn health(health: Vec<EndpointHealth>, routers_max: usize) -> Vec<registry::EndpointHealth> {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let endpoints = health.into_iter().filter_map(|endpoint| {
        let worst = endpoint.routers.first()?;
        let routers = endpoint.routers.iter().take(routers_max);
        Some(registry::EndpointHealth {
            uri: endpoint.uri.to_string(),
            state: types::EndpointState::from(worst.state).into(),
            reason: worst.reason.to_string(),
            router_count: count(endpoint.router_count),
            routers: routers.map(|told| router_health(told, now, wall)).collect(),
        })
    });
    endpoints.collect()
}

fn router_health(told: &RouterHealth, now: Instant, wall: SystemTime) -> registry::RouterHealth {
    let age = now.saturating_duration_since(told.since);
    registry::RouterHealth {
        router: told.router.to_string(),
        state: types::EndpointState::from(told.state).into(),
        reason: told.reason.to_string(),
        observe_time: wall.checked_sub(age).map(timestamp),
    }
}

#[cfg(test)]
mod tests;
