//! The steps of a check in their order, and their results. Pure.

use std::{borrow::Cow, fmt, time::Duration};

use switchboard::reason::Reason;

use crate::upstream::fault::Culprit;

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Whether this router could check at all. Reported only if it could not.
    Router,
    /// The host name can be resolved.
    Dns,
    /// The server accepts a TCP connection.
    Tcp,
    /// The TLS handshake succeeds, including the verification of the server's certificate.
    Tls,
    /// The server speaks HTTP.
    Http,
    /// The server accepts the API token, or does not require one.
    Credential,
    /// The server has the model.
    ModelList,
    /// The server answers a request for one token as a whole.
    Chat,
    /// The server answers a request for one token as a stream.
    Streaming,
    /// The server completes code.
    Infill,
}

impl StepKind {
    /// The steps for a server, in order.
    const ALL: [Self; 9] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Http,
        Self::Credential,
        Self::ModelList,
        Self::Chat,
        Self::Streaming,
        Self::Infill,
    ];

    /// Returns the name of the step in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Credential => "credential",
            Self::ModelList => "model_list",
            Self::Chat => "chat",
            Self::Streaming => "streaming",
            Self::Infill => "infill",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One step with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The kind of the step.
    pub kind: StepKind,
    /// The result of the step.
    pub outcome: StepOutcome,
    /// How long it took. `None`: another step has the time, or this step was not run.
    pub latency: Option<Duration>,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It passed. The text is a remark, or empty.
    Passed(Cow<'static, str>),
    /// It failed.
    Failed(Problem),
    /// It was not run, for the reason in the text.
    Skipped(Cow<'static, str>),
}

/// Why a step failed, and how to fix it. It contains no text from the server, except for model names with only plain
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the problem lies.
    pub culprit: Culprit,
    /// Why the step failed, for programs.
    pub reason: Reason,
    /// Why the step failed, for people.
    pub message: String,
    /// What an administrator can do about it.
    pub remedy: Cow<'static, str>,
}

/// Signals that a step has failed: the steps after it are not run.
#[derive(Debug)]
pub(super) struct StepFailed;

/// The steps of one server that have been run so far.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    pub(super) fn passed(&mut self, kind: StepKind, latency: Option<Duration>, remark: &'static str) {
        self.push(kind, latency, StepOutcome::Passed(remark.into()));
    }

    pub(super) fn skipped(&mut self, kind: StepKind, why: impl Into<Cow<'static, str>>) {
        self.push(kind, None, StepOutcome::Skipped(why.into()));
    }

    /// Adds a failed step, which ends the check.
    pub(super) fn failed(&mut self, kind: StepKind, latency: Option<Duration>, problem: Problem) -> StepFailed {
        self.push(kind, latency, StepOutcome::Failed(problem));
        StepFailed
    }

    fn push(&mut self, kind: StepKind, latency: Option<Duration>, outcome: StepOutcome) {
        self.0.push(Step { kind, outcome, latency });
    }

    /// Returns all steps in order. Those that were not reached are skipped.
    pub(super) fn finish(mut self) -> Vec<Step> {
        for kind in StepKind::ALL {
            if !self.0.iter().any(|step| step.kind == kind) {
                self.skipped(kind, "an earlier step failed");
            }
        }
        self.0
            .sort_by_key(|step| StepKind::ALL.iter().position(|kind| *kind == step.kind));
        self.0
    }
}
