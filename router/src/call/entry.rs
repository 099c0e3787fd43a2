//! Decides whether a call enters a candidate model or passes it over.
//!
//! The one hard idea: a call that walks through its candidates, and a dry run that only shows where a call would go,
//! ask the same function about the same facts, so that they cannot disagree.

use std::{sync::Arc, time::Duration};

use switchboard::{names::ModelName, reason::Reason, resource::model::Count};

use super::{CallError, CallRefusal};
use crate::{
    catalog::{Candidate, Catalog, CompiledModel, Decision, Unusable},
    endpoints::ModelReadiness,
    live::{LiveModel, LiveModels},
    permits::{Party, Room},
    upstream::UpstreamError,
};

/// Retry delay for a model that is down.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// What decides whether a call enters a usable model.
#[derive(Debug, Clone, Copy)]
struct ModelFacts {
    readiness: ModelReadiness,
    /// HTTP status with which a server recently refused the model's credential. `None`: no recent refusal.
    refusal: Option<u16>,
    room: Room,
}

impl ModelFacts {
    /// Whether the model is an alternative to one that is down. A full queue does not matter: it may have room in a
    /// moment.
    fn is_alternative(self) -> bool {
        let takes_calls = match self.readiness {
            ModelReadiness::Ready | ModelReadiness::Trial { .. } => true,
            ModelReadiness::Down { .. } | ModelReadiness::LeftAlone { .. } => false,
        };
        takes_calls && self.refusal.is_none() && self.room != Room::Never
    }
}

/// A candidate that a call enters.
#[derive(Debug)]
pub(super) struct Entered<R> {
    pub(super) live: LiveModel,
    /// What `render` returned for this model.
    pub(super) rendered: R,
    /// Why all of the model's servers are failing. `None`: at least one takes calls.
    pub(super) degraded: Option<Reason>,
}

/// The candidates of one decision in their current state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prospect<'a> {
    pub(super) catalog: &'a Arc<Catalog>,
    pub(super) decision: &'a Decision,
    pub(super) models: &'a LiveModels,
}

impl<'a> Prospect<'a> {
    /// Decides whether a call enters `candidate`. `reached` is the number of candidates up to and including this one;
    /// `render` builds the request for the model.
    ///
    /// # Errors
    ///
    /// Why the candidate is passed over.
    pub(super) fn consider<R>(
        &self,
        candidate: &Candidate<'_>,
        reached: usize,
        render: impl FnOnce(&CompiledModel) -> Result<R, CallError>,
    ) -> Result<Entered<R>, CallError> {
        let facts = candidate.model.map(|model| {
            let live = self.models.of(model);
            let facts = self.facts(candidate, &live);
            (live, facts)
        });
        decide(self.decision, candidate.name, facts, || self.has_other(reached), render)
    }

    /// Whether a candidate after the first `reached` ones takes calls.
    pub(super) fn has_other(&self, reached: usize) -> bool {
        let mut others = self.catalog.candidates(self.decision).skip(reached);
        others.any(|other| {
            other
                .model
                .is_ok_and(|model| self.facts(&other, &self.models.of(model)).is_alternative())
        })
    }

    /// Returns the party that a call counts for at `candidate`.
    pub(super) const fn party(&self, candidate: &Candidate<'_>) -> Party {
        Party {
            feature: self.decision.source_feature,
            has_reservation: candidate.has_reservation(),
        }
    }

    fn facts(&self, candidate: &Candidate<'_>, live: &LiveModel) -> ModelFacts {
        let (refusal, room) = live.at_gate(self.catalog, self.party(candidate));
        ModelFacts {
            readiness: live.readiness(),
            refusal,
            room,
        }
    }
}

/// Decides whether a call enters a candidate. The error says why it is passed over.
fn decide<R>(
    decision: &Decision,
    name: &ModelName,
    facts: Result<(LiveModel, ModelFacts), Unusable>,
    has_other: impl FnOnce() -> bool,
    render: impl FnOnce(&CompiledModel) -> Result<R, CallError>,
) -> Result<Entered<R>, CallError> {
    let (live, facts) = facts.map_err(|why| CallRefusal::Unusable {
        feature: decision.feature,
        model: name.clone(),
        why,
    })?;
    let model = &live.model;
    let degraded = match facts.readiness {
        ModelReadiness::LeftAlone { reason, pause } => return Err(ejected(model, reason, pause)),
        ModelReadiness::Down { reason } if has_other() => return Err(ejected(model, reason, RETRY)),
        // Without an alternative, calls use its failing servers as if they were healthy.
        ModelReadiness::Down { reason } | ModelReadiness::Trial { reason } => Some(reason),
        ModelReadiness::Ready => None,
    };
    let rendered = render(model)?;
    if let Some(status) = facts.refusal {
        return Err(refused(status));
    }
    match facts.room {
        Room::Open => Ok(Entered {
            live,
            rendered,
            degraded,
        }),
        Room::Full | Room::Never => Err(full(model)),
    }
}

/// Error for a model whose servers take no calls at the moment.
pub(super) fn ejected(model: &CompiledModel, reason: Reason, pause: Duration) -> CallError {
    CallError::Refused(CallRefusal::Ejected {
        model: model.name.clone(),
        reason,
        pause,
    })
}

/// Error for a model whose credential was refused with this HTTP status.
pub(super) fn refused(status: u16) -> CallError {
    UpstreamError::CredentialRejected(status).into()
}

/// Error for a model without a place for the call.
pub(super) fn full(model: &CompiledModel) -> CallError {
    CallError::Refused(CallRefusal::Overloaded {
        model: model.name.clone(),
        limit: model.spec.limits.max_concurrency.map_or(0, Count::count),
    })
}
