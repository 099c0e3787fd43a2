//! Checks that the registry asks for: each is made aside, and its answer goes up the stream that asked.

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

/// The most checks that are under way, waiting ones included: as many as a registry has of one router.
pub(super) const CHECKS_MAX: usize = 16;

/// Whatever a check goes by.
pub(super) struct Basis<C> {
    pub(super) checker: Checker,
    pub(super) connection: C,
    pub(super) received: Option<Arc<Received>>,
    pub(super) catalog: Option<Arc<Catalog>>,
}

/// The checks that are under way.
#[derive(Debug, Default)]
pub(super) struct CheckTasks(JoinSet<()>);

impl CheckTasks {
    /// Begins one. Its answer goes to `answers`, unless the stream behind it has ended by then.
    pub(super) fn begin<C: Connection>(
        &mut self,
        order: RequestedCheck,
        basis: Basis<C>,
        answers: mpsc::Sender<CheckAnswer>,
    ) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() >= CHECKS_MAX {
            // The registry counts them too, and says so to whoever asks.
            warn!("a check is not made: there are {CHECKS_MAX} already");
            return;
        }
        let check = async move {
            let revision = basis
                .received
                .as_ref()
                .map_or(Revision::ZERO, |received| received.cursor().revision);
            let id = order.id;
            let findings = make(order, basis).await;
            debug!(endpoints = findings.len(), "a check is made");
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
            "check again; if it lasts, look into the router's log",
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

/// Where a check's credential comes from.
enum NeededCredential {
    /// It is there.
    Known(CheckCredential),
    /// A model's own, to be fetched.
    OfModel(compile::WantedCredential),
    /// The check's own, to be fetched.
    OfCheck(CheckId, CredentialId),
}

/// A model as it was received, whether or not its newest version is in use.
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
            "check again in a moment; `ConfigService/ListRouters` shows how far the router is",
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

/// A credential that calls go by already.
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
        "bring router and registry to the same release, or mend the field",
    ))
}
