//! The verdicts on attempts, the results of probes, and the health of servers and models that follows from them.

use std::time::Duration;

use switchboard::{reason::Reason, stream::EndpointState};

/// What the end of an attempt says about the server that it went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server answered.
    Answered,
    /// The server had less time than its model allows: this only shows how slow it is.
    Late,
    /// The server could not be reached.
    Hard(Reason),
    /// The server was reached, but failed.
    Soft(Reason),
    /// The server asks for less load, and, if it gave a duration, to be left alone for that long.
    Busy(Reason, Option<Duration>),
    /// An administrator has to change the configuration of the model or of the server.
    Misconfigured(Reason),
}

/// Health of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// It failed, and has not answered since.
    Recovering(Reason),
    /// It gets no calls for now, because it failed repeatedly.
    Ejected(Reason),
    /// An administrator has to change the configuration of the model or of the server.
    Misconfigured(Reason),
    /// It asked for less load.
    BackingOff(Reason),
}

impl Health {
    /// Returns the health without the reason.
    #[must_use]
    pub const fn state(self) -> EndpointState {
        match self {
            Self::Healthy => EndpointState::Healthy,
            Self::Recovering(_) => EndpointState::Recovering,
            Self::Ejected(_) => EndpointState::Ejected,
            Self::Misconfigured(_) => EndpointState::Misconfigured,
            Self::BackingOff(_) => EndpointState::BackingOff,
        }
    }

    /// Returns why the server is not healthy. `None`: it is healthy.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Healthy => None,
            Self::Recovering(reason)
            | Self::Ejected(reason)
            | Self::Misconfigured(reason)
            | Self::BackingOff(reason) => Some(reason),
        }
    }

    pub(super) const fn badness(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Recovering(_) => 1,
            Self::BackingOff(_) => 2,
            Self::Misconfigured(_) => 3,
            Self::Ejected(_) => 4,
        }
    }
}

/// Result of a probe of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// The server is available.
    Passed,
    /// The server is not available, for this reason.
    Failed(Reason),
}

/// Whether a model's servers take calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelReadiness {
    /// At least one server takes calls.
    Ready,
    /// All servers are failing, but one may be back: a call may try it.
    Trial {
        /// Why that server was taken out.
        reason: Reason,
    },
    /// All servers are failing.
    Down {
        /// Why the first of them was taken out.
        reason: Reason,
    },
    /// No server takes calls: every server that could take them has asked to be left alone.
    LeftAlone {
        /// Why the server that takes calls next asked to be left alone.
        reason: Reason,
        /// How long until that server takes calls.
        pause: Duration,
    },
}
