//! A credential that the model's servers refused. The model gets no calls with it for a while; then one call tries it
//! again.
//!
//! The refusal belongs to the credential: with another credential the model is called at once. Pure.

use std::time::Duration;

use switchboard::names::CredentialId;
use tokio::time::Instant;

use crate::catalog::CompiledModel;

/// How long the model gets no calls after a refusal.
const REFUSED: Duration = Duration::from_secs(30);
/// How long the one call that tries again keeps other calls from the model.
const TRIAL: Duration = Duration::from_secs(10);

/// The newest refusal of a model's credential.
#[derive(Debug)]
pub(super) struct CredentialRefusal {
    credential: Option<CredentialId>,
    /// The HTTP status of the refusal.
    status: u16,
    until: Instant,
}

impl CredentialRefusal {
    /// Creates the refusal of the model's credential. No newer credential is known.
    pub(super) fn new(model: &CompiledModel, status: u16, now: Instant) -> Self {
        Self {
            credential: id(model),
            status,
            until: now + REFUSED,
        }
    }

    /// Whether the credential of this version of the model is the refused one.
    pub(super) fn is_of(&self, model: &CompiledModel) -> bool {
        self.credential == id(model)
    }

    /// Returns the HTTP status for which a call must pass the model over now. `None`: it need not.
    pub(super) fn check(&self, model: &CompiledModel, now: Instant) -> Option<u16> {
        (self.is_of(model) && now < self.until).then_some(self.status)
    }

    /// Like [`Self::check`], for a call that goes to the model. While that call tries the credential, other calls do
    /// not.
    pub(super) fn admit(&mut self, model: &CompiledModel, now: Instant) -> Result<(), u16> {
        if let Some(status) = self.check(model, now) {
            return Err(status);
        }
        if self.is_of(model) {
            self.until = now + TRIAL;
        }
        Ok(())
    }
}

fn id(model: &CompiledModel) -> Option<CredentialId> {
    model.credential.as_ref().map(|credential| credential.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::permits::{
        Gate,
        fixture::{catalog, credential},
    };

    #[test]
    fn one_call_tries_a_refused_credential_again_after_30_seconds() {
        let (_, model) = catalog(1, 1, 1, 0);
        let model = CompiledModel {
            credential: Some(Arc::new(credential())),
            ..CompiledModel::clone(&model)
        };
        let renewed = CompiledModel {
            credential: Some(Arc::new(credential())),
            ..model.clone()
        };
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut gate = Gate::new(begun);
        assert_eq!(gate.admit(&model, begun), Ok(()));
        gate.refuse(&model, 401, begun);
        assert_eq!(gate.admit(&model, after(29)), Err(401));
        assert_eq!(
            gate.admit(&renewed, after(29)),
            Ok(()),
            "the refusal belongs to the old credential"
        );
        assert_eq!(gate.refusal(&model, after(30)), None);
        assert_eq!(gate.admit(&model, after(30)), Ok(()));
        assert_eq!(gate.admit(&model, after(31)), Err(401), "one call is trying it");
        // The trial ended without an answer: another call may try.
        assert_eq!(gate.admit(&model, after(40)), Ok(()));
        gate.refuse(&model, 403, after(41));
        assert_eq!(gate.admit(&model, after(70)), Err(403));
        gate.accept(&renewed);
        assert_eq!(gate.refusal(&model, after(70)), Some(403));
        gate.accept(&model);
        assert_eq!(gate.refusal(&model, after(70)), None);
    }
}
