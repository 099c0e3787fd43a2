//! `CheckModel`: chooses what to check and by which routers, and collects their findings.
//!
//! A router that does not answer counts as a failed check, not as an error of the call: the findings of the other
//! routers are still useful.

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

/// Maximum number of checks per call, one for each router and endpoint. This many fit into an answer.
pub const CHECKS_MAX: usize = 2_000;

/// Maximum duration of a check, and its time limit if the caller gives none.
pub const CHECK_MAX: Duration = Duration::from_secs(60);

/// Maximum time that is reserved for returning the answer.
const MARGIN_MAX: Duration = Duration::from_millis(500);

/// Name of the step that reports problems of the router itself.
const ROUTER: &str = "router";

/// A request to check a model.
#[derive(Debug)]
pub struct Wanted {
    /// The model to check.
    pub subject: CheckSubject,
    /// The routers that check it.
    pub routers: Routers,
}

/// The model to check.
#[derive(Debug)]
pub enum CheckSubject {
    /// A registered model.
    Registered(ModelName),
    /// A new model.
    New {
        /// The write that would register the model.
        write: CreateModel,
        /// Whether the caller gave a name or a display name. If not, both are made up.
        is_named: bool,
    },
    /// A registered model with some fields replaced.
    Edited(UpdateModel),
}

/// The routers that check the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routers {
    /// Any router. The one that is most likely to answer is chosen.
    Any,
    /// The router with this id. If several processes use the id, the one that is most likely to answer is chosen.
    One(RouterId),
    /// Every connected router process.
    All,
}

/// The findings of one router about one endpoint, or why it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The router.
    pub router: RouterId,
    /// The findings.
    pub check: EndpointCheck,
}

/// Why a model cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The model does not exist, or a write with these fields would be refused.
    #[error(transparent)]
    Subject(#[from] WriteError),
    /// No router is connected.
    #[error("no router is connected: checks are made by routers, because they make the calls to model servers")]
    NoRouter,
    /// The chosen router is not connected.
    #[error("router `{0}` is not connected: checks are made by routers, because they make the calls to model servers")]
    NotConnected(RouterId),
    /// The routers would make more checks than one answer can hold.
    #[error(
        "would make {0} checks, one for each router and endpoint; the maximum is {CHECKS_MAX}, so choose a `router`"
    )]
    TooMany(usize),
}

/// The question to the routers, with the credential that they need.
#[derive(Debug)]
struct CheckQuestion {
    target: CheckedModel,
    credential: Option<SetCredential>,
    endpoints: usize,
}

/// Lets routers check a model, for at most `allowed`.
///
/// # Errors
///
/// [`CheckError`] if the model cannot be checked.
///
/// # Cancel safety
///
/// If the future is dropped, the routers' findings are no longer awaited. Routers end the checks that they have begun
/// within the time limit.
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
        // The update changes nothing, so the stored model is checked.
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

/// Chooses the routers to ask. If one is enough, the router that is most likely to answer is chosen.
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

/// Why a router has no findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    TooOld,
    OtherHistory,
    Busy,
    Gone,
    Late,
}

/// Returns what prevents a router from checking at all, if anything does.
fn obstacle(seen: &Seen) -> Option<Obstacle> {
    if !seen.can_check {
        Some(Obstacle::TooOld)
    } else if matches!(seen.mode, WelcomeMode::Withheld(_)) || seen.report.history_refusal.is_some() {
        // The router takes no API token from a registry that it does not follow.
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
    // The credential gets a new id, which is only used for this check.
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
                "the router's release cannot check models".to_owned(),
                "upgrade the router to the registry's release, or choose another `router`",
            ),
            Self::OtherHistory => (
                Reason::StoreIncarnationChanged,
                "the router does not follow this registry's history".to_owned(),
                "see `ConfigService/ListRouters` for the reason, or choose another `router`",
            ),
            Self::Busy => (
                Reason::WatchLimitReached,
                format!("the router is already running {RUNNING_MAX} checks"),
                "check again in a moment",
            ),
            Self::Gone => (
                Reason::NoRouterConnected,
                "the router disconnected before it finished the check".to_owned(),
                "make sure that the router runs and can reach the registry, then check again",
            ),
            Self::Late => (
                Reason::DeadlineExceeded,
                "the router did not answer in time".to_owned(),
                "make sure that the router runs, or allow more time for the call",
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
