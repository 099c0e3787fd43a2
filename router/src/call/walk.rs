//! Decides which attempts a call makes: candidate after candidate, server after server, until one answers.
//!
//! The one hard idea: passing over a candidate is not an attempt. A call makes only a few attempts, all before its
//! first token and within its deadline. The error of a failed attempt decides whether another attempt may follow, and
//! where.
#![warn(clippy::wildcard_enum_match_arm)]

mod hedge;
mod renew;
mod server;

use std::{sync::Arc, time::Duration};

use switchboard::{
    names::ModelName,
    reason::Reason,
    resource::model::Count,
    service::{chain::Chain, request_id::RequestId},
};
use tokio::time::Instant;

use super::{
    CallError, CallLimits, CallRefusal, Calls,
    attempt::{Attempt, FailedAttempt},
    considered::{Considered, Outcome},
    deadline::BUDGET_MIN,
    entry::{self, Prospect},
    failure::{CallContext, CallFailure},
};
use crate::{
    catalog::{Candidate, Catalog, CompiledModel, Decision, SelectionReason},
    current::Current,
    endpoints::{ModelReadiness, ServerId, Shape},
    live::{LiveModel, LiveModels, RetryBudget, Slot},
    permits::{FeaturePermit, Overloaded},
    prompt::{self, PromptTarget, Request},
    upstream::{
        dialect::{self, Post},
        fault::{Repeat, RepeatCost},
    },
};

pub(super) use self::hedge::Hedge;

/// The maximum number of attempts of one call.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// What the choice of a server depends on.
#[derive(Debug)]
pub(super) struct Choosing {
    /// Run-time state of the models.
    pub(super) models: LiveModels,
    /// Affinity key: calls with the same key prefer the same server. `None`: no preference.
    pub(super) key: Option<u64>,
    /// Whether the answer is streamed or comes as a whole.
    pub(super) shape: Shape,
}

/// The candidates of one call, tried in order. It holds the place at the current model, which is the one being tried.
#[derive(Debug)]
pub(super) struct Walk {
    catalog: Arc<Catalog>,
    decision: Decision,
    request: Request,
    current: Arc<Current>,
    choosing: Choosing,
    /// Retry budget of the model that the call was resolved to. `None`: it was resolved to no model.
    retries: Option<RetryBudget>,
    limits: CallLimits,
    begun: Instant,
    budget: Duration,
    /// Number of candidates that were reached, including the current one.
    reached: usize,
    stop: Option<Stop>,
    attempts: u32,
    /// Outcomes of the candidates that were reached, in order. The current one is in it once an attempt there has
    /// failed.
    outcomes: Vec<Outcome>,
    /// If the last attempt's credential was refused: the model, and the HTTP status of the refusal.
    refused: Option<(LiveModel, u16)>,
    /// Whether the current model is called with a newer credential than that of the catalog.
    is_renewed: bool,
    /// The model of the last attempt, if that attempt cost its server work: then the next one is charged to the retry
    /// budget.
    owed_for: Option<ModelName>,
    /// The model that the error at the end of the walk is about.
    about: Option<ModelName>,
    /// Why the last attempt failed, and why a candidate was first passed over.
    last: Option<CallError>,
    first: Option<CallError>,
    /// Counts the call against its feature's limit as long as the walk exists.
    _permit: FeaturePermit,
}

/// The current model of a walk.
#[derive(Debug)]
struct Stop {
    live: LiveModel,
    reason: SelectionReason,
    post: Arc<Post>,
    tried: Vec<ServerId>,
    _slot: Slot,
}

