//! `switchboard.router.v1.RoutingService`.

use std::{sync::Arc, time::Duration};

use switchboard::{
    catalogue::{Catalogue, Feature},
    failure::Failure,
    pb::router::{self, routing_service_server::RoutingService},
    reason::Reason,
    service::request_id::RequestId,
    violation::Violations,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    call::{
        CallError, CallFailure, CallRefusal, Calls, Considered, Context, Outcome,
        permits::{Party, QuotaExceeded},
    },
    catalog::{Caller, Candidate, Catalog, Decision, Model, ResolveError, SelectionReason},
    endpoints::Readiness,
    subscription::Progress,
    upstream::UpstreamError,
    wire::{change::HELD_MAX, routing as wire},
};

/// A status tells of no more servers, nor of more models.
const TOLD_MAX: usize = 1_000;

/// The handlers of the routing service.
#[derive(Debug)]
pub struct RoutingApi {
    calls: Calls,
    progress: Progress,
    stop: CancellationToken,
}

/// What a call would come to.
struct Outlook<'a> {
    /// The model that would answer, and what decides.
    answers: Option<(&'a Model, SelectionReason)>,
    /// Whether all of its servers are failing.
    is_degraded: bool,
    /// Without one: why the call would fail.
    failure: Option<Reason>,
    considered: Vec<Considered>,
}

impl RoutingApi {
    /// Handlers that show where `calls` go. `stop` is cancelled when the router begins to shut down.
    #[must_use]
    pub const fn new(calls: Calls, progress: Progress, stop: CancellationToken) -> Self {
        Self { calls, progress, stop }
    }

    fn catalog(&self) -> Result<Arc<Catalog>, Failure> {
        let failure = || Failure::from(failure(CallRefusal::ConfigNotLoaded));
        self.calls.current().load().ok_or_else(failure)
    }

    fn resolve(
        &self,
        message: &router::ResolveFeatureRequest,
        request_id: &RequestId,
    ) -> Result<router::ResolveFeatureResponse, Failure> {
        let mut violations = Violations::new();
        let affinity_key = wire::affinity_key(&message.affinity_key, &mut violations);
        violations.or(()).map_err(|violations| Failure::invalid(&violations))?;
        let catalog = self.catalog()?;
        let feature = Catalog::feature(&message.feature).map_err(|error| {
            let mut failure = failure(CallRefusal::from(error));
            failure.context.revision = Some(catalog.cursor.revision);
            failure.context.config_age = self.calls.current().age();
            Failure::from(failure)
        })?;
        let nobody = router::Scope::default();
        let caller = Caller {
            scope: message.scope.as_ref().unwrap_or(&nobody).into(),
            affinity_key,
            request_id: Some(request_id.as_str()),
        };
        let (_, setting) = catalog.source(feature);
        let provider = wire::provider(setting).into();
        let decision = match catalog.decide(feature, &caller) {
            Ok(decision) => decision,
            Err(error) => {
                return Ok(router::ResolveFeatureResponse {
                    provider,
                    reason: reason(CallRefusal::from(error)).to_string(),
                    ..router::ResolveFeatureResponse::default()
                });
            }
        };
        let outlook = look(&catalog, &decision, &self.calls);
        let rule = catalog.rule(&decision);
        Ok(router::ResolveFeatureResponse {
            provider,
            selection: outlook.answers.map(|(model, reason)| router::Selection {
                rule: rule.map(|rule| rule.id.to_string()).unwrap_or_default(),
                config_revision: catalog.cursor.revision.get(),
                degraded: outlook.is_degraded,
                ..wire::selection(decision.feature, decision.source_feature, model, reason)
            }),
            reason: outlook.failure.map(|reason| reason.to_string()).unwrap_or_default(),
            candidates: outlook.considered.into_iter().map(Into::into).collect(),
        })
    }

    fn route(&self, catalog: &Arc<Catalog>, feature: &'static Feature) -> router::Route {
        let (source, setting) = catalog.source(feature);
        let (model, failure) = match catalog.decide(feature, &Caller::default()) {
            Ok(decision) => {
                let outlook = look(catalog, &decision, &self.calls);
                let model = outlook.answers.map(|(model, _)| model.name.to_string());
                (model, outlook.failure)
            }
            Err(error) => (None, Some(reason(CallRefusal::from(error)))),
        };
        router::Route {
            feature: feature.name.to_string(),
            provider: wire::provider(setting).into(),
            available: model.is_some(),
            reason: failure.map(|reason| reason.to_string()).unwrap_or_default(),
            model: model.unwrap_or_default(),
            source_feature: source.to_string(),
        }
    }
}

#[tonic::async_trait]
impl RoutingService for RoutingApi {
    async fn resolve_feature(
        &self,
        request: Request<router::ResolveFeatureRequest>,
    ) -> Result<Response<router::ResolveFeatureResponse>, Status> {
        let request_id = RequestId::of(&request);
        let resolved = self.resolve(request.get_ref(), &request_id);
        resolved
            .map(Response::new)
            .map_err(|failure| failure.into_status(request_id.as_str()))
    }

