//! `switchboard.router.v1.RoutingService`.

use std::sync::Arc;

use switchboard::{
    catalogue::{Catalogue, FeatureFacts},
    failure::Failure,
    pb::router::{self, routing_service_server::RoutingService},
    service::request_id::RequestId,
    stream::{HeldReport, Report},
    violation::Violations,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    call::{CallContext, CallError, CallFailure, CallRefusal, Calls, Outlook},
    catalog::{Caller, Catalog},
    subscription::Progress,
    wire::routing as wire,
};

/// Maximum number of servers, and of models, in a status.
const TOLD_MAX: usize = 1_000;

/// The handlers of the routing service.
#[derive(Debug)]
pub struct RoutingApi {
    calls: Calls,
    progress: Progress,
    stop: CancellationToken,
}

impl RoutingApi {
    /// Creates handlers that report how `calls` are routed. `stop` is cancelled when the router begins to shut down.
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
        violations.or(())?;
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
                    reason: reason_text(CallRefusal::from(error)),
                    ..router::ResolveFeatureResponse::default()
                });
            }
        };
        let outlook = self.calls.outlook(&catalog, &decision);
        let rule = catalog.rule(&decision);
        Ok(router::ResolveFeatureResponse {
            provider,
            selection: outlook.answerer.map(|answerer| router::Selection {
                rule: rule.map(|rule| rule.id.to_string()).unwrap_or_default(),
                config_revision: catalog.cursor.revision.get(),
                degraded: answerer.degraded.is_some(),
                ..wire::selection(
                    decision.feature,
                    decision.source_feature,
                    &answerer.model,
                    answerer.reason,
                )
            }),
            reason: outlook.failure.map(reason_text).unwrap_or_default(),
            candidates: outlook.considered.into_iter().map(Into::into).collect(),
        })
    }

    fn route(&self, catalog: &Arc<Catalog>, feature: &'static FeatureFacts) -> router::Route {
        let (source, setting) = catalog.source(feature);
        let (answerer, failure) = match catalog.decide(feature, &Caller::default()) {
            Ok(decision) => {
                let Outlook { answerer, failure, .. } = self.calls.outlook(catalog, &decision);
                (answerer, failure)
            }
            Err(error) => (None, Some(CallRefusal::from(error).into())),
        };
        let degraded = answerer.as_ref().and_then(|answerer| answerer.degraded);
        let model = answerer.as_ref().map(|answerer| answerer.model.name.to_string());
        router::Route {
            feature: feature.name.to_string(),
            provider: wire::provider(setting).into(),
            available: answerer.is_some(),
            reason: failure.map(reason_text).unwrap_or_default(),
            model: model.unwrap_or_default(),
            source_feature: source.to_string(),
            degraded: degraded.is_some(),
            degraded_reason: degraded.map(|reason| reason.to_string()).unwrap_or_default(),
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
        Ok(Response::new(self.resolve(request.get_ref(), &request_id)?))
    }

    async fn list_routes(
        &self,
        _: Request<router::ListRoutesRequest>,
    ) -> Result<Response<router::ListRoutesResponse>, Status> {
        let catalog = self.catalog()?;
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
        let held = applied.held.iter().take(Report::HELD_MAX);
        let age = self.calls.current().age();
        let catalog = self.calls.current().load();
        let endpoints = catalog.as_ref().map(|catalog| self.calls.models().status(catalog));
        let down = catalog.as_ref().map(|catalog| self.calls.models().down(catalog));
        Ok(Response::new(router::GetStatusResponse {
            received: self.progress.received().as_ref().map(Into::into),
            applied: applied.cursor.as_ref().map(Into::into),
            last_contact_age: age.and_then(|age| age.try_into().ok()),
            held: held.map(|held| (&HeldReport::from(held)).into()).collect(),
            draining: self.stop.is_cancelled(),
            active_calls: i32::try_from(self.calls.active()).unwrap_or(i32::MAX),
            endpoints: endpoints.iter().flatten().take(TOLD_MAX).map(Into::into).collect(),
            down_models: down.iter().flatten().take(TOLD_MAX).map(ToString::to_string).collect(),
        }))
    }
}

/// Returns the reason with which a call would fail.
fn reason_text(error: impl Into<CallError>) -> String {
    Failure::from(failure(error)).reason().to_string()
}

fn failure(error: impl Into<CallError>) -> CallFailure {
    CallFailure::at_once(error.into(), CallContext::new(""))
}