impl Walk {
    /// Creates the walk of a call through the candidates of `decision`, which `catalog` made. The call may take
    /// `budget` from now on.
    #[must_use]
    pub(super) fn new(
        calls: &Calls,
        catalog: Arc<Catalog>,
        decision: Decision,
        request: Request,
        choosing: Choosing,
        permit: FeaturePermit,
        budget: Duration,
    ) -> Self {
        let resolved_to = catalog.candidates(&decision).next();
        Self {
            retries: resolved_to.map(|candidate| choosing.models.budget(candidate.name)),
            catalog,
            decision,
            request,
            current: Arc::clone(&calls.current),
            choosing,
            limits: calls.limits,
            begun: Instant::now(),
            budget,
            reached: 0,
            stop: None,
            attempts: 0,
            outcomes: Vec::new(),
            refused: None,
            is_renewed: false,
            owed_for: None,
            about: None,
            last: None,
            first: None,
            _permit: permit,
        }
    }

    /// Begins the next attempt of the call `request_id`. It waits for a place at the model.
    ///
    /// # Errors
    ///
    /// If nothing is left to try, or the retry budget is used up: the error of the last attempt. If there was no
    /// attempt: the reason why a candidate was first passed over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the model's queue. The walk must not be used afterwards.
    pub(super) async fn next<'a>(
        &mut self,
        calls: &'a Calls,
        request_id: &'a RequestId,
    ) -> Result<Attempt<'a>, CallError> {
        let catalog = Arc::clone(&self.catalog);
        loop {
            if self.attempts < ATTEMPTS_MAX
                && let Some(server) = self.next_server()
            {
                self.pay()?;
                return self.begin(calls, request_id, server).ok_or(CallError::Internal);
            }
            // This gives back the place at the current model before the call waits for one at another model.
            if let Some(stop) = self.stop.take().filter(|stop| stop.tried.is_empty()) {
                // No server was tried: the model's last one failed while the call waited for its place.
                let (reason, pause) = match stop.live.readiness() {
                    ModelReadiness::Down { reason } => (reason, entry::RETRY),
                    ModelReadiness::LeftAlone { reason, pause } => (reason, pause),
                    // A server is back by now, but this call goes to the next candidate all the same.
                    ModelReadiness::Ready | ModelReadiness::Trial { .. } => (Reason::UpstreamServerError, entry::RETRY),
                };
                self.passed_over(&stop.live.model.name, entry::ejected(&stop.live.model, reason, pause));
            }
            if self.renew().await {
                continue;
            }
            let candidate = catalog.candidates(&self.decision).nth(self.reached);
            let Some(candidate) = candidate.filter(|_| self.attempts < ATTEMPTS_MAX) else {
                return Err(self
                    .last
                    .take()
                    .or_else(|| self.first.take())
                    .unwrap_or(CallError::Internal));
            };
            self.reached += 1;
            self.is_renewed = false;
            match self.enter(&candidate).await {
                Ok(stop) => self.stop = Some(stop),
                Err(error) => self.passed_over(candidate.name, error),
            }
        }
    }

    /// Records that a candidate was passed over.
    fn passed_over(&mut self, model: &ModelName, error: CallError) {
        self.outcomes.truncate(self.reached.saturating_sub(1));
        self.outcomes.push(Outcome::from(&error));
        self.about.get_or_insert_with(|| model.clone());
        self.first.get_or_insert(error);
    }

    /// Decides whether another attempt may follow one that failed before its first token.
    ///
    /// # Errors
    ///
    /// The attempt's error, if no other attempt may follow.
    pub(super) fn failed(&mut self, failed: FailedAttempt) -> Result<(), CallError> {
        let FailedAttempt { selected, error } = failed;
        let model = selected.model;
        tracing::debug!(
            model.name = %model.name,
            upstream.addr = %selected.endpoint.uri.origin().host_and_port(),
            error = %Chain(&error),
            "an attempt has failed"
        );
        // A model has one outcome: that of its last attempt.
        self.outcomes.truncate(self.reached.saturating_sub(1));
        self.outcomes.push(Outcome::from(&error));
        let CallError::Upstream(of_server) = &error else {
            return Err(error);
        };
        let is_free = match of_server.error.fault().repeat {
            Repeat::Never => return Err(error),
            Repeat::WithNewerCredential(status) => {
                self.stop = None;
                self.refused = Some((self.choosing.models.of(&model), status));
                true
            }
            Repeat::Elsewhere(cost) => cost == RepeatCost::Free,
        };
        self.owed_for = (!is_free).then(|| model.name.clone());
        self.last = Some(error);
        Ok(())
    }

    /// Gives back the place at the current model: its server is done, or the connection is closed.
    pub(super) fn leave(&mut self) {
        self.stop = None;
    }

    /// Returns when the whole call must be finished.
    #[must_use]
    pub(super) fn deadline(&self) -> Instant {
        self.begun + self.budget
    }

    /// Builds the failure of a call that ends here, after `sent` pieces of its answer were sent.
    #[must_use]
    pub(super) fn failure(&self, error: CallError, context: CallContext, sent: u64) -> CallFailure {
        CallFailure {
            error,
            context: CallContext {
                model: self.about.clone(),
                attempts: self.attempts,
                considered: if sent == 0 { self.considered() } else { Vec::new() },
                ..context
            },
            sent,
        }
    }

    /// Charges the next attempt to the retry budget of the model that the call was resolved to, if the previous attempt
    /// cost its server work. The first attempt counts as a call.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, if the budget is used up.
    fn pay(&mut self) -> Result<(), CallError> {
        let Some(retries) = &self.retries else {
            return Ok(());
        };
        if self.attempts == 0 {
            retries.called();
        }
        let Some(failed) = self.owed_for.take() else {
            return Ok(());
        };
        if retries.repeat() {
            return Ok(());
        }
        self.about = Some(failed);
        Err(self.last.take().unwrap_or(CallError::Internal))
    }

    /// Returns every candidate with its outcome.
    fn considered(&self) -> Vec<Considered> {
        let candidates = self.catalog.candidates(&self.decision);
        let numbered = candidates.enumerate();
        numbered
            .map(|(index, candidate)| {
                let untried = || candidate.model.err().map_or(Outcome::Standby, Outcome::from);
                let outcome = self.outcomes.get(index).cloned().unwrap_or_else(untried);
                Considered::new(&candidate, self.decision.source_feature, outcome)
            })
            .collect()
    }

    /// Enters a candidate model: renders the request for it and waits for a place.
    async fn enter(&self, candidate: &Candidate<'_>) -> Result<Stop, CallError> {
        let prospect = self.prospect();
        let entered = prospect.consider(candidate, self.reached, |model| self.render(model))?;
        let live = entered.live;
        live.admit().map_err(entry::refused)?;
        // With less time left, no attempt would begin.
        let until = self.deadline_on(&live.model) - BUDGET_MIN;
        let party = prospect.party(candidate);
        let slot = live.place(&self.catalog, party, until).await;
        Ok(Stop {
            reason: candidate.reason,
            post: Arc::new(entered.rendered),
            tried: Vec::new(),
            _slot: slot.map_err(|Overloaded| entry::full(&live.model))?,
            live,
        })
    }

    /// Renders and encodes the request for a model.
    fn render(&self, model: &CompiledModel) -> Result<Post, CallError> {
        let target = PromptTarget {
            family: model.spec.family,
            infill_mode: model.spec.infill_mode(),
            max_output_tokens: model.spec.limits.max_output_tokens.map(Count::get),
        };
        let prompt = prompt::render(&self.request, self.decision.feature, &target).map_err(CallRefusal::from)?;
        Ok(dialect::encode(
            &model.spec.platform,
            &prompt,
            &model.spec.family.machine_name,
        )?)
    }

    /// Whether a candidate that was not reached yet takes calls.
    fn has_other_model(&self) -> bool {
        self.prospect().has_other(self.reached)
    }

    const fn prospect(&self) -> Prospect<'_> {
        Prospect {
            catalog: &self.catalog,
            decision: &self.decision,
            models: &self.choosing.models,
        }
    }
}
