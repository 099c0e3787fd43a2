//! Fetches the API tokens that calls need, and keeps them as long as a version in use names them.
//!
//! A credential that was replaced meanwhile is not asked for again: the change that names the new one is on its way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use switchboard::{
    endpoint::Origin,
    names::{CheckId, CredentialId, ModelName},
    pb::registry,
    reason::Reason,
    secret::ApiToken,
};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic_types::StatusExt as _;
use tracing::{debug, warn};

use super::{
    compile::{self, WantedCredential},
    session::Backoff,
    surroundings::Connection,
};
use crate::catalog::Credential;

/// How many are fetched at a time: a cold start must not flood the registry.
const RUNNING_MAX: usize = 16;
const FETCH_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why a credential was not had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the model has another credential by now")]
    Superseded,
    #[error("the registry did not answer in time")]
    Timeout,
    /// Its message is not told: the code says enough, and nothing secret can be in it.
    #[error("the registry answered {0:?}")]
    Refused(Code),
    #[error("the registry answered with another credential than was asked for")]
    Other,
}

/// A credential of a model. By models first, so that they are asked for in an order that is not drawn by lot.
type ModelCredentialId = (ModelName, CredentialId);

type Fetched = (ModelCredentialId, Result<Credential, FetchError>);

/// The credentials that are there, and those on their way.
pub(super) struct Credentials {
    cache: compile::CredentialsById,
    plans: BTreeMap<ModelCredentialId, FetchPlan>,
    running: FuturesUnordered<BoxFuture<'static, Fetched>>,
    random: fastrand::Rng,
}

struct FetchPlan {
    wanted: WantedCredential,
    was_tried: bool,
    backoff: Backoff,
    next: NextFetch,
}

enum NextFetch {
    At(Instant),
    Running,
    /// The change with the new id is awaited.
    Superseded,
}

impl Credentials {
    pub(super) fn new() -> Self {
        Self {
            cache: HashMap::new(),
            plans: BTreeMap::new(),
            running: FuturesUnordered::new(),
            random: fastrand::Rng::new(),
        }
    }

    /// Those that are there.
    pub(super) const fn cache(&self) -> &compile::CredentialsById {
        &self.cache
    }

    /// Takes in what an earlier start has had.
    pub(super) fn restore(&mut self, credentials: compile::CredentialsById) {
        self.cache.extend(credentials);
    }

    /// Plans to fetch what is wanted and not there, and nothing else any longer.
    pub(super) fn want(&mut self, wanted: &[WantedCredential]) {
        let mut plans = BTreeMap::new();
        for wanted in wanted {
            let key = (wanted.model.clone(), wanted.credential.id);
            // One may have come while the state that wants it was compiled.
            if self.cache.contains_key(&key.1) {
                continue;
            }
            let plan = self.plans.remove(&key).unwrap_or_else(|| FetchPlan {
                wanted: wanted.clone(),
                was_tried: false,
                backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
                next: NextFetch::At(Instant::now()),
            });
            plans.insert(key, plan);
        }
        self.plans = plans;
    }

    /// Forgets those that no version in use names, and no version that waits for them. Returns whether it had any.
    pub(super) fn keep(&mut self, used: &HashSet<CredentialId>, wanted: &[WantedCredential]) -> bool {
        let count = self.cache.len();
        let is_wanted = |id| wanted.iter().any(|wanted| wanted.credential.id == id);
        self.cache.retain(|id, _| used.contains(id) || is_wanted(*id));
        self.cache.len() < count
    }

    /// Asks again for what was superseded: another stream may be to another registry.
    pub(super) fn reconsider(&mut self) {
        for plan in self.plans.values_mut() {
            if matches!(plan.next, NextFetch::Superseded) {
                plan.next = NextFetch::At(Instant::now());
            }
        }
    }

    /// Whether each that is wanted has been asked for once.
    pub(super) fn all_tried(&self) -> bool {
        self.plans.values().all(|plan| plan.was_tried)
    }

    /// Begins to fetch what is due.
    pub(super) fn start(&mut self, connection: &impl Connection) {
        let now = Instant::now();
        for (key, plan) in &mut self.plans {
            if self.running.len() >= RUNNING_MAX {
                return;
            }
            if matches!(plan.next, NextFetch::At(at) if at <= now) {
                plan.next = NextFetch::Running;
                let (key, fetch) = (key.clone(), fetch(connection.clone(), plan.wanted.clone()));
                self.running.push(Box::pin(async move { (key, fetch.await) }));
            }
        }
    }

