//! Models whose credential their server does not accept. They are not called with it for a while; then one call tries.
//!
//! It is the credential that is refused: with another one the model is called at once. Pure.

use std::{collections::HashMap, time::Duration};

use switchboard::names::{CredentialId, ModelName};
use tokio::time::Instant;

use crate::catalog::Model;

/// How long a model is not called.
const REFUSED: Duration = Duration::from_secs(30);
/// How long the one call that tries keeps others from it.
const TRIAL: Duration = Duration::from_secs(10);
/// What was not refused again for so long is forgotten.
const KEPT: Duration = Duration::from_secs(600);

/// One refusal a model: the newest.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<ModelName, CredentialRefusal>);

#[derive(Debug)]
struct CredentialRefusal {
    credential: Option<CredentialId>,
    /// The HTTP status that told it.
    status: u16,
    until: Instant,
}

impl Refusals {
    /// The status of the refusal for which a call must pass a model over now.
    pub(super) fn check(&self, model: &Model, now: Instant) -> Option<u16> {
        let refusal = self.0.get(&model.name)?;
        (refusal.credential == id(model) && now < refusal.until).then_some(refusal.status)
    }

    /// As [`Self::check`], for a call that goes on to the model: while it tries others do not.
    pub(super) fn admit(&mut self, model: &Model, now: Instant) -> Result<(), u16> {
        if self.0.is_empty() {
            return Ok(());
        }
        if let Some(status) = self.check(model, now) {
            return Err(status);
        }
        let refusal = self.0.get_mut(&model.name);
        if let Some(refusal) = refusal.filter(|refusal| refusal.credential == id(model)) {
            refusal.until = now + TRIAL;
        }
        Ok(())
    }

    /// The model's credential was not accepted, and there is no newer one.
    pub(super) fn refuse(&mut self, model: &Model, status: u16, now: Instant) {
        self.0.retain(|_, refusal| now < refusal.until + KEPT);
        let refusal = CredentialRefusal {
            credential: id(model),
            status,
            until: now + REFUSED,
        };
        self.0.insert(model.name.clone(), refusal);
    }

    /// The model's credential was accepted.
    pub(super) fn accept(&mut self, model: &Model) {
        if self
            .0
            .get(&model.name)
            .is_some_and(|refusal| refusal.credential == id(model))
        {
            self.0.remove(&model.name);
        }
    }
}

fn id(model: &Model) -> Option<CredentialId> {
    model.credential.as_ref().map(|credential| credential.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::call::permits::tests::{catalog, credential};

    #[test]
    fn a_refused_model_is_tried_by_one_call_after_half_a_minute() {
        let (_, model) = catalog(1, 1, 1, 0);
        let model = Model {
            credential: Some(Arc::new(credential())),
            ..Model::clone(&model)
        };
        let renewed = Model {
            credential: Some(Arc::new(credential())),
            ..model.clone()
        };
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        assert_eq!(refusals.admit(&model, begun), Ok(()));
        refusals.refuse(&model, 401, begun);
        assert_eq!(refusals.admit(&model, after(29)), Err(401));
        assert_eq!(
            refusals.admit(&renewed, after(29)),
            Ok(()),
            "it is the credential that is refused"
        );
        assert_eq!(refusals.check(&model, after(30)), None);
        assert_eq!(refusals.admit(&model, after(30)), Ok(()));
        assert_eq!(refusals.admit(&model, after(31)), Err(401), "one call tries");
        // It went without an answer: another may try.
        assert_eq!(refusals.admit(&model, after(40)), Ok(()));
        refusals.refuse(&model, 403, after(41));
        assert_eq!(refusals.admit(&model, after(70)), Err(403));
        refusals.accept(&renewed);
        assert_eq!(refusals.check(&model, after(70)), Some(403));
        refusals.accept(&model);
        assert_eq!(refusals.check(&model, after(70)), None);
        assert!(refusals.0.is_empty());
    }
}
