//! One attempt: a server of the model where a walk stands, and how long it may take.

use std::{sync::Arc, time::Duration};

use switchboard::{resource::model::Timeout, service::request_id::RequestId};
use tokio::time::Instant;

use super::{ATTEMPTS_MAX, Choosing, Stop, Walk};
use crate::{
    call::{CallError, Selected},
    catalog::Model,
    endpoints::{Ask, InFlight, Verdict, Work},
    upstream::{Outgoing, UpstreamError, dialect::Post},
};

/// One attempt, ready to go out.
#[derive(Debug)]
pub struct Attempt {
    /// Who is called, and why. It is told when the attempt answers.
    pub selected: Selected,
    /// What is sent.
    pub post: Arc<Post>,
    /// From now to the first token, where there is one before the end.
    pub first_token: Duration,
    /// Whether that is less than the model allows.
    pub is_hurried: bool,
    /// Between two events.
    pub idle: Duration,
    /// When the call must be over on this model.
    pub deadline: Instant,
    /// What the server is to be told of it.
    pub in_flight: InFlight,
}

impl Attempt {
    /// Where it goes.
    #[must_use]
    pub fn outgoing<'a>(&'a self, request_id: &'a RequestId) -> Outgoing<'a> {
        let Selected { model, endpoint, .. } = &self.selected;
        Outgoing {
            endpoint: &endpoint.uri,
            address: self.selected.address,
            identifier: &self.selected.identifier,
            credential: model.credential.as_deref(),
            tls: model.tls.as_ref(),
            connect_timeout: model.spec.limits.connect_timeout.map(Timeout::get),
            request_id,
        }
    }

    /// Says what its end says of the server, if it says anything.
    pub(in crate::call) fn judge(&mut self, error: Option<&CallError>) {
        let verdict = match error {
            None => Some(Verdict::Answered),
            // The caller's deadline, or what is left for others, did not give it the time that its model allows.
            Some(CallError::Upstream(UpstreamError::FirstTokenTimeout(_))) if self.is_hurried => Some(Verdict::Late),
            Some(CallError::Upstream(error)) => error.verdict(),
            Some(CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal) => None,
        };
        if let Some(verdict) = verdict {
            self.in_flight.judge(verdict);
        }
    }
}

impl Walk {
    /// An attempt on a server of the model where the walk stands that was not tried yet.
    pub(super) fn try_another_server(&mut self) -> Option<Attempt> {
        let stop = self.stop.as_ref()?;
        let model = Arc::clone(&stop.model);
        let deadline = self.deadline_on(&model);
        let Choosing { endpoints, key, shape } = &self.choosing;
        let ask = Ask {
            key: *key,
            tried: &stop.tried,
            work: Work {
                shape: *shape,
                bytes: stop.post.bytes(),
            },
            deadline,
            may_be_degraded: false,
        };
        let at_worst = || Ask {
            may_be_degraded: !self.has_other_model(),
            ..ask
        };
        let chosen = endpoints
            .choose(&model, &ask)
            .or_else(|| endpoints.choose(&model, &at_worst()))?;
        let endpoint = model.spec.servers().get(chosen.endpoint)?.clone();
        let stop = self.stop.as_mut()?;
        stop.tried.push(chosen.id);
        self.attempts += 1;
        let stop = self.stop.as_ref()?;
        self.about = Some(model.name.clone());
        let first_token = model
            .spec
            .limits
            .first_token_timeout
            .map_or(self.limits.first_token, Timeout::get);
        let left = deadline.saturating_duration_since(Instant::now());
        // Half of the time is for whoever would be tried next.
        let first_token_now = if self.could_go_on(stop) {
            first_token.min(left / 2)
        } else {
            first_token
        };
        let idle = model
            .spec
            .limits
            .idle_timeout
            .map_or(self.limits.patience.idle, Timeout::get);
        Some(Attempt {
            selected: Selected {
                feature: self.decision.feature,
                source_feature: self.decision.source_feature,
                identifier: identifier(&model, chosen.listed),
                model,
                endpoint,
                address: chosen.address,
                is_degraded: chosen.is_degraded,
                reason: stop.reason,
                rule: self.catalog.rule(&self.decision).map(|rule| rule.id.clone()),
                revision: self.catalog.cursor.revision,
                attempts: self.attempts,
            },
            post: Arc::clone(&stop.post),
            first_token: first_token_now,
            is_hurried: first_token_now < first_token,
            idle,
            deadline,
            in_flight: chosen.in_flight,
        })
    }

    /// Whether another attempt could follow the one that is being made.
    fn could_go_on(&self, stop: &Stop) -> bool {
        let has_server = || self.choosing.endpoints.has_another(&stop.model, &stop.tried);
        self.attempts < ATTEMPTS_MAX && (has_server() || self.has_other_model())
    }

    pub(super) fn deadline_on(&self, model: &Model) -> Instant {
        let total = model.spec.limits.total_timeout.map_or(self.limits.total, Timeout::get);
        self.begun + self.budget.min(total)
    }
}

/// The name by which a server knows a model, whose model list tells `listed`.
fn identifier(model: &Model, listed: Option<Arc<str>>) -> Arc<str> {
    match (&model.spec.identifier, listed) {
        (None, Some(listed)) => listed,
        (_, listed) => model.identifier_or(listed.as_deref()).into(),
    }
}
