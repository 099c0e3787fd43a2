//! Checks of models by routers: the orders, the findings, and the calls that wait for them.
//!
//! A check exists as long as its caller waits for it. Everything that belongs to it has the same lifetime: its slot
//! among the router's checks, the API token that only this check may fetch, and the permission of the router's stream
//! to answer it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use switchboard::{
    names::{CheckId, CredentialId, ModelName},
    resource::model::Model,
    stream::{EndpointCheck, Findings},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Fleet, RouterInstance};
use crate::domain::credential::SetCredential;

/// Maximum number of running checks of one router.
pub const RUNNING_MAX: usize = 16;

/// An order to a router to make a check.
#[derive(Debug, Clone)]
pub struct CheckOrder {
    /// Id of the check. It cannot be guessed.
    pub id: CheckId,
    /// The model to check.
    pub target: CheckedModel,
    /// Id of the credential that the router has to fetch. `None`: the check needs none, or the router has it already.
    pub credential: Option<CredentialId>,
    /// When the router must have finished.
    pub until: Instant,
}

/// The model that is checked.
#[derive(Debug, Clone)]
pub enum CheckedModel {
    /// A registered model, which the router already has.
    Registered(ModelName),
    /// A model that is not saved.
    Unsaved(Arc<Unsaved>),
}

/// A model that is not saved.
#[derive(Debug)]
pub struct Unsaved {
    /// The model as it would be saved.
    pub model: Model,
    /// Whether the caller gave a name or a display name. If not, both are made up.
    pub is_named: bool,
    /// Whether the stored API token was dropped because it may not be sent to all origins of the model.
    pub is_token_dropped: bool,
}

/// Why a router cannot be asked, or has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The router's stream has ended.
    #[error("the router has disconnected")]
    Gone,
    /// The router already runs the maximum number of checks.
    #[error("the router is already running {RUNNING_MAX} checks")]
    Busy,
}

/// The running checks, by the streams of their routers.
#[derive(Debug, Default)]
pub(super) struct RunningChecks(Mutex<HashMap<u64, BTreeMap<CheckId, RunningCheck>>>);

#[derive(Debug)]
struct RunningCheck {
    findings: oneshot::Sender<Findings>,
    /// The credential that the router may fetch once. `None`: there is none, or it was fetched.
    credential: Option<SetCredential>,
}

impl RunningChecks {
    fn begin(&self, stream: u64, id: CheckId, running: RunningCheck) -> Result<(), AskError> {
        let mut checks = self.lock();
        let of_router = checks.entry(stream).or_default();
        if of_router.len() >= RUNNING_MAX {
            return Err(AskError::Busy);
        }
        of_router.insert(id, running);
        Ok(())
    }

    fn end(&self, stream: u64, id: CheckId) -> Option<RunningCheck> {
        let mut checks = self.lock();
        let of_router = checks.get_mut(&stream)?;
        let running = of_router.remove(&id);
        if of_router.is_empty() {
            checks.remove(&stream);
        }
        running
    }

    /// Removes the checks of a stream that has ended. Their callers are notified.
    pub(super) fn forget(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// Passes findings to the caller that waits for them. Findings that arrive too late or from another stream are
    /// ignored.
    pub(super) fn answer(&self, stream: u64, findings: Findings) {
        if let Some(running) = self.end(stream, findings.id) {
            let _nobody_waits = running.findings.send(findings);
        }
    }

    fn take_credential(&self, check: CheckId, id: CredentialId) -> Option<SetCredential> {
        let mut checks = self.lock();
        let running = checks.values_mut().find_map(|of_router| of_router.get_mut(&check))?;
        running.credential.take_if(|credential| credential.id == id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, BTreeMap<CheckId, RunningCheck>>> {
        self.0.lock()
    }
}

/// A running check. Dropping this ends the check, whatever the router does.
#[derive(Debug)]
pub struct Asking {
    fleet: Arc<Fleet>,
    stream: u64,
    id: CheckId,
    findings: oneshot::Receiver<Findings>,
}

impl Asking {
    /// Waits for the router's answer.
    ///
    /// # Errors
    ///
    /// [`AskError::Gone`] if the router's stream ends first.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the method can be called again.
    pub async fn findings(&mut self) -> Result<Vec<EndpointCheck>, AskError> {
        let findings = (&mut self.findings).await.map_err(|_ended| AskError::Gone)?;
        Ok(findings.endpoints)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.fleet.checks.end(self.stream, self.id);
    }
}

impl Fleet {
    /// Asks a router to make a check until a time. The router may fetch the token of `credential` once.
    ///
    /// # Errors
    ///
    /// [`AskError`] if the router is not connected, or already runs the maximum number of checks.
    pub fn ask(
        self: &Arc<Self>,
        router: &RouterInstance,
        target: CheckedModel,
        credential: Option<SetCredential>,
        until: Instant,
    ) -> Result<Asking, AskError> {
        let (sender, findings) = oneshot::channel();
        let order = CheckOrder {
            id: CheckId::random(),
            target,
            credential: credential.as_ref().map(|credential| credential.id),
            until,
        };
        let running = RunningCheck {
            findings: sender,
            credential,
        };
        let streams = self.lock();
        let connected = streams.by_router.get(router).ok_or(AskError::Gone)?;
        self.checks.begin(connected.stream, order.id, running)?;
        let asking = Asking {
            fleet: Arc::clone(self),
            stream: connected.stream,
            id: order.id,
            findings,
        };
        let sent = connected.orders.try_send(order);
        // The lock is released before `asking` can be dropped, whose destructor does not need it.
        drop(streams);
        match sent {
            Ok(()) => Ok(asking),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AskError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AskError::Gone),
        }
    }

    /// Returns the credential of a running check, once.
    #[must_use]
    pub fn take_credential(&self, check: CheckId, id: CredentialId) -> Option<SetCredential> {
        self.checks.take_credential(check, id)
    }
}

#[cfg(test)]
mod tests;