    async fn list_routes(
        &self,
        request: Request<router::ListRoutesRequest>,
    ) -> Result<Response<router::ListRoutesResponse>, Status> {
        let request_id = RequestId::of(&request);
        let catalog = self
            .catalog()
            .map_err(|failure| failure.into_status(request_id.as_str()))?;
        let features = Catalogue::get().features().iter();
        Ok(Response::new(router::ListRoutesResponse {
            routes: features.map(|feature| self.route(&catalog, feature)).collect(),
            config_revision: catalog.cursor.revision.get(),
        }))
    }

    async fn get_status(
        &self,
        _: Request<router::GetStatusRequest>,
    ) -> Result<Response<router::GetStatusResponse>, Status> {
        let applied = self.progress.applied();
        let age = self.calls.current().age();
        let catalog = self.calls.current().load();
        let endpoints = catalog.as_ref().map(|catalog| self.calls.endpoints().status(catalog));
        let down = catalog.as_ref().map(|catalog| self.calls.endpoints().down(catalog));
        Ok(Response::new(router::GetStatusResponse {
            received: self.progress.received().as_ref().map(Into::into),
            applied: applied.cursor.as_ref().map(Into::into),
            last_contact_age: age.and_then(|age| age.try_into().ok()),
            held: applied.held.iter().take(HELD_MAX).map(Into::into).collect(),
            draining: self.stop.is_cancelled(),
            active_calls: i32::try_from(self.calls.active()).unwrap_or(i32::MAX),
            endpoints: endpoints.iter().flatten().take(TOLD_MAX).map(Into::into).collect(),
            down_models: down.iter().flatten().take(TOLD_MAX).map(ToString::to_string).collect(),
        }))
    }
}

/// Goes through the candidates as a call would, less the calling.
fn look<'a>(catalog: &'a Arc<Catalog>, decision: &Decision, calls: &Calls) -> Outlook<'a> {
    let (permits, endpoints) = (calls.permits(), calls.endpoints());
    let source = decision.source_feature;
    let rules = catalog.rules(decision).filter(|(_, decides)| !decides);
    let mut considered: Vec<Considered> = rules
        .map(|(rule, _)| Considered {
            model: rule.model.clone(),
            source_feature: source,
            rule: Some(rule.id.clone()),
            outcome: Outcome::RuleNotMatched,
        })
        .collect();
    let limit = catalog.max_concurrency(decision);
    let refused = if catalog.inference_paused {
        Some(CallError::from(CallRefusal::from(ResolveError::InferencePaused {
            feature: decision.feature,
        })))
    } else {
        let spent = limit.filter(|_| permits.is_spent(source, limit));
        spent.map(|limit| CallError::from(CallRefusal::from(QuotaExceeded { feature: source, limit })))
    };
    let party = |candidate: &Candidate<'_>| Party {
        feature: source,
        has_reservation: candidate.has_reservation(),
    };
    let mut answers = None;
    let mut cause = None;
    let mut is_degraded = false;
    for (place, candidate) in catalog.candidates(decision).enumerate() {
        let refusal = candidate.model.ok().and_then(|model| permits.refusal(model));
        let readiness = candidate.model.map(|model| endpoints.readiness(model));
        let takes_calls = |other: Candidate<'_>| {
            let ready = |model: &Arc<Model>| endpoints.readiness(model) == Readiness::Ready;
            other.model.is_ok_and(ready)
        };
        let has_other = || catalog.candidates(decision).skip(place + 1).any(takes_calls);
        let ejected = match readiness {
            Ok(Readiness::LeftAlone { reason, pause }) => Some((reason, pause)),
            Ok(Readiness::Down { reason }) if has_other() => Some((reason, Duration::ZERO)),
            Ok(Readiness::Down { .. } | Readiness::Ready) | Err(_) => None,
        };
        let outcome = match candidate.model {
            Err(why) => {
                let name = candidate.name.clone();
                cause.get_or_insert(CallError::Refused(CallRefusal::Unusable {
                    feature: decision.feature,
                    model: name,
                    why,
                }));
                why.into()
            }
            Ok(_) if let Some((reason, pause)) = ejected => {
                cause.get_or_insert(CallError::Refused(CallRefusal::Ejected {
                    model: candidate.name.clone(),
                    reason,
                    pause,
                }));
                Outcome::Ejected
            }
            Ok(_) if let Some(status) = refusal => {
                let error = UpstreamError::CredentialRejected(status);
                let outcome = Outcome::Failed(error.to_string());
                cause.get_or_insert_with(|| error.into());
                outcome
            }
            Ok(model) if permits.is_full(catalog, model, party(&candidate)) => {
                cause.get_or_insert(CallError::Refused(CallRefusal::Overloaded {
                    model: candidate.name.clone(),
                    limit: model.limits.max_concurrency.unwrap_or_default(),
                }));
                Outcome::Full
            }
            Ok(_) if answers.is_some() || refused.is_some() => Outcome::Standby,
            Ok(model) => {
                answers = Some((&**model, candidate.reason));
                is_degraded = matches!(readiness, Ok(Readiness::Down { .. }));
                Outcome::Chosen
            }
        };
        considered.push(Considered::new(&candidate, source, outcome));
    }
    Outlook {
        failure: refused.or(cause).filter(|_| answers.is_none()).map(reason),
        answers,
        is_degraded,
        considered,
    }
}

/// The reason that a call would fail with.
fn reason(error: impl Into<CallError>) -> Reason {
    Failure::from(failure(error)).reason()
}

fn failure(error: impl Into<CallError>) -> CallFailure {
    CallFailure::at_once(error.into(), Context::new(""))
}
