//! `SettingsService`.

use switchboard::{
    pb::registry::{self, settings_service_server::SettingsService},
    service::request_id::RequestId,
};
use tonic::{Request, Response, Status};

use super::{failure, written};
use crate::{commit::Commit, wire};

/// Serves `SettingsService`.
#[derive(Debug, Clone)]
pub struct SettingsApi {
    commit: Commit,
}

impl SettingsApi {
    /// Reads and writes through `commit`.
    #[must_use]
    pub const fn new(commit: Commit) -> Self {
        Self { commit }
    }
}

#[tonic::async_trait]
impl SettingsService for SettingsApi {
    async fn get_settings(
        &self,
        _request: Request<registry::GetSettingsRequest>,
    ) -> Result<Response<registry::Settings>, Status> {
        Ok(Response::new(wire::settings::answer(&self.commit.state().settings())))
    }

    async fn update_settings(
        &self,
        request: Request<registry::UpdateSettingsRequest>,
    ) -> Result<Response<registry::Settings>, Status> {
        let id = RequestId::of(&request);
        let write = wire::settings::update(request.into_inner());
        match self.commit.submit(write).await {
            Ok(done) => Ok(written(done, wire::settings::answer)),
            Err(error) => Err(failure(error).into_status(id.as_str())),
        }
    }
}
