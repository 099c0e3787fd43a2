//! Chooses the server of the current model that is called next, and sets the attempt's time limits.

use std::sync::Arc;

use switchboard::{
    resource::model::{Endpoint, Timeout},
    service::request_id::RequestId,
};
use tokio::time::Instant;

use super::{ATTEMPTS_MAX, Choosing, Stop, Walk};
use crate::{
    call::{
        Calls, Selected,
        attempt::{Attempt, AttemptLimits},
    },
    catalog::CompiledModel,
    endpoints::{Ask, Work},
    live::Chosen,
};

/// A server that was chosen for the next attempt. Dropping it makes it available to other calls.
pub(super) struct NextServer {
    chosen: Chosen,
    endpoint: Endpoint,
}

impl Walk {
    /// Chooses a server of the current model that was not tried yet.
    pub(super) fn next_server(&self) -> Option<NextServer> {
        let stop = self.stop.as_ref()?;
        let Choosing { key, shape, .. } = &self.choosing;
        let ask = Ask {
            key: *key,
            tried: &stop.tried,
            work: Work {
                shape: *shape,
                bytes: stop.post.bytes(),
            },
            deadline: self.deadline_on(&stop.live.model),
            may_be_degraded: false,
        };
        let at_worst = || Ask {
            may_be_degraded: !self.has_other_model(),
            ..ask
        };
        let chosen = stop.live.choose(&ask).or_else(|| stop.live.choose(&at_worst()))?;
        let endpoint = stop.live.model.spec.servers().get(chosen.endpoint)?.clone();
        Some(NextServer { chosen, endpoint })
    }

    /// Begins an attempt at a server of the current model. The attempt must be paid for already.
    pub(super) fn begin<'a>(
        &mut self,
        calls: &'a Calls,
        request_id: &'a RequestId,
        server: NextServer,
    ) -> Option<Attempt<'a>> {
        let NextServer { chosen, endpoint } = server;
        let stop = self.stop.as_mut()?;
        stop.tried.push(chosen.id);
        self.attempts += 1;
        let stop = self.stop.as_ref()?;
        let model = Arc::clone(&stop.live.model);
        self.about = Some(model.name.clone());
        let deadline = self.deadline_on(&model);
        let given = &model.spec.limits;
        let allowed = given.first_token_timeout.map_or(self.limits.first_token, Timeout::get);
        let left = deadline.saturating_duration_since(Instant::now());
        // Half of the remaining time is kept for the next attempt.
        let first_token = if self.could_go_on(stop) {
            allowed.min(left / 2)
        } else {
            allowed
        };
        let limits = AttemptLimits {
            first_token,
            is_hurried: first_token < allowed,
            idle: given.idle_timeout.map_or(self.limits.patience.idle, Timeout::get),
            deadline,
        };
        let post = Arc::clone(&stop.post);
        let selected = Selected {
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
        };
        Some(Attempt::begin(
            calls,
            request_id,
            selected,
            post,
            limits,
            chosen.in_flight,
        ))
    }

    /// Whether another attempt could follow the current one.
    fn could_go_on(&self, stop: &Stop) -> bool {
        let has_server = || stop.live.has_another(&stop.tried);
        self.attempts < ATTEMPTS_MAX && (has_server() || self.has_other_model())
    }

    pub(super) fn deadline_on(&self, model: &CompiledModel) -> Instant {
        let total = model.spec.limits.total_timeout.map_or(self.limits.total, Timeout::get);
        self.begun + self.budget.min(total)
    }
}

/// Returns the name by which a server knows a model. `listed` is the model's name in the server's model list.
fn identifier(model: &CompiledModel, listed: Option<Arc<str>>) -> Arc<str> {
    match (&model.spec.identifier, listed) {
        (None, Some(listed)) => listed,
        (_, listed) => model.identifier_or(listed.as_deref()).into(),
    }
}
