//! The handlers of `ModelService`.

use std::{ops::Bound, sync::Arc};

use switchboard::{
    catalogue::Catalogue,
    failure::Failure,
    names::ModelName,
    pb::registry::{self, model_service_server::ModelService},
    resource::model::Model,
    service::deadline,
};
use tonic::{Request, Response, Status};

use super::write;
use crate::{
    check,
    commit::Commit,
    domain::{state::State, view::ModelView},
    fleet::Fleet,
    status::write::not_found,
    wire::{self, count, page::Page},
};

/// Maximum number of routers that are returned for one endpoint.
const ROUTERS_SHOWN_MAX: usize = 100;

/// Serves `ModelService`.
#[derive(Debug, Clone)]
pub struct ModelApi {
    commit: Commit,
    fleet: Arc<Fleet>,
}

impl ModelApi {
    /// Creates the service, which reads and writes through `commit`, and reads the health of model servers from
    /// `fleet`.
    #[must_use]
    pub const fn new(commit: Commit, fleet: Arc<Fleet>) -> Self {
        Self { commit, fleet }
    }

    async fn check(
        &self,
        request: Request<registry::CheckModelRequest>,
    ) -> Result<registry::CheckModelResponse, Failure> {
        let allowed = deadline::of(request.metadata())?;
        let asked = wire::check::wanted(request.into_inner(), allowed.map(deadline::less_margin));
        let (wanted, allowed) = asked?;
        let checks = check::check(&self.fleet, &self.commit.state(), wanted, allowed).await?;
        Ok(wire::check::answer(&checks))
    }

    fn read(&self, request: &registry::GetModelRequest) -> Result<registry::Model, Failure> {
        let name = wire::model::get(request)?;
        let view = self.commit.state().model(&name);
        let view = view.ok_or_else(|| not_found(&name.into()))?;
        let mut answer = wire::model::answer(&view);
        let health = self.fleet.health_of([&view.model.value], ROUTERS_SHOWN_MAX);
        answer.health = wire::fleet::health(health.into_iter().flatten().collect(), ROUTERS_SHOWN_MAX);
        Ok(answer)
    }

    fn list(&self, request: &registry::ListModelsRequest) -> Result<registry::ListModelsResponse, Failure> {
        let page = Page::parse("ListModels", request.page_size, &request.page_token)?;
        let after = page.after().map(ModelName::from_id).transpose();
        let after = after.map_err(|_misspelled| Failure::from(Page::unknown_token()))?;
        let state = self.commit.state();
        let (models, next_page_token) = page.cut(models_after(&state, after), |view| view.model.value.name.id());
        let shown: Vec<&Model> = models.iter().map(|view| &view.model.value).collect();
        // Only the worst report of each endpoint is returned.
        let health = self.fleet.health_of(shown, 1);
        let answers = models.iter().zip(health).map(|(view, health)| registry::Model {
            health: wire::fleet::health(health, 0),
            ..wire::model::answer(view)
        });
        Ok(registry::ListModelsResponse {
            models: answers.collect(),
            next_page_token,
            total_size: count(state.models.len()),
            revision: state.items.revision().get(),
        })
    }

    fn list_families(
        &self,
        request: &registry::ListModelFamiliesRequest,
    ) -> Result<registry::ListModelFamiliesResponse, Failure> {
        let page = Page::parse("ListModelFamilies", request.page_size, &request.page_token)?;
        let (families, next_page_token) =
            page.cut_slice(Catalogue::get().families(), |family| &family.machine_name, |_| true)?;
        let state = self.commit.state();
        Ok(registry::ListModelFamiliesResponse {
            families: families
                .iter()
                .map(|family| wire::model::family(family, &state))
                .collect(),
            next_page_token,
        })
    }
}

#[tonic::async_trait]
impl ModelService for ModelApi {
    async fn create_model(
        &self,
        request: Request<registry::CreateModelRequest>,
    ) -> Result<Response<registry::Model>, Status> {
        write(&self.commit, request).await
    }

    async fn get_model(
        &self,
        request: Request<registry::GetModelRequest>,
    ) -> Result<Response<registry::Model>, Status> {
        Ok(Response::new(self.read(request.get_ref())?))
    }

    async fn list_models(
        &self,
        request: Request<registry::ListModelsRequest>,
    ) -> Result<Response<registry::ListModelsResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref())?))
    }

    async fn update_model(
        &self,
        request: Request<registry::UpdateModelRequest>,
    ) -> Result<Response<registry::Model>, Status> {
        write(&self.commit, request).await
    }

    async fn delete_model(
        &self,
        request: Request<registry::DeleteModelRequest>,
    ) -> Result<Response<registry::DeleteModelResponse>, Status> {
        write(&self.commit, request).await
    }

    async fn list_model_families(
        &self,
        request: Request<registry::ListModelFamiliesRequest>,
    ) -> Result<Response<registry::ListModelFamiliesResponse>, Status> {
        Ok(Response::new(self.list_families(request.get_ref())?))
    }

    async fn check_model(
        &self,
        request: Request<registry::CheckModelRequest>,
    ) -> Result<Response<registry::CheckModelResponse>, Status> {
        Ok(Response::new(self.check(request).await?))
    }
}

fn models_after(state: &State, after: Option<ModelName>) -> impl Iterator<Item = ModelView> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    state
        .models
        .range((start, Bound::Unbounded))
        .filter_map(|(name, _)| state.model(name))
}
