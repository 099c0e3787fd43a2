//! Repeats a call with a newer credential of its model after the first one was refused.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{ATTEMPTS_MAX, Walk};
use crate::{
    call::deadline::BUDGET_MIN,
    catalog::{Candidate, Catalog, CompiledModel, ModelState},
};

/// How long a call waits for a newer credential, which may be on its way.
const NEWER_CREDENTIAL: Duration = Duration::from_secs(1);

impl Walk {
    /// After a refused credential, enters the same model again with a newer one, if that arrives in time. If none
    /// arrives, calls pass the model over for a while. Returns whether the model was entered.
    pub(super) async fn renew(&mut self) -> bool {
        let Some((live, status)) = self.refused.take() else {
            return false;
        };
        let model = &live.model;
        let credential = |model: &CompiledModel| model.credential.as_ref().map(|credential| credential.id);
        let newer = |catalog: &Catalog| match catalog.models.get(&model.name)? {
            ModelState::Ready(now) => (credential(now) != credential(model)).then(|| Arc::clone(now)),
            ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
        };
        let may_repeat = !self.is_renewed && self.attempts < ATTEMPTS_MAX;
        let patience = if may_repeat { NEWER_CREDENTIAL } else { Duration::ZERO };
        let until = (Instant::now() + patience).min(self.deadline_on(model) - BUDGET_MIN);
        let Ok(newer) = timeout_at(until, self.current.until(newer)).await else {
            live.refuse(status);
            return false;
        };
        let catalog = Arc::clone(&self.catalog);
        let mut candidates = catalog.candidates(&self.decision);
        let candidate = candidates.find(|candidate| *candidate.name == newer.name);
        let Some(candidate) = candidate.filter(|_| may_repeat) else {
            return false;
        };
        self.is_renewed = true;
        let model = Ok(&newer);
        self.stop = self.enter(&Candidate { model, ..candidate }).await.ok();
        self.stop.is_some()
    }
}
