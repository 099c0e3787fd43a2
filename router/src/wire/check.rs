//! Conversions of model checks: from the registry's requests, and to the findings for the registry.

use switchboard::{
    names::ModelName,
    pb::registry,
    stream::{CheckRequest, CheckTarget, CheckedStep, EndpointCheck, Findings, StepEnd},
};

use super::resource;
use crate::{
    check::{Finding, Spec, Step, StepOutcome},
    subscription::{
        order::{CheckAnswer, RequestedCheck, RequestedTarget},
        resource::Refusal,
    },
};

/// Reads the model to check. A model that this router cannot use is not an error: the check answers that.
impl From<CheckRequest> for RequestedCheck {
    fn from(request: CheckRequest) -> Self {
        let target = match request.target {
            CheckTarget::Registered(name) => RequestedTarget::Registered(name),
            CheckTarget::Unsaved(model) => RequestedTarget::Unsaved {
                credential: request.credential,
                is_token_dropped: model.api_token_dropped,
                spec: unsaved(*model).map(Box::new),
            },
        };
        Self {
            id: request.id,
            target,
            timeout: request.timeout,
        }
    }
}

fn unsaved(model: registry::Model) -> Result<Spec, Refusal> {
    let name = ModelName::parse(&model.name).ok();
    Ok(Spec::new(&resource::spec(model)?, name.as_ref()))
}

impl From<&CheckAnswer> for Findings {
    fn from(answer: &CheckAnswer) -> Self {
        Self {
            id: answer.id,
            revision: answer.revision,
            endpoints: answer.findings.iter().map(endpoint_check).collect(),
        }
    }
}

fn endpoint_check(finding: &Finding) -> EndpointCheck {
    let endpoint = finding.endpoint.as_ref();
    EndpointCheck {
        endpoint: endpoint.map(|endpoint| endpoint.as_str().into()).unwrap_or_default(),
        passed: finding.passed(),
        steps: finding.steps.iter().map(checked_step).collect(),
    }
}

fn checked_step(step: &Step) -> CheckedStep {
    let (end, message, problem) = match &step.outcome {
        StepOutcome::Passed(remark) => (StepEnd::Passed, remark.as_ref().into(), None),
        StepOutcome::Skipped(why) => (StepEnd::Skipped, why.as_ref().into(), None),
        StepOutcome::Failed(problem) => (StepEnd::Failed, bounded(&problem.message), Some(problem)),
    };
    CheckedStep {
        step: step.kind.as_str().into(),
        end,
        latency: step.latency,
        culprit: problem.map(|problem| problem.culprit),
        reason: problem
            .map(|problem| problem.reason.to_string().into())
            .unwrap_or_default(),
        message,
        remedy: problem
            .map(|problem| problem.remedy.as_ref().into())
            .unwrap_or_default(),
    }
}

/// Shortens a text to the limit of a report, because a message may contain long identifiers.
fn bounded(text: &str) -> Box<str> {
    text.chars().take(Findings::MESSAGE_MAX).collect::<String>().into()
}
