//! `CheckModel`: what is checked, by which routers, and what their answers come to.
//!
//! A router that does not answer is a failed check and no error: the others' answers are worth as much without it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use switchboard::{
    names::{CredentialId, ModelName, RouterId},
    reason::Reason,
    stream::{CheckedStep, Culprit, EndpointCheck, StepEnd, WelcomeMode},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    domain::{
        credential::{ModelCredential, SetCredential},
        state::{Change, State},
        write::{CreateModel, UpdateModel, Write as _, WriteError},
    },
    fleet::{
        Fleet, Seen,
        check::{AskError, CheckedModel, RUNNING_MAX, Unsaved},
    },
};

/// The most checks of one call, one for each router and endpoint: as many as fit into an answer.
pub const CHECKS_MAX: usize = 2_000;

/// The longest check, and what one may take whose caller does not say.
pub const CHECK_MAX: Duration = Duration::from_secs(60);

/// How much of the time is kept back for the answer's way back.
const MARGIN_MAX: Duration = Duration::from_millis(500);

/// The step that is about the router itself.
const ROUTER: &str = "router";

/// What a call asks for.
#[derive(Debug)]
pub struct Wanted {
    /// What is checked.
    pub subject: CheckSubject,
    /// Who checks.
    pub routers: Routers,
}

/// What is checked.
#[derive(Debug)]
pub enum CheckSubject {
    /// A registered model.
    Registered(ModelName),
    /// A model that is new.
    New {
        /// As it would be registered.
        write: CreateModel,
        /// Whether its name is the one that it would have.
        is_named: bool,
    },
    /// A registered model with other fields laid over it.
    Edited(UpdateModel),
}

/// Who checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routers {
    /// Any router, the likeliest to answer.
    Any,
    /// This one: of several processes under one id, the likeliest to answer.
    One(RouterId),
    /// Every process that is connected.
    All,
}

/// What one router has found of one endpoint, or why it has found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The router.
    pub router: RouterId,
    /// What it has found.
    pub check: EndpointCheck,
}

/// Why nothing can be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The model does not exist, or a write of these fields would be refused.
    #[error(transparent)]
    Subject(#[from] WriteError),
    /// No router is connected.
    #[error("no router is connected: a check is made where inference calls go out from")]
    NoRouter,
    /// The router that was chosen is not connected.
    #[error("router `{0}` is not connected: a check is made where inference calls go out from")]
    NotConnected(RouterId),
    /// Every router would make more checks than one answer holds.
    #[error(
        "would make {0} checks, one for each router and endpoint; at most {CHECKS_MAX} are made, so choose a `router`"
    )]
    TooMany(usize),
}

/// What routers are asked, and the credential that goes with it.
#[derive(Debug)]
struct CheckQuestion {
    target: CheckedModel,
    credential: Option<SetCredential>,
    endpoints: usize,
}

/// Has routers check a model, in at most `allowed`.
///
/// # Errors
///
/// [`CheckError`] when nothing can be checked.
///
/// # Cancel safety
///
/// Dropped, nobody waits for the routers any longer; they end what they have begun within its time.
pub async fn check(
    fleet: &Arc<Fleet>,
    state: &State,
    wanted: Wanted,
    allowed: Duration,
) -> Result<Vec<Checked>, CheckError> {
    let question = question(wanted.subject, state)?;
    let chosen = choose(fleet.routers(None, usize::MAX), &wanted.routers)?;
    let count = chosen.len() * question.endpoints;
    if count > CHECKS_MAX {
        return Err(CheckError::TooMany(count));
    }
    let allowed = allowed.min(CHECK_MAX);
    let wait_until = Instant::now() + allowed;
    let until = wait_until - (allowed / 10).min(MARGIN_MAX);
    let asked = chosen
        .iter()
        .map(|router| ask(fleet, router, &question, until, wait_until));
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

fn question(subject: CheckSubject, state: &State) -> Result<CheckQuestion, WriteError> {
    let fresh = CredentialId::random();
    let (write, name, is_named) = match subject {
        CheckSubject::Registered(name) => {
            let Some(stored) = state.models.get(&name) else {
                return Err(WriteError::NotFound(name.into()));
            };
            return Ok(CheckQuestion {
                endpoints: stored.value.spec.uris().count(),
                target: CheckedModel::Registered(name),
                credential: None,
            });
        }
        CheckSubject::New { write, is_named } => {
            let verdict = write.judge(state, fresh)?;
            (verdict.change, verdict.name, is_named)
        }
        CheckSubject::Edited(write) => {
            let verdict = write.judge(state, fresh)?;
            (verdict.change, verdict.name, true)
        }
    };
    let (model, credential) = match write {
        Some(Change::Model { model, credential, .. }) => (model, credential),
        // It changes nothing, or nothing of a model, which is the same.
        Some(Change::Feature(_) | Change::Settings(_)) | None => match state.models.get(&name) {
            Some(stored) => (stored.value.clone(), state.credential(&name).clone()),
            None => return Err(WriteError::NotFound(name.into())),
        },
    };
    let is_token_dropped = matches!(credential, ModelCredential::Dropped);
    Ok(CheckQuestion {
        endpoints: model.spec.uris().count(),
        target: CheckedModel::Unsaved(Arc::new(Unsaved {
            model,
            is_named,
            is_token_dropped,
        })),
        credential: match credential {
            ModelCredential::Set(set) => Some(set),
            ModelCredential::None | ModelCredential::Dropped => None,
        },
    })
}

/// Who is asked, the likeliest to answer first where one is enough.
fn choose(seen: Vec<Seen>, routers: &Routers) -> Result<Vec<Seen>, CheckError> {
    let best = |seen: Vec<Seen>| {
        let rank = |seen: &Seen| (obstacle(seen).is_some(), seen.reported.is_none(), seen.reported);
        seen.into_iter().min_by_key(rank)
    };
    match routers {
        Routers::All if seen.is_empty() => Err(CheckError::NoRouter),
        Routers::All => Ok(seen),
        Routers::Any => best(seen).map(|seen| vec![seen]).ok_or(CheckError::NoRouter),
        Routers::One(id) => {
            let under_id = seen.into_iter().filter(|seen| seen.key.0 == *id).collect();
            best(under_id)
                .map(|seen| vec![seen])
                .ok_or_else(|| CheckError::NotConnected(id.clone()))
        }
    }
}

/// Why a router has found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    TooOld,
    OtherHistory,
    Busy,
    Gone,
    Late,
}

