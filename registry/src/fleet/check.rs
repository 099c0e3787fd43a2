//! Checks of models: what a router is asked, what it answers, and the asking itself.
//!
//! A check is under way while whoever asked waits for it. All that there is of it lives as long: its place among the
//! router's checks, the API token that only this check may fetch, and the right of the router's stream to answer it.

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

/// The most checks of one router that are under way.
pub const RUNNING_MAX: usize = 16;

/// A check that a router is to make.
#[derive(Debug, Clone)]
pub struct CheckOrder {
    /// Names it; unguessable.
    pub id: CheckId,
    /// What to check.
    pub target: CheckedModel,
    /// The credential to fetch for it.
    pub credential: Option<CredentialId>,
    /// By when the router is to be done.
    pub until: Instant,
}

/// What is checked.
#[derive(Debug, Clone)]
pub enum CheckedModel {
    /// A model as it is registered: the router has it.
    Registered(ModelName),
    /// One that is not saved.
    Unsaved(Arc<Unsaved>),
}

/// A model that is not saved.
#[derive(Debug)]
pub struct Unsaved {
    /// As it would be saved.
    pub model: Model,
    /// Whether its name is the one that it would have: it may have none yet.
    pub is_named: bool,
    /// Whether the stored API token is not for its origins.
    pub is_token_dropped: bool,
}

/// Why a router cannot be asked, or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Its stream has ended.
    #[error("the router has left")]
    Gone,
    /// It has as many checks as it may.
    #[error("the router has {RUNNING_MAX} checks to make already")]
    Busy,
}

/// The checks that are under way, by the streams of their routers.
#[derive(Debug, Default)]
pub(super) struct RunningChecks(Mutex<HashMap<u64, BTreeMap<CheckId, RunningCheck>>>);

#[derive(Debug)]
struct RunningCheck {
    findings: oneshot::Sender<Findings>,
    /// What the router may fetch, once.
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

    /// The stream has ended: whoever waits for it is told.
    pub(super) fn forget(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// Hands findings to whoever waits for them. What comes too late, or from another stream, is nobody's.
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

/// A check that is under way. Dropped, it is over, whatever the router does.
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
    /// [`AskError::Gone`] when the router's stream ends first.
    ///
    /// # Cancel safety
    ///
    /// Safe: the answer can be waited for again.
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
    /// Has a router make a check until a time. Of `credential` it may fetch the token, once.
    ///
    /// # Errors
    ///
    /// [`AskError`] when the router is not connected, or has as many checks as it may.
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
        // Before `asking` may end, which has no use for them.
        drop(streams);
        match sent {
            Ok(()) => Ok(asking),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AskError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AskError::Gone),
        }
    }

    /// The credential of a check that is under way, once.
    #[must_use]
    pub fn take_credential(&self, check: CheckId, id: CredentialId) -> Option<SetCredential> {
        self.checks.take_credential(check, id)
    }
}

#[cfg(test)]
mod tests;
