//! The steps of a check, in their order, and how each ended. Pure.

use std::{borrow::Cow, fmt, time::Duration};

use switchboard::reason::Reason;

use crate::upstream::fault::Culprit;

/// Which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Whether this router could check at all. Told only where it could not.
    Router,
    /// The name is resolved.
    Dns,
    /// A connection is made.
    Tcp,
    /// The server proves who it is.
    Tls,
    /// It speaks HTTP.
    Http,
    /// It accepts the API token, or wants none.
    Credential,
    /// It has the model.
    ModelList,
    /// It answers one token, whole.
    Chat,
    /// It answers one token, as it writes.
    Streaming,
    /// It completes code.
    Infill,
}

impl StepKind {
    /// Those of a server, in order.
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

    /// Its name in the contract.
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

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub kind: StepKind,
    /// How it ended.
    pub outcome: StepOutcome,
    /// How long it took. `None`: another step shows it, or it was not taken.
    pub latency: Option<Duration>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// All is well; a remark, or nothing.
    Passed(Cow<'static, str>),
    /// It failed.
    Failed(Problem),
    /// It was not taken, and why.
    Skipped(Cow<'static, str>),
}

/// Why a step failed, and what to do about it. Nothing in it was written by the server, but for names of models that are
/// plain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it lies.
    pub culprit: Culprit,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// What to do.
    pub remedy: Cow<'static, str>,
}

/// A step has failed: those behind it are not taken.
#[derive(Debug)]
pub(super) struct StepFailed;

/// The steps of one server so far.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    pub(super) fn passed(&mut self, kind: StepKind, latency: Option<Duration>, remark: &'static str) {
        self.push(kind, latency, StepOutcome::Passed(remark.into()));
    }

    pub(super) fn skipped(&mut self, kind: StepKind, why: impl Into<Cow<'static, str>>) {
        self.push(kind, None, StepOutcome::Skipped(why.into()));
    }

    /// The check ends here.
    pub(super) fn failed(&mut self, kind: StepKind, latency: Option<Duration>, problem: Problem) -> StepFailed {
        self.push(kind, latency, StepOutcome::Failed(problem));
        StepFailed
    }

    fn push(&mut self, kind: StepKind, latency: Option<Duration>, outcome: StepOutcome) {
        self.0.push(Step { kind, outcome, latency });
    }

    /// All steps: those that were not come to are skipped.
    pub(super) fn finish(mut self) -> Vec<Step> {
        for kind in StepKind::ALL {
            if !self.0.iter().any(|step| step.kind == kind) {
                self.skipped(kind, "an earlier step has failed");
            }
        }
        self.0
            .sort_by_key(|step| StepKind::ALL.iter().position(|kind| *kind == step.kind));
        self.0
    }
}
