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
    status::write::not_found,
    wire::{self, count, page::Page},
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
        let page = Page::parse("ListFeatures", request.page_size, &request.page_token)?;
        let catalogue = Catalogue::get().features();
        let (features, next_page_token) = page.cut_slice(catalogue, |feature| feature.name.id())?;
        let state = self.commit.state();
        let views = features.iter().filter_map(|feature| state.feature(&feature.name));
        Ok(registry::ListFeaturesResponse {
            features: views.map(|view| wire::feature::answer(&view)).collect(),
            next_page_token,
            total_size: count(catalogue.len()),
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
