//! Checks of models, between the contract and what asks for them.

use std::time::Duration;

use switchboard::{
    duration,
    endpoint::EndpointUri,
    names::{CheckId, ModelName},
    pb::registry::{self, check_request},
    reason::FieldReason,
    violation::Violations,
};
use tokio::time::Instant;

use super::{
    model, name,
    report::fields::{Fields, REASON_MAX},
};
use crate::{
    check::{CHECK_MAX, Checked, Routers, Subject, Wanted},
    fleet::{
        check::{EndpointCheck, Fault, Findings, Order, Outcome, Step, Target},
        report::RouterId,
    },
};

/// The most endpoints of a check, and the most steps of one.
const ENDPOINTS_MAX: usize = 64;
const STEPS_MAX: usize = 16;

/// The most characters of what a step says to people.
const MESSAGE_MAX: usize = 1_000;

/// Reads what a call wants, which may take `allowed`; answers also how long it may take.
///
/// # Errors
///
/// Violations for everything that is wrong with the fields that are not the model's own.
pub fn wanted(
    request: registry::CheckModelRequest,
    allowed: Option<Duration>,
) -> Result<(Wanted, Duration), Violations> {
    let mut violations = Violations::new();
    let router = (!request.router.is_empty()).then(|| RouterId::parse(&request.router));
    if let Some(Err(error)) = &router {
        violations.push("router", FieldReason::ValueMalformed, error.to_string());
    }
    let routers = match router.and_then(Result::ok) {
        Some(_) if request.all_routers => {
            violations.push(
                "all_routers",
                FieldReason::ValueMalformed,
                "must be left out beside `router`",
            );
            Routers::All
        }
        None if request.all_routers => Routers::All,
        Some(router) => Routers::One(router),
        None => Routers::Any,
    };
    let is_registered = !request.name.is_empty();
    let name = is_registered.then(|| name(&request.name, "name", ModelName::parse, &mut violations));
    if request.update_mask.is_some() && (request.model.is_none() || !is_registered) {
        violations.push(
            "update_mask",
            FieldReason::ValueMalformed,
            "must be left out unless `name` and `model` are both given",
        );
    }
    if !is_registered && request.model.is_none() {
        violations.push("name", FieldReason::FieldRequired, "must be given, or `model`, or both");
    }
    if let (Some(Some(name)), Some(model)) = (&name, &request.model)
        && !model.name.is_empty()
        && model.name != name.to_string()
    {
        violations.push(
            "model.name",
            FieldReason::ValueMalformed,
            "must be the model's `name`, or be left out",
        );
    }
    let subject = match (name.flatten(), request.model) {
        (Some(name), None) => Some(Subject::Registered(name)),
        (Some(name), Some(model)) => Some(edited(&name, model, request.update_mask)),
        (None, Some(model)) if !is_registered => Some(new(model)),
        (None, _) => None,
    };
    let allowed = allowed.unwrap_or(CHECK_MAX);
    violations
        .or(subject)
        .and_then(|subject| subject.ok_or_else(Violations::new))
        .map(|subject| (Wanted { subject, routers }, allowed))
}

fn edited(name: &ModelName, model: registry::Model, update_mask: Option<prost_types::FieldMask>) -> Subject {
    Subject::Edited(model::update(registry::UpdateModelRequest {
        model: Some(registry::Model {
            name: name.to_string(),
            ..model
        }),
        update_mask,
        ..Default::default()
    }))
}

/// What is only checked needs no name for people; a made-up one is nobody else's.
fn new(mut model: registry::Model) -> Subject {
    let is_named = !model.name.is_empty() || model.display_name.is_some();
    model
        .display_name
        .get_or_insert_with(|| format!("Unsaved {}", CheckId::random()));
    let write = model::create(registry::CreateModelRequest {
        model: Some(model),
        ..Default::default()
    });
    Subject::New { write, is_named }
}

/// The answer of a call.
#[must_use]
pub fn answer(checks: Vec<Checked>) -> registry::CheckModelResponse {
    registry::CheckModelResponse {
        checks: checks.into_iter().map(from_checked).collect(),
    }
}

fn from_checked(Checked { router, check }: Checked) -> registry::ModelCheck {
    registry::ModelCheck {
        router: router.to_string(),
        endpoint: check.endpoint.into(),
        passed: check.passed,
        steps: check.steps.into_iter().map(from_step).collect(),
    }
}