    /// When [`Self::start`] has something to do. `None`: not before a running one ends.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if self.running.len() >= RUNNING_MAX {
            return None;
        }
        let due = self.plans.values().filter_map(|plan| match plan.next {
            NextFetch::At(at) => Some(at),
            NextFetch::Running | NextFetch::Superseded => None,
        });
        due.min()
    }

    /// Waits until one has ended, for ever when none is running.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch goes on when it is waited for again.
    pub(super) async fn ended(&mut self) {
        let Some((key, result)) = self.running.next().await else {
            return std::future::pending().await;
        };
        // One that nobody wants any longer is not kept.
        let Some(plan) = self.plans.get_mut(&key) else {
            return;
        };
        let (model, id) = &key;
        plan.was_tried = true;
        plan.next = match result {
            Ok(credential) => {
                debug!(model.name = %model, credential.id = %id, "fetched the credential of {model}");
                self.cache.insert(*id, Arc::new(credential));
                self.plans.remove(&key);
                return;
            }
            Err(FetchError::Superseded) => {
                debug!(model.name = %model, credential.id = %id, "the credential of {model} was replaced meanwhile");
                NextFetch::Superseded
            }
            Err(error) => {
                let wait = plan.backoff.next(&mut self.random);
                warn!(model.name = %model, credential.id = %id, %error, "cannot fetch the credential of {model} yet");
                NextFetch::At(Instant::now() + wait)
            }
        };
    }
}

/// Fetches the credential of a model.
pub(super) async fn fetch(connection: impl Connection, wanted: WantedCredential) -> Result<Credential, FetchError> {
    let fetched = ask(connection, wanted.model.to_string(), wanted.credential.id).await?;
    if fetched.origins == wanted.credential.origins {
        Ok(fetched)
    } else {
        Err(FetchError::Other)
    }
}

/// Fetches the credential of a check, which only its origins are told with.
pub(super) async fn fetch_for_check(
    connection: impl Connection,
    check: CheckId,
    id: CredentialId,
) -> Result<Credential, FetchError> {
    ask(connection, format!("checks/{check}"), id).await
}

async fn ask(connection: impl Connection, owner: String, id: CredentialId) -> Result<Credential, FetchError> {
    let request = registry::GetModelCredentialRequest {
        model: owner,
        credential_id: id.to_string(),
    };
    let answer = timeout(FETCH_MAX, connection.credential(request))
        .await
        .map_err(|_elapsed| FetchError::Timeout)?
        .map_err(|status| {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.as_str());
            if reason == Some(Reason::CredentialSuperseded.as_str()) {
                FetchError::Superseded
            } else {
                FetchError::Refused(status.code())
            }
        })?;
    let origins: Result<BTreeSet<Origin>, _> = answer.origins.iter().map(|origin| Origin::parse(origin)).collect();
    if answer.credential_id != id.to_string() {
        return Err(FetchError::Other);
    }
    Ok(Credential {
        id,
        origins: origins.map_err(|_unreadable| FetchError::Other)?,
        token: ApiToken::parse(answer.api_token).map_err(|_unusable| FetchError::Other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::resource::CredentialRef;

    fn wanted(number: u8) -> WantedCredential {
        WantedCredential {
            model: ModelName::parse("models/a").unwrap(),
            credential: CredentialRef {
                id: CredentialId::parse(&format!("{number:032x}")).unwrap(),
                origins: BTreeSet::new(),
            },
        }
    }

    /// What is left to do after a fetch has ended so.
    async fn after(result: Result<Credential, FetchError>) -> Credentials {
        let mut credentials = Credentials::new();
        let wanted = wanted(1);
        credentials.want(std::slice::from_ref(&wanted));
        assert!(!credentials.all_tried());
        let end: Fetched = ((wanted.model, wanted.credential.id), result);
        credentials.running.push(Box::pin(std::future::ready(end)));
        credentials.ended().await;
        assert!(credentials.all_tried());
        credentials
    }

    fn credential(number: u8) -> Credential {
        Credential {
            id: wanted(number).credential.id,
            origins: BTreeSet::new(),
            token: ApiToken::parse("sk-1".to_owned()).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_failed_fetch_is_repeated_and_a_superseded_one_only_on_another_stream() {
        assert!(after(Err(FetchError::Timeout)).await.due_at().is_some());
        let mut credentials = after(Err(FetchError::Superseded)).await;
        assert_eq!(credentials.due_at(), None);
        credentials.reconsider();
        assert!(credentials.due_at().is_some());
    }

    #[tokio::test]
    async fn what_came_is_kept_while_it_is_used_or_waited_for() {
        let id = wanted(1).credential.id;
        let mut credentials = after(Ok(credential(1))).await;
        credentials.want(&[wanted(1)]);
        assert_eq!(credentials.due_at(), None, "it is there already");
        assert!(!credentials.keep(&HashSet::new(), &[wanted(1)]));
        assert!(!credentials.keep(&[id].into(), &[]));
        assert!(credentials.cache().contains_key(&id));
        assert!(credentials.keep(&HashSet::new(), &[wanted(2)]));
        assert!(credentials.cache().is_empty());
    }

    #[tokio::test]
    async fn only_so_many_are_fetched_at_a_time() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut credentials = Credentials::new();
        let all: Vec<_> = (0..20).map(wanted).collect();
        credentials.want(&all);
        credentials.start(&channel);
        assert_eq!(credentials.running.len(), RUNNING_MAX);
        assert_eq!(credentials.due_at(), None);
        credentials.ended().await;
        credentials.start(&channel);
        assert_eq!(credentials.running.len(), RUNNING_MAX);
    }
}
