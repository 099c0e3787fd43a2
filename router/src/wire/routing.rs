//! Conversions of selections, routes and their status.

use switchboard::{
    names::FeatureName,
    pb::{router, types},
    reason::FieldReason,
    violation::Violations,
};
use tonic::metadata::MetadataMap;

use crate::{
    call::{Considered, Outcome, Selected},
    catalog::{CompiledModel, CompiledSetting, Scope, SelectionReason},
    endpoints::{Health, Status},
};

/// Maximum number of characters of an affinity key.
pub const AFFINITY_KEY_MAX: usize = 255;

/// Reads from the metadata for whom a call is made: namespaces, project and user. Unreadable values count as absent.
#[must_use]
pub fn scope(metadata: &MetadataMap) -> Scope<'_> {
    let text = |key| {
        let text = metadata.get(key).and_then(|value| value.to_str().ok());
        text.and_then(given)
    };
    Scope {
        root_namespace_id: text("x-gitlab-root-namespace-id"),
        namespace_id: text("x-gitlab-namespace-id"),
        project_id: text("x-gitlab-project-id"),
        global_user_id: text("x-gitlab-global-user-id"),
        user_id: text("x-gitlab-user-id"),
    }
}

impl<'a> From<&'a router::Scope> for Scope<'a> {
    fn from(wire: &'a router::Scope) -> Self {
        Self {
            root_namespace_id: given(&wire.root_namespace_id),
            namespace_id: given(&wire.namespace_id),
            project_id: given(&wire.project_id),
            global_user_id: given(&wire.global_user_id),
            user_id: given(&wire.user_id),
        }
    }
}

/// Reads an affinity key. `None`: the call has none.
#[must_use]
pub fn affinity_key<'a>(wire: &'a str, violations: &mut Violations) -> Option<&'a str> {
    if wire.chars().count() > AFFINITY_KEY_MAX {
        let text = format!("must have at most {AFFINITY_KEY_MAX} characters");
        violations.push("affinity_key", FieldReason::ValueOutOfRange, text);
    }
    given(wire)
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl From<&Selected> for router::Selection {
    fn from(selected: &Selected) -> Self {
        Self {
            endpoint: selected.endpoint.uri.origin().host_and_port(),
            identifier: selected.identifier.to_string(),
            rule: selected.rule.as_ref().map(ToString::to_string).unwrap_or_default(),
            config_revision: selected.revision.get(),
            attempt_count: i32::try_from(selected.attempts).unwrap_or(i32::MAX),
            degraded: selected.is_degraded,
            ..selection(
                selected.feature,
                selected.source_feature,
                &selected.model,
                selected.reason,
            )
        }
    }
}

/// Returns which model answers and why, without the fields that only a call or a rule determines.
#[must_use]
pub fn selection(
    feature: &FeatureName,
    source_feature: &FeatureName,
    model: &CompiledModel,
    reason: SelectionReason,
) -> router::Selection {
    let reason = match reason {
        SelectionReason::Assigned => router::SelectionReason::Assigned,
        SelectionReason::ParentFeature => router::SelectionReason::ParentFeature,
        SelectionReason::Rule => router::SelectionReason::Rule,
        SelectionReason::Failover => router::SelectionReason::Failover,
    };
    router::Selection {
        feature: feature.to_string(),
        source_feature: source_feature.to_string(),
        model: model.name.to_string(),
        family: model.spec.family.machine_name.clone(),
        identifier: model.identifier_or(None).to_owned(),
        reason: reason.into(),
        ..router::Selection::default()
    }
}

impl From<&Status> for router::EndpointStatus {
    fn from(status: &Status) -> Self {
        let identity = &status.identity;
        let state = status.health.map(|health| types::EndpointState::from(health.state()));
        let reason = status.health.and_then(Health::reason);
        Self {
            model: identity.model.to_string(),
            uri: identity.uri.as_str().to_owned(),
            address: identity.address.map(|address| address.to_string()).unwrap_or_default(),
            state: state.unwrap_or_default().into(),
            reason: reason.map(|reason| reason.to_string()).unwrap_or_default(),
            in_flight: i32::try_from(status.in_flight).unwrap_or(i32::MAX),
            slowness: status.slowness,
            ramp: status.ramp,
            rest: status.rest.and_then(|rest| rest.try_into().ok()),
            detail: status.error.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

/// Returns the provider of a setting.
#[must_use]
pub const fn provider(setting: &CompiledSetting) -> types::Provider {
    match setting {
        CompiledSetting::Unassigned => types::Provider::Unassigned,
        CompiledSetting::Disabled => types::Provider::Disabled,
        CompiledSetting::Vendored => types::Provider::Vendored,
        CompiledSetting::SelfHosted(_) => types::Provider::SelfHosted,
    }
}

impl From<Considered> for router::Candidate {
    fn from(considered: Considered) -> Self {
        use router::CandidateOutcome as Wire;
        let (outcome, detail) = match considered.outcome {
            Outcome::Chosen => (Wire::Chosen, String::new()),
            Outcome::Standby => (Wire::Standby, String::new()),
            Outcome::RuleNotMatched => (Wire::RuleNotMatched, String::new()),
            Outcome::Disabled => (Wire::Disabled, String::new()),
            Outcome::CredentialMissing => (Wire::CredentialMissing, String::new()),
            Outcome::Ejected => (Wire::Ejected, String::new()),
            Outcome::Full => (Wire::Full, String::new()),
            Outcome::Failed(why) => (Wire::Failed, why),
            Outcome::NotReady => (Wire::NotReady, String::new()),
        };
        Self {
            model: considered.model.to_string(),
            source_feature: considered.source_feature.to_string(),
            rule: considered.rule.map(|rule| rule.to_string()).unwrap_or_default(),
            outcome: outcome.into(),
            detail,
        }
    }
}
