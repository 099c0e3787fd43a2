//! The handlers of `SettingsService`.

use switchboard::pb::registry::{self, settings_service_server::SettingsService};
use tonic::{Request, Response, Status};

use super::write;
use crate::{commit::Commit, wire};

/// Serves `SettingsService`.
#[derive(Debug, Clone)]
pub struct SettingsApi {
    commit: Commit,
}

impl SettingsApi {
    /// Creates the service, which reads and writes through `commit`.
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
        write(&self.commit, request).await
    }
}
