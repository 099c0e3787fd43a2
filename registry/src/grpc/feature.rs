//! The handlers of `FeatureService`.

use switchboard::{
    catalogue::Catalogue,
    failure::Failure,
    pb::registry::{self, feature_service_server::FeatureService},
};
use tonic::{Request, Response, Status};

use super::write;
use crate::{
    commit::Commit,
    domain::view::FeatureView,
    status::write::not_found,
    wire::{self, count},
};

/// Serves `FeatureService`.
#[derive(Debug, Clone)]
pub struct FeatureApi {
    commit: Commit,
}

impl FeatureApi {
    /// Creates the service, which reads and writes through `commit`.
    #[must_use]
    pub const fn new(commit: Commit) -> Self {
        Self { commit }
    }

    fn read(&self, request: &registry::GetFeatureRequest) -> Result<registry::Feature, Failure> {
        let name = wire::feature::get(request)?;
        let view = self.commit.state().feature(&name);
        view.map(|view| wire::feature::answer(&view))
            .ok_or_else(|| not_found(&name.into()))
    }

    fn list(&self, request: &registry::ListFeaturesRequest) -> Result<registry::ListFeaturesResponse, Failure> {
        let listing = wire::feature::list(request)?;
        let state = self.commit.state();
        let catalogue = Catalogue::get().features().iter();
        let all: Vec<_> = catalogue.filter_map(|facts| state.feature(&facts.name)).collect();
        let is_listed = |view: &FeatureView| listing.has(&view.feature.value);
        let (page, next_page_token) = listing.page.cut_slice(&all, |view| view.facts.name.id(), is_listed)?;
        Ok(registry::ListFeaturesResponse {
            features: page.into_iter().map(wire::feature::answer).collect(),
            next_page_token,
            total_size: count(all.iter().filter(|view| is_listed(view)).count()),
            revision: state.items.revision().get(),
        })
    }
}

#[tonic::async_trait]
impl FeatureService for FeatureApi {
    async fn get_feature(
        &self,
        request: Request<registry::GetFeatureRequest>,
    ) -> Result<Response<registry::Feature>, Status> {
        Ok(Response::new(self.read(request.get_ref())?))
    }

    async fn list_features(
        &self,
        request: Request<registry::ListFeaturesRequest>,
    ) -> Result<Response<registry::ListFeaturesResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref())?))
    }

    async fn update_feature(
        &self,
        request: Request<registry::UpdateFeatureRequest>,
    ) -> Result<Response<registry::Feature>, Status> {
        write(&self.commit, request).await
    }

    async fn batch_update_features(
        &self,
        request: Request<registry::BatchUpdateFeaturesRequest>,
    ) -> Result<Response<registry::BatchUpdateFeaturesResponse>, Status> {
        write(&self.commit, request).await
    }
}
