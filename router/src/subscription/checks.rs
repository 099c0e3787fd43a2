//! Runs the checks that the registry requests, each in a task of its own. Its answer is sent on the stream that
//! requested it.

use std::sync::Arc;

use switchboard::{
    names::{CheckId, CredentialId, ModelName, Revision},
    reason::Reason,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, debug, debug_span, warn};

use super::{
    compile, credentials,
    order::{CheckAnswer, RequestedCheck, RequestedTarget},
    received::Received,
    resource::{Content, CredentialSpec, Refusal},
    surroundings::Connection,
};
use crate::{
    catalog::{Catalog, Credential, ModelState},
    check::{CheckCredential, CheckedServers, Checker, Finding, Spec},
};

/// Maximum number of checks in progress, including those that wait: as many as a registry requests of one router.
pub(super) const CHECKS_MAX: usize = 16;

/// Everything that a check needs.
pub(super) struct Basis<C> {
    pub(super) checker: Checker,
    pub(super) connection: C,
    pub(super) received: Option<Arc<Received>>,
    pub(super) catalog: Option<Arc<Catalog>>,
}

/// The checks in progress.
#[derive(Debug, Default)]
pub(super) struct CheckTasks(JoinSet<()>);

impl CheckTasks {
    /// Starts a check. Its answer goes to `answers`, or is dropped if that stream has ended by then.
    pub(super) fn begin<C: Connection>(
        &mut self,
        order: RequestedCheck,
        basis: Basis<C>,
        answers: mpsc::Sender<CheckAnswer>,
    ) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() >= CHECKS_MAX {
            // The registry counts them as well, and reports the limit to the administrator.
            warn!("a check was ignored: {CHECKS_MAX} checks are already in progress");
            return;
        }
        let check = async move {
            let revision = basis
                .received
                .as_ref()
                .map_or(Revision::ZERO, |received| received.cursor().revision);
            let id = order.id;
            let findings = make(order, basis).await;
            debug!(endpoints = findings.len(), "a check has finished");
            let answer = CheckAnswer { id, revision, findings };
            let _stream_ended = answers.send(answer).await;
        };
        self.0.spawn(check.instrument(debug_span!("check")));
    }
}

async fn make<C: Connection>(order: RequestedCheck, basis: Basis<C>) -> Vec<Finding> {
    let deadline = Instant::now() + order.timeout;
    let wanted = match order.target {
        RequestedTarget::Registered(name) => registered(&name, basis.received.as_deref(), basis.catalog.as_deref()),
        RequestedTarget::Unsaved {
            spec,
            credential,
            is_token_dropped,
        } => spec.map_err(|refusal| unusable(&refusal)).map(|spec| {
            let wanted = match credential {
                Some(id) => NeededCredential::OfCheck(order.id, id),
                None if is_token_dropped => NeededCredential::Known(CheckCredential::Dropped),
                None => NeededCredential::Known(CheckCredential::None),
            };
            (*spec, wanted)
        }),
    };
    let (spec, wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(finding) => return vec![*finding],
    };
    let fetched = match wanted {
        NeededCredential::Known(known) => Ok(known),
        NeededCredential::OfModel(wanted) => {
            let fetching = timeout_at(deadline, credentials::fetch(basis.connection, wanted)).await;
            fetching
                .map_err(drop)
                .and_then(|fetched| fetched.map_err(drop))
                .map(set)
        }
        NeededCredential::OfCheck(check, id) => {
            let fetching = timeout_at(deadline, credentials::fetch_for_check(basis.connection, check, id)).await;
            fetching
                .map_err(drop)
                .and_then(|fetched| fetched.map_err(drop))
                .map(set)
        }
    };
    let Ok(credential) = fetched else {
        return vec![Finding::unable(
            Reason::ModelNotReady,
            "the router could not fetch the API token from the registry",
            "check again; if the error persists, look at the router's log",
        )];
    };
    basis
        .checker
        .check(&CheckedServers { spec, credential }, deadline)
        .await
}

fn set(credential: Credential) -> CheckCredential {
    CheckCredential::Set(Arc::new(credential))
}

/// The source of a check's credential.
enum NeededCredential {
    /// The credential is already available.
    Known(CheckCredential),
    /// The credential of a registered model, which has to be fetched.
    OfModel(compile::WantedCredential),
    /// The check's own credential, which has to be fetched.
    OfCheck(CheckId, CredentialId),
}

/// Returns the newest received version of a model, whether or not it is in use.
fn registered(
    name: &ModelName,
    received: Option<&Received>,
    catalog: Option<&Catalog>,
) -> Result<(Spec, NeededCredential), Box<Finding>> {
    let resource = received.and_then(|received| received.resources().get(name.to_string().as_str()));
    let Some(Content::Model(_, content)) = resource.map(|resource| &resource.content) else {
        return Err(Box::new(Finding::unable(
            Reason::ModelNotReady,
            "the router has not received the model yet",
            "check again in a moment; `ConfigService/ListRouters` shows the revision that the router has received",
        )));
    };
    let spec = content.spec.as_ref().map_err(unusable)?;
    let wanted = match &content.credential {
        Some(CredentialSpec::None) | None => NeededCredential::Known(CheckCredential::None),
        Some(CredentialSpec::Dropped) => NeededCredential::Known(CheckCredential::Dropped),
        Some(CredentialSpec::Set(wanted)) => match in_use(catalog, name, wanted.id) {
            Some(credential) => NeededCredential::Known(CheckCredential::Set(credential)),
            None => NeededCredential::OfModel(compile::WantedCredential {
                model: name.clone(),
                credential: wanted.clone(),
            }),
        },
    };
    Ok((Spec::new(spec, Some(name)), wanted))
}

/// Returns a credential that calls already use.
fn in_use(catalog: Option<&Catalog>, name: &ModelName, id: CredentialId) -> Option<Arc<Credential>> {
    match catalog?.models.get(name)? {
        ModelState::Ready(model) => model.credential.clone().filter(|credential| credential.id == id),
        ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
    }
}

fn unusable(refusal: &Refusal) -> Box<Finding> {
    Box::new(Finding::unable(
        Reason::ModelNotReady,
        format!("the router cannot use the model: {refusal}"),
        "update router and registry to the same release, or fix the field",
    ))
}
