//! `FeatureService`.

use switchboard::{
    catalogue::Catalogue,
    failure::Failure,
    pb::registry::{self, feature_service_server::FeatureService},
    service::request_id::RequestId,
};
use tonic::{Request, Response, Status};

use super::{count, failure, invalid, written};
use crate::{
    commit::Commit,
    wire::{self, page::Page},
};

/// Serves `FeatureService`.
#[derive(Debug, Clone)]
pub struct FeatureApi {
    commit: Commit,
}

impl FeatureApi {
    /// Reads and writes through `commit`.
    #[must_use]
    pub const fn new(commit: Commit) -> Self {
        Self { commit }
    }

    fn list(&self, request: &registry::ListFeaturesRequest) -> Result<registry::ListFeaturesResponse, Failure> {
        let page = Page::parse("ListFeatures", request.page_size, &request.page_token).map_err(invalid)?;
        let catalogue = Catalogue::get().features();
        let (features, next_page_token) = page
            .cut_slice(catalogue, |feature| feature.name.id())
            .map_err(invalid)?;
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
    async fn list_features(
        &self,
        request: Request<registry::ListFeaturesRequest>,
    ) -> Result<Response<registry::ListFeaturesResponse>, Status> {
        let id = RequestId::of(&request);
        self.list(request.get_ref())
            .map(Response::new)
            .map_err(|failure| failure.into_status(id.as_str()))
    }

    async fn update_feature(
        &self,
        request: Request<registry::UpdateFeatureRequest>,
    ) -> Result<Response<registry::Feature>, Status> {
        let id = RequestId::of(&request);
        let write = wire::feature::update(request.into_inner());
        match self.commit.submit(write).await {
            Ok(done) => Ok(written(done, wire::feature::answer)),
            Err(error) => Err(failure(error).into_status(id.as_str())),
        }
    }
}