/// What keeps a router from checking at all.
fn obstacle(seen: &Seen) -> Option<Obstacle> {
    if !seen.can_check {
        Some(Obstacle::TooOld)
    } else if matches!(seen.mode, WelcomeMode::Withheld(_)) || seen.report.history_refusal.is_some() {
        // It takes no API token from a registry that it does not follow.
        Some(Obstacle::OtherHistory)
    } else {
        None
    }
}

async fn ask(
    fleet: &Arc<Fleet>,
    router: &Seen,
    question: &CheckQuestion,
    until: Instant,
    wait: Instant,
) -> Vec<Checked> {
    let (id, _) = &router.key;
    let found = match obstacle(router) {
        Some(obstacle) => Err(obstacle),
        None => found(fleet, router, question, until, wait).await,
    };
    let checked = |check| Checked {
        router: id.clone(),
        check,
    };
    match found {
        Ok(checks) => checks.into_iter().map(checked).collect(),
        Err(obstacle) => vec![checked(obstacle.into_check())],
    }
}

async fn found(
    fleet: &Arc<Fleet>,
    router: &Seen,
    question: &CheckQuestion,
    until: Instant,
    wait: Instant,
) -> Result<Vec<EndpointCheck>, Obstacle> {
    let CheckQuestion { target, credential, .. } = question;
    // Under an id of its own: it is this check's alone.
    let credential = credential.clone().map(|credential| SetCredential {
        id: CredentialId::random(),
        ..credential
    });
    let refused = |error| match error {
        AskError::Gone => Obstacle::Gone,
        AskError::Busy => Obstacle::Busy,
    };
    let mut asking = fleet
        .ask(&router.key, target.clone(), credential, until)
        .map_err(refused)?;
    timeout_at(wait, asking.findings())
        .await
        .map_err(|_elapsed| Obstacle::Late)?
        .map_err(refused)
}

impl Obstacle {
    fn into_check(self) -> EndpointCheck {
        let (reason, message, remedy) = match self {
            Self::TooOld => (
                Reason::MethodUnknown,
                "the router is of a release that cannot check models".to_owned(),
                "bring the router to the registry's release, or choose another `router`",
            ),
            Self::OtherHistory => (
                Reason::StoreIncarnationChanged,
                "the router does not follow this registry's history".to_owned(),
                "see `ConfigService/ListRouters` for why, or choose another `router`",
            ),
            Self::Busy => (
                Reason::WatchLimitReached,
                format!("the router has {RUNNING_MAX} checks to make already"),
                "check again in a moment",
            ),
            Self::Gone => (
                Reason::NoRouterConnected,
                "the router left before it had checked".to_owned(),
                "see whether the router runs and reaches the registry, then check again",
            ),
            Self::Late => (
                Reason::DeadlineExceeded,
                "the router did not answer in time".to_owned(),
                "see whether the router runs, or allow the call more time",
            ),
        };
        EndpointCheck {
            endpoint: "".into(),
            passed: false,
            steps: vec![CheckedStep {
                step: ROUTER.into(),
                end: StepEnd::Failed,
                latency: None,
                culprit: Some(Culprit::Switchboard),
                reason: reason.as_str().into(),
                message: message.into(),
                remedy: remedy.into(),
            }],
        }
    }
}

#[cfg(test)]
mod tests;
