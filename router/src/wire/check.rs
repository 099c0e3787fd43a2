//! Checks of models, both ways: what the registry asks for, read, and what was found, written.

use std::time::Duration;

use switchboard::{
    duration,
    names::{CheckId, CredentialId, ModelName},
    pb::registry::{self, check_request},
};

use super::resource;
use crate::{
    check::{Finding, Problem, Spec, Step, StepOutcome},
    subscription::{
        order::{Answer, Order, Target},
        resource::Refusal,
    },
    upstream::fault::Culprit,
};

/// The longest check.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Reads what is to be checked. That a model cannot be used is an answer. `None`: it cannot be read.
pub(super) fn order(wire: registry::CheckRequest) -> Option<Order> {
    let target = match wire.target? {
        check_request::Target::Model(name) => Target::Registered(ModelName::parse(&name).ok()?),
        check_request::Target::Unsaved(model) => Target::Unsaved {
            credential: match wire.credential_id.as_str() {
                "" => None,
                id => Some(CredentialId::parse(id).ok()?),
            },
            is_token_dropped: model.api_token_dropped,
            spec: unsaved(model).map(Box::new),
        },
    };
    Some(Order {
        id: CheckId::parse(&wire.check_id).ok()?,
        target,
        timeout: wire
            .timeout
            .and_then(duration::read)
            .unwrap_or_default()
            .min(TIMEOUT_MAX),
    })
}

fn unsaved(model: registry::Model) -> Result<Spec, Refusal> {
    let name = ModelName::parse(&model.name).ok();
    Ok(Spec::new(&resource::spec(model)?, name.as_ref()))
}

/// What was found.
pub(super) fn result(answer: &Answer) -> registry::CheckResult {
    registry::CheckResult {
        check_id: answer.id.to_string(),
        revision: answer.revision.get(),
        checks: answer.findings.iter().map(finding).collect(),
    }
}

fn finding(finding: &Finding) -> registry::ModelCheck {
    let endpoint = finding.endpoint.as_ref();
    registry::ModelCheck {
        router: String::new(),
        endpoint: endpoint
            .map(|endpoint| endpoint.as_str().to_owned())
            .unwrap_or_default(),
        passed: finding.passed(),
        steps: finding.steps.iter().map(step).collect(),
    }
}

fn step(step: &Step) -> registry::CheckStep {
    let begun = registry::CheckStep {
        step: step.kind.as_str().to_owned(),
        latency: step
            .latency
            .and_then(|latency| prost_types::Duration::try_from(latency).ok()),
        ..Default::default()
    };
    match &step.outcome {
        StepOutcome::Passed(remark) => registry::CheckStep {
            outcome: registry::CheckOutcome::Passed.into(),
            message: remark.clone().into_owned(),
            ..begun
        },
        StepOutcome::Skipped(why) => registry::CheckStep {
            outcome: registry::CheckOutcome::Skipped.into(),
            message: why.clone().into_owned(),
            ..begun
        },
        StepOutcome::Failed(Problem {
            culprit,
            reason,
            message,
            remedy,
        }) => registry::CheckStep {
            outcome: registry::CheckOutcome::Failed.into(),
            fault: match culprit {
                Culprit::Configuration => registry::Fault::Configuration,
                Culprit::Credential => registry::Fault::Credential,
                Culprit::Network => registry::Fault::Network,
                Culprit::ModelServer => registry::Fault::ModelServer,
                Culprit::Switchboard => registry::Fault::Switchboard,
            }
            .into(),
            reason: reason.to_string(),
            message: bounded(message),
            remedy: remedy.clone().into_owned(),
            ..begun
        },
    }
}

/// As much as the registry takes: a message may name long identifiers.
fn bounded(text: &str) -> String {
    const CHARACTERS_MAX: usize = 1_000;
    text.chars().take(CHARACTERS_MAX).collect()
}
