//! Fetches the API tokens that calls need, and keeps them as long as a version in use names them.
//!
//! A credential that has been replaced is not requested again: the change that names the new one will arrive.

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

/// Maximum number of concurrent fetches. A cold start must not flood the registry.
const RUNNING_MAX: usize = 16;
const FETCH_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why a credential could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the model's credential was replaced by another one")]
    Superseded,
    #[error("the registry did not answer in time")]
    Timeout,
    /// The registry refused. Only the code is shown: it says enough, and a message might contain a secret.
    #[error("the registry answered with the code {0:?}")]
    Refused(Code),
    #[error("the registry returned a credential other than the requested one")]
    Other,
}

/// A credential of a model. The model comes first, so that the order of the requests does not depend on random ids.
type ModelCredentialId = (ModelName, CredentialId);

type Fetched = (ModelCredentialId, Result<Credential, FetchError>);

/// The credentials that were fetched, and those that are still to be fetched.
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
    /// The credential was replaced; the change with the new id has not arrived yet.
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

    /// Returns the credentials that were fetched.
    pub(super) const fn cache(&self) -> &compile::CredentialsById {
        &self.cache
    }

    /// Adds the credentials of an earlier start.
    pub(super) fn restore(&mut self, credentials: compile::CredentialsById) {
        self.cache.extend(credentials);
    }

    /// Plans to fetch exactly the credentials in `wanted` that are not cached. Other plans are dropped.
    pub(super) fn want(&mut self, wanted: &[WantedCredential]) {
        let mut plans = BTreeMap::new();
        for wanted in wanted {
            let key = (wanted.model.clone(), wanted.credential.id);
            // The credential may have arrived while the state that needs it was being compiled.
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

    /// Drops the credentials that neither a version in use nor a waiting version names. Returns whether any was
    /// dropped.
    pub(super) fn keep(&mut self, used: &HashSet<CredentialId>, wanted: &[WantedCredential]) -> bool {
        let count = self.cache.len();
        let is_wanted = |id| wanted.iter().any(|wanted| wanted.credential.id == id);
        self.cache.retain(|id, _| used.contains(id) || is_wanted(*id));
        self.cache.len() < count
    }

    /// Plans to request superseded credentials again, because a new stream may lead to another registry.
    pub(super) fn reconsider(&mut self) {
        for plan in self.plans.values_mut() {
            if matches!(plan.next, NextFetch::Superseded) {
                plan.next = NextFetch::At(Instant::now());
            }
        }
    }

    /// Returns whether every wanted credential was requested at least once.
    pub(super) fn all_tried(&self) -> bool {
        self.plans.values().all(|plan| plan.was_tried)
    }

    /// Starts the fetches that are due.
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

    /// Returns when [`Self::start`] has something to do. `None`: not before a running fetch ends.
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

    /// Waits until a fetch has ended. Waits forever if none is running.
    ///
    /// # Cancel safety
    ///
    /// Cancelling the future loses nothing: running fetches continue at the next call.
    pub(super) async fn ended(&mut self) {
        let Some((key, result)) = self.running.next().await else {
            return std::future::pending().await;
        };
        // The result is dropped if the credential is no longer wanted.
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
                debug!(model.name = %model, credential.id = %id, "the credential of {model} has been replaced");
                NextFetch::Superseded
            }
            Err(error) => {
                let wait = plan.backoff.next(&mut self.random);
                warn!(model.name = %model, credential.id = %id, %error, "could not fetch the credential of {model}: retrying");
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

/// Fetches the credential of a check. Its origins are known only from the answer.
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

    /// Returns the credentials after a fetch with this result.
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
    async fn a_failed_fetch_is_repeated_and_a_superseded_one_waits_for_another_stream() {
        assert!(after(Err(FetchError::Timeout)).await.due_at().is_some());
        let mut credentials = after(Err(FetchError::Superseded)).await;
        assert_eq!(credentials.due_at(), None);
        credentials.reconsider();
        assert!(credentials.due_at().is_some());
    }

    #[tokio::test]
    async fn a_fetched_credential_is_kept_while_it_is_used_or_wanted() {
        let id = wanted(1).credential.id;
        let mut credentials = after(Ok(credential(1))).await;
        credentials.want(&[wanted(1)]);
        assert_eq!(credentials.due_at(), None, "the credential is already cached");
        assert!(!credentials.keep(&HashSet::new(), &[wanted(1)]));
        assert!(!credentials.keep(&[id].into(), &[]));
        assert!(credentials.cache().contains_key(&id));
        assert!(credentials.keep(&HashSet::new(), &[wanted(2)]));
        assert!(credentials.cache().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_concurrent_fetches_is_limited() {
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
