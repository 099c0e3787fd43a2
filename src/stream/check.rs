//! The messages of a check: the request to check a model, and the router's findings.

use std::time::Duration;

use super::fields::{REASON_MAX, ReportFields, from_span};
use crate::{
    duration,
    endpoint::EndpointUri,
    names::{CheckId, CredentialId, ModelName, Revision},
    pb::registry::{self, check_request},
    reason::FieldReason,
    violation::Violations,
};

/// The maximum duration of a check.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A request to a router to check a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRequest {
    /// The id of the check. It cannot be guessed, and the router needs it to fetch the credential of a model that is
    /// not saved.
    pub id: CheckId,
    /// The model to check.
    pub target: CheckTarget,
    /// The credential that the router fetches for a model that is not saved. `None`: there is no credential to fetch.
    pub credential: Option<CredentialId>,
    /// The time limit of the check.
    pub timeout: Duration,
}

/// The model that is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckTarget {
    /// A registered model. The router already has it.
    Registered(ModelName),
    /// A model that is not saved. If the router cannot use a part of it, that is a finding of the check.
    Unsaved(Box<registry::Model>),
}

/// The result of a check on one router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The id of the check.
    pub id: CheckId,
    /// The revision of the configuration that the router used for the check.
    pub revision: Revision,
    /// The results, one for each endpoint.
    pub endpoints: Vec<EndpointCheck>,
}

/// The result of a check for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointCheck {
    /// The endpoint, as the model's configuration has it. Empty: the check failed before it reached an endpoint.
    pub endpoint: Box<str>,
    /// Whether no step failed.
    pub passed: bool,
    /// The steps, in the order in which they were run.
    pub steps: Vec<CheckedStep>,
}

/// One step of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedStep {
    /// Name of the step, for example `dns`.
    pub step: Box<str>,
    /// The outcome of the step.
    pub end: StepEnd,
    /// The duration of the step. `None`: not measured.
    pub latency: Option<Duration>,
    /// Where the problem lies. `None`: there is no problem.
    pub culprit: Option<Culprit>,
    /// The reason for the failure, for programs. Empty: the step did not fail.
    pub reason: Box<str>,
    /// The result, for people.
    pub message: Box<str>,
    /// How to fix the problem, for people.
    pub remedy: Box<str>,
}

/// The outcome of one step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// The step found no problem.
    Passed,
    /// The step found a problem.
    Failed,
    /// The step was not run.
    Skipped,
}

/// The place in which a problem lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// In the model's configuration.
    Configuration,
    /// In the API token.
    Credential,
    /// In the network.
    Network,
    /// In the model server.
    ModelServer,
    /// In Switchboard.
    Switchboard,
}

impl Findings {
    /// The maximum number of endpoints in the result of a check.
    pub const ENDPOINTS_MAX: usize = 64;
    /// The maximum number of steps for one endpoint.
    pub const STEPS_MAX: usize = 16;
    /// The maximum length of a step's message and of its remedy, in characters.
    pub const MESSAGE_MAX: usize = 1_000;
}

impl CheckRequest {
    /// Converts the message. `None`: the message is malformed.
    pub(super) fn read(wire: registry::CheckRequest) -> Option<Self> {
        let target = match wire.target? {
            check_request::Target::Model(name) => CheckTarget::Registered(ModelName::parse(&name).ok()?),
            check_request::Target::Unsaved(model) => CheckTarget::Unsaved(Box::new(model)),
        };
        let credential = match wire.credential_id.as_str() {
            "" => None,
            id => Some(CredentialId::parse(id).ok()?),
        };
        let timeout = wire.timeout.and_then(duration::read).unwrap_or_default();
        Some(Self {
            id: CheckId::parse(&wire.check_id).ok()?,
            target,
            credential,
            timeout: timeout.min(TIMEOUT_MAX),
        })
    }
}

impl From<CheckRequest> for registry::CheckRequest {
    fn from(request: CheckRequest) -> Self {
        let target = match request.target {
            CheckTarget::Registered(name) => check_request::Target::Model(name.to_string()),
            CheckTarget::Unsaved(model) => check_request::Target::Unsaved(*model),
        };
        Self {
            check_id: request.id.to_string(),
            target: Some(target),
            credential_id: request.credential.map(|id| id.to_string()).unwrap_or_default(),
            timeout: from_span(request.timeout),
        }
    }
}

impl TryFrom<&registry::CheckResult> for Findings {
    type Error = Violations;

    fn try_from(wire: &registry::CheckResult) -> Result<Self, Violations> {
        let mut fields = ReportFields::default();
        let id = fields.take("check_result.check_id", CheckId::parse(&wire.check_id));
        fields.at_most("check_result.checks", wire.checks.len(), Self::ENDPOINTS_MAX);
        let checks = wire.checks.iter().take(Self::ENDPOINTS_MAX).enumerate();
        let endpoints = checks
            .filter_map(|(index, check)| fields.endpoint_check(&format!("check_result.checks[{index}]"), check))
            .collect();
        match id {
            Some(id) => fields.violations.or(Self {
                id,
                revision: Revision::new(wire.revision).unwrap_or_default(),
                endpoints,
            }),
            None => Err(fields.violations),
        }
    }
}

