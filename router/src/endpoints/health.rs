//! What is said of servers: by attempts, by probes, and all together.

use std::time::Duration;

use switchboard::{reason::Reason, stream::EndpointState};

/// What the end of an attempt says of the server that it went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has answered.
    Answered,
    /// It was not given the time that its model allows: that says nothing but how slow it is.
    Late,
    /// It could not be reached.
    Hard(Reason),
    /// It was reached, and failed.
    Soft(Reason),
    /// It asks for less load, and to be left alone for so long if it said so.
    Busy(Reason, Option<Duration>),
    /// Somebody has to change something.
    Misconfigured(Reason),
}

/// How a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// It failed; nothing has answered since.
    Recovering(Reason),
    /// It gets no calls for now, because it failed repeatedly.
    Ejected(Reason),
    /// Somebody has to change something.
    Misconfigured(Reason),
    /// It asked for less load.
    BackingOff(Reason),
}

impl Health {
    /// How the server does, without the reason.
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

    /// Why it does not do well.
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

/// What a probe of a server found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It is there.
    Passed,
    /// It is not, for this reason.
    Failed(Reason),
}

/// Whether a model's servers take calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelReadiness {
    /// One at least takes them.
    Ready,
    /// All are failing, and one may be back: a call may try it.
    Trial {
        /// Why it was taken out.
        reason: Reason,
    },
    /// All are failing, for this reason.
    Down {
        /// Why the first of them was taken out.
        reason: Reason,
    },
    /// None that works takes any, since they have asked to be left alone.
    LeftAlone {
        /// What the one said that takes calls next.
        reason: Reason,
        /// How long it wants to be left alone.
        pause: Duration,
    },
}
