//! The part of `ConfigService` that is about the history, and about the configuration as a whole.

use switchboard::{failure::Failure, pb::registry};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::write;
use crate::{commit::Commit, status::write::unreadable_history, store::History, wire};

/// Answers calls of `ConfigService`.
#[derive(Debug)]
pub struct HistoryApi {
    commit: Commit,
    history: History,
    /// Held while a configuration is applied, because checking a large one keeps the writer busy for a while.
    applying: Mutex<()>,
}

impl HistoryApi {
    /// Creates the service. It reads the current state and writes through `commit`, and reads past changes from
    /// `history`.
    #[must_use]
    pub fn new(commit: Commit, history: History) -> Self {
        Self {
            commit,
            history,
            applying: Mutex::default(),
        }
    }

    pub(super) async fn list_changes(
        &self,
        request: Request<registry::ListChangesRequest>,
    ) -> Result<Response<registry::ListChangesResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn list(&self, request: &registry::ListChangesRequest) -> Result<registry::ListChangesResponse, Failure> {
        // The state is read first: the page is then at least as new, and nothing newer is returned.
        let state = self.commit.state();
        let listing = wire::history::list(request, &state.items)?;
        let read = self.history.page(&listing.query).await;
        let read = read.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "could not read the history");
            unreadable_history(&error)
        })?;
        Ok(wire::history::page(&listing, read, &state.items))
    }

    pub(super) async fn restore_revision(
        &self,
        request: Request<registry::RestoreRevisionRequest>,
    ) -> Result<Response<registry::RestoreRevisionResponse>, Status> {
        write(&self.commit, request).await
    }

    pub(super) fn export_config(&self) -> Response<registry::ExportConfigResponse> {
        Response::new(wire::configuration::export(&self.commit.state()))
    }

    pub(super) async fn apply_config(
        &self,
        request: Request<registry::ApplyConfigRequest>,
    ) -> Result<Response<registry::ApplyConfigResponse>, Status> {
        let _turn = self.applying.lock().await;
        write(&self.commit, request).await
    }
}