impl From<&Findings> for registry::CheckResult {
    fn from(findings: &Findings) -> Self {
        let checks = findings.endpoints.iter().map(|check| check.to_wire(String::new()));
        Self {
            check_id: findings.id.to_string(),
            revision: findings.revision.get(),
            checks: checks.collect(),
        }
    }
}

impl EndpointCheck {
    /// Converts the result to a message of the contract. `router` is the id of the router that made the check; a router
    /// leaves it empty in its own messages.
    #[must_use]
    pub fn to_wire(&self, router: String) -> registry::ModelCheck {
        registry::ModelCheck {
            router,
            endpoint: self.endpoint.to_string(),
            passed: self.passed,
            steps: self.steps.iter().map(Into::into).collect(),
        }
    }
}

impl From<&CheckedStep> for registry::CheckStep {
    fn from(step: &CheckedStep) -> Self {
        let outcome = match step.end {
            StepEnd::Passed => registry::CheckOutcome::Passed,
            StepEnd::Failed => registry::CheckOutcome::Failed,
            StepEnd::Skipped => registry::CheckOutcome::Skipped,
        };
        let fault = match step.culprit {
            None => registry::Fault::Unspecified,
            Some(Culprit::Configuration) => registry::Fault::Configuration,
            Some(Culprit::Credential) => registry::Fault::Credential,
            Some(Culprit::Network) => registry::Fault::Network,
            Some(Culprit::ModelServer) => registry::Fault::ModelServer,
            Some(Culprit::Switchboard) => registry::Fault::Switchboard,
        };
        Self {
            step: step.step.to_string(),
            outcome: outcome.into(),
            latency: step.latency.and_then(from_span),
            fault: fault.into(),
            reason: step.reason.to_string(),
            message: step.message.to_string(),
            remedy: step.remedy.to_string(),
        }
    }
}

impl ReportFields {
    fn at_most(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            let description = format!("must list at most {most} entries");
            self.violations.push(field, FieldReason::ValueOutOfRange, description);
        }
    }

    fn endpoint_check(&mut self, path: &str, wire: &registry::ModelCheck) -> Option<EndpointCheck> {
        let endpoint = self.text(&format!("{path}.endpoint"), &wire.endpoint, EndpointUri::LENGTH_MAX);
        self.at_most(&format!("{path}.steps"), wire.steps.len(), Findings::STEPS_MAX);
        let steps = wire.steps.iter().take(Findings::STEPS_MAX).enumerate();
        let steps = steps
            .filter_map(|(index, step)| self.step(&format!("{path}.steps[{index}]"), step))
            .collect();
        Some(EndpointCheck {
            endpoint: endpoint?,
            passed: wire.passed,
            steps,
        })
    }

    fn step(&mut self, path: &str, wire: &registry::CheckStep) -> Option<CheckedStep> {
        let end = match wire.outcome() {
            registry::CheckOutcome::Passed => Some(StepEnd::Passed),
            registry::CheckOutcome::Failed => Some(StepEnd::Failed),
            registry::CheckOutcome::Skipped => Some(StepEnd::Skipped),
            registry::CheckOutcome::Unspecified => {
                self.unknown(&format!("{path}.outcome"));
                None
            }
        };
        let culprit = match wire.fault() {
            registry::Fault::Configuration => Some(Culprit::Configuration),
            registry::Fault::Credential => Some(Culprit::Credential),
            registry::Fault::Network => Some(Culprit::Network),
            registry::Fault::ModelServer => Some(Culprit::ModelServer),
            registry::Fault::Switchboard => Some(Culprit::Switchboard),
            registry::Fault::Unspecified => None,
        };
        let latency = wire.latency.map(duration::read);
        if latency == Some(None) {
            self.violations.push(
                format!("{path}.latency"),
                FieldReason::ValueOutOfRange,
                "must be a valid duration that is not negative",
            );
        }
        let step = self.text(&format!("{path}.step"), &wire.step, REASON_MAX);
        let reason = self.text(&format!("{path}.reason"), &wire.reason, REASON_MAX);
        let message = self.text(&format!("{path}.message"), &wire.message, Findings::MESSAGE_MAX);
        let remedy = self.text(&format!("{path}.remedy"), &wire.remedy, Findings::MESSAGE_MAX);
        Some(CheckedStep {
            step: step?,
            end: end?,
            latency: latency.flatten(),
            culprit,
            reason: reason?,
            message: message?,
            remedy: remedy?,
        })
    }
}
