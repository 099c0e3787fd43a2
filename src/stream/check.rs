//! A check of a model: what a router is asked, and what it has found.

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

/// The longest check.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A router is to check a model.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRequest {
    /// Names the check; unguessable. It is also the key to the credential of a model that is not saved.
    pub id: CheckId,
    /// What to check.
    pub target: CheckTarget,
    /// The credential to fetch for a model that is not saved.
    pub credential: Option<CredentialId>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckTarget {
    /// A model as it is registered: the router has it.
    Registered(ModelName),
    /// One that is not saved, as it would be. What a router cannot use of it is a finding.
    Unsaved(Box<registry::Model>),
}

/// What a router has found, one for each endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The check.
    pub id: CheckId,
    /// The revision of the configuration that the check went by.
    pub revision: Revision,
    /// The endpoints.
    pub endpoints: Vec<EndpointCheck>,
}

/// What was found of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointCheck {
    /// The endpoint, as the model gives it. Empty: the check ended before it.
    pub endpoint: Box<str>,
    /// Whether no step has failed.
    pub passed: bool,
    /// The steps, in order.
    pub steps: Vec<CheckedStep>,
}

/// One step of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedStep {
    /// Which step.
    pub step: Box<str>,
    /// How it ended.
    pub end: StepEnd,
    /// How long it took.
    pub latency: Option<Duration>,
    /// Where the problem lies.
    pub culprit: Option<Culprit>,
    /// Why it failed, for programs.
    pub reason: Box<str>,
    /// What was found, for people.
    pub message: Box<str>,
    /// What to do about it.
    pub remedy: Box<str>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// All is well.
    Passed,
    /// It failed.
    Failed,
    /// It was not taken.
    Skipped,
}

/// Where a problem lies.
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
    /// The most endpoints of a check.
    pub const ENDPOINTS_MAX: usize = 64;
    /// The most steps for one endpoint.
    pub const STEPS_MAX: usize = 16;
    /// The most characters of what a step says to people.
    pub const MESSAGE_MAX: usize = 1_000;
}

impl CheckRequest {
    /// `None`: it cannot be read.
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
    /// The check as the contract has it, made by `router`. A router does not name itself.
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
            let description = format!("must list at most {most}");
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
                "must not be negative",
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