fn from_step(step: Step) -> registry::CheckStep {
    let outcome = match step.outcome {
        Outcome::Passed => registry::CheckOutcome::Passed,
        Outcome::Failed => registry::CheckOutcome::Failed,
        Outcome::Skipped => registry::CheckOutcome::Skipped,
    };
    let fault = match step.fault {
        None => registry::Fault::Unspecified,
        Some(Fault::Configuration) => registry::Fault::Configuration,
        Some(Fault::Credential) => registry::Fault::Credential,
        Some(Fault::Network) => registry::Fault::Network,
        Some(Fault::ModelServer) => registry::Fault::ModelServer,
        Some(Fault::Switchboard) => registry::Fault::Switchboard,
    };
    registry::CheckStep {
        step: step.step.into(),
        outcome: outcome.into(),
        latency: step
            .latency
            .and_then(|latency| prost_types::Duration::try_from(latency).ok()),
        fault: fault.into(),
        reason: step.reason.into(),
        message: step.message.into(),
        remedy: step.remedy.into(),
    }
}

/// The message that asks a router. What is left of its time is counted from now.
pub(super) fn request(order: &Order) -> registry::CheckRequest {
    let target = match &order.target {
        Target::Registered(name) => check_request::Target::Model(name.to_string()),
        Target::Unsaved(unsaved) => {
            let mut model = unsaved.model.to_stored();
            model.api_token_dropped = unsaved.is_token_dropped;
            if !unsaved.is_named {
                model.name.clear();
            }
            check_request::Target::Unsaved(model)
        }
    };
    let left = order.until.saturating_duration_since(Instant::now());
    registry::CheckRequest {
        check_id: order.id.to_string(),
        target: Some(target),
        credential_id: order.credential.map(|id| id.to_string()).unwrap_or_default(),
        timeout: prost_types::Duration::try_from(left).ok(),
    }
}

/// Reads what a router has found.
pub(super) fn findings(wire: &registry::CheckResult) -> Result<Findings, Violations> {
    let mut fields = Fields::default();
    let id = fields.take("check_result.check_id", CheckId::parse(&wire.check_id));
    fields.at_most("check_result.checks", wire.checks.len(), ENDPOINTS_MAX);
    let checks = wire.checks.iter().take(ENDPOINTS_MAX).enumerate();
    let endpoints = checks
        .filter_map(|(index, check)| fields.endpoint_check(&format!("check_result.checks[{index}]"), check))
        .collect();
    match id {
        Some(id) => fields.violations.or(Findings { id, endpoints }),
        None => Err(fields.violations),
    }
}

impl Fields {
    fn at_most(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            let description = format!("must list at most {most}");
            self.violations.push(field, FieldReason::ValueOutOfRange, description);
        }
    }

    fn endpoint_check(&mut self, path: &str, wire: &registry::ModelCheck) -> Option<EndpointCheck> {
        let endpoint = self.text(&format!("{path}.endpoint"), &wire.endpoint, EndpointUri::LENGTH_MAX);
        self.at_most(&format!("{path}.steps"), wire.steps.len(), STEPS_MAX);
        let steps = wire.steps.iter().take(STEPS_MAX).enumerate();
        let steps = steps
            .filter_map(|(index, step)| self.step(&format!("{path}.steps[{index}]"), step))
            .collect();
        Some(EndpointCheck {
            endpoint: endpoint?,
            passed: wire.passed,
            steps,
        })
    }

    fn step(&mut self, path: &str, wire: &registry::CheckStep) -> Option<Step> {
        let outcome = match wire.outcome() {
            registry::CheckOutcome::Passed => Some(Outcome::Passed),
            registry::CheckOutcome::Failed => Some(Outcome::Failed),
            registry::CheckOutcome::Skipped => Some(Outcome::Skipped),
            registry::CheckOutcome::Unspecified => {
                self.unknown(&format!("{path}.outcome"));
                None
            }
        };
        let fault = match wire.fault() {
            registry::Fault::Configuration => Some(Fault::Configuration),
            registry::Fault::Credential => Some(Fault::Credential),
            registry::Fault::Network => Some(Fault::Network),
            registry::Fault::ModelServer => Some(Fault::ModelServer),
            registry::Fault::Switchboard => Some(Fault::Switchboard),
            registry::Fault::Unspecified => None,
        };
        let latency = wire.latency.map(duration::read);
        if latency == Some(None) {
            self.violations.push(
                format!("{path}.latency"),
                FieldReason::ValueOutOfRange,
                "must not be negative",
            );
        }
        let step = self.text(&format!("{path}.step"), &wire.step, REASON_MAX);
        let reason = self.text(&format!("{path}.reason"), &wire.reason, REASON_MAX);
        let message = self.text(&format!("{path}.message"), &wire.message, MESSAGE_MAX);
        let remedy = self.text(&format!("{path}.remedy"), &wire.remedy, MESSAGE_MAX);
        Some(Step {
            step: step?,
            outcome: outcome?,
            latency: latency.flatten(),
            fault,
            reason: reason?,
            message: message?,
            remedy: remedy?,
        })
    }
}

#[cfg(test)]
mod tests;
