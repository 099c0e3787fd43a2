//! The handlers of `ConfigService`: the change stream, the API tokens that it refers to, and the history.

use futures_util::{StreamExt as _, stream::BoxStream};
use switchboard::{
    encoded::Encoded,
    failure::Failure,
    pb::{registry, shared::config_service_server::ConfigService},
    stream::{Resume, RouterMessage},
};
use tonic::{Request, Response, Status, Streaming};

use super::{fleet, history::HistoryApi};
use crate::{
    feed::{
        Feed,
        credential::{self, CredentialError},
        stream::Frames,
    },
    fleet::uplink::UplinkError,
    wire::{
        self,
        credential::{CredentialKey, CredentialOwner},
    },
};

/// Implements `ConfigService` for tonic.
#[derive(Debug)]
pub struct ConfigApi {
    feed: Feed,
    history: HistoryApi,
}

impl ConfigApi {
    /// Creates the service from `feed` and `history`.
    #[must_use]
    pub const fn new(feed: Feed, history: HistoryApi) -> Self {
        Self { feed, history }
    }
}

#[tonic::async_trait]
impl ConfigService for ConfigApi {
    type WatchStream = Responses;
    type SubscribeStream = Responses;

    async fn watch(&self, request: Request<registry::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let registry::WatchRequest {
            resume,
            include_snapshot,
        } = request.into_inner();
        let resume = Resume::read(resume.as_ref());
        let frames = self
            .feed
            .watch(resume, include_snapshot.unwrap_or(true))
            .map_err(Failure::from)?;
        Ok(Response::new(responses(frames)))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<registry::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let messages = request.into_inner().map(|message| match message {
            Ok(message) => RouterMessage::try_from(message).map_err(UplinkError::from),
            Err(_status) => Err(UplinkError::Unreadable),
        });
        // The response begins before the hello arrives, because some clients send nothing until they have its headers.
        let frames = self.feed.subscribe(messages.boxed());
        Ok(Response::new(responses(frames)))
    }

    async fn get_model_credential(
        &self,
        request: Request<registry::GetModelCredentialRequest>,
    ) -> Result<Response<registry::GetModelCredentialResponse>, Status> {
        let key = CredentialKey::try_from(request.get_ref()).map_err(Failure::from)?;
        let found = match &key.owner {
            CredentialOwner::Model(model) => {
                let state = self.feed.state();
                let found = credential::find(&state, model, key.id).map(wire::credential::response);
                if found.is_ok() {
                    tracing::info!(model = %model, credential_id = %key.id, "handed out the API token of `{model}`");
                }
                found
            }
            CredentialOwner::Check(check) => {
                let taken = self.feed.fleet().take_credential(*check, key.id);
                taken
                    .as_ref()
                    .map(wire::credential::response)
                    .ok_or(CredentialError::CheckOver)
            }
        };
        Ok(Response::new(found.map_err(Failure::from)?))
    }

    async fn list_routers(
        &self,
        request: Request<registry::ListRoutersRequest>,
    ) -> Result<Response<registry::ListRoutersResponse>, Status> {
        Ok(Response::new(fleet::list_routers(&self.feed, request.get_ref())?))
    }

    async fn wait_for_revision(
        &self,
        request: Request<registry::WaitForRevisionRequest>,
    ) -> Result<Response<registry::WaitForRevisionResponse>, Status> {
        Ok(Response::new(fleet::wait_for_revision(&self.feed, request).await?))
    }

    async fn list_changes(
        &self,
        request: Request<registry::ListChangesRequest>,
    ) -> Result<Response<registry::ListChangesResponse>, Status> {
        self.history.list_changes(request).await
    }

    async fn restore_revision(
        &self,
        request: Request<registry::RestoreRevisionRequest>,
    ) -> Result<Response<registry::RestoreRevisionResponse>, Status> {
        self.history.restore_revision(request).await
    }

    async fn export_config(
        &self,
        _request: Request<registry::ExportConfigRequest>,
    ) -> Result<Response<registry::ExportConfigResponse>, Status> {
        Ok(self.history.export_config())
    }

    async fn apply_config(
        &self,
        request: Request<registry::ApplyConfigRequest>,
    ) -> Result<Response<registry::ApplyConfigResponse>, Status> {
        self.history.apply_config(request).await
    }
}

/// Messages to clients. A message that is the same for many streams is encoded once, and all of them share the bytes.
type Responses = BoxStream<'static, Result<Encoded, Status>>;

fn responses(frames: Frames) -> Responses {
    frames
        .map(|frame| {
            frame
                .map(|frame| frame.encode().into())
                .map_err(|error| Failure::from(error).into())
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

    use switchboard::{
        history::View,
        names::{CredentialId, InstanceId, ModelName},
        pb::{
            registry::{
                config_service_client::ConfigServiceClient, subscribe_request, subscribe_response, watch_response,
            },
            shared::config_service_server::ConfigServiceServer,
        },
        secret::ApiToken,
    };
    use tokio::sync::watch;
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        commit::Commit,
        domain::{
            credential::{ModelCredential, SetCredential},
            state::State,
        },
        fleet::Fleet,
        pulse::Pulse,
        store,
        testing::History,
    };

    type Client = ConfigServiceClient<ConfigServiceServer<ConfigApi>>;

    /// Creates a client that calls the service without a connection.
    fn client(published: watch::Receiver<Arc<State>>) -> Client {
        let history = HistoryApi::new(
            Commit::without_writer(published.clone()),
            store::History::new(PathBuf::new()),
        );
        let feed = Feed::new(
            published,
            Arc::new(Pulse::default()),
            Arc::new(Fleet::default()),
            Duration::from_secs(15),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        ConfigServiceClient::new(ConfigServiceServer::new(ConfigApi::new(feed, history)))
    }

    fn reason(status: &Status) -> String {
        status.get_error_details().error_info().unwrap().reason.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_without_fields_begins_with_a_snapshot() {
        use watch_response::Kind;

        let history = History::with_revisions(1);
        let mut client = client(history.published());
        let mut stream = client
            .watch(registry::WatchRequest::default())
            .await
            .unwrap()
            .into_inner();
        let mut kinds = Vec::new();
        for _ in 0..5 {
            kinds.push(stream.message().await.unwrap().unwrap().kind.unwrap());
        }
        let [
            Kind::Welcome(welcome),
            Kind::SnapshotBegin(begin),
            Kind::SnapshotPart(part),
            Kind::SnapshotEnd(end),
            Kind::Bookmark(bookmark),
        ] = &kinds[..]
        else {
            panic!("{kinds:?}")
        };
        assert_eq!(welcome.mode(), registry::Mode::Snapshot);
        assert_eq!((begin.resources, part.resources.len()), (1, 1));
        assert_eq!(begin.at, end.at);
        assert_eq!(bookmark.at, end.at);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_be_resumed_fails_at_once() {
        let history = History::with_revisions(1);
        let mut client = client(history.published());
        let request = registry::WatchRequest {
            resume: Some(switchboard::pb::types::Cursor::default()),
            include_snapshot: Some(false),
        };
        let status = client.watch(request).await.unwrap_err();
        assert_eq!(
            (status.code(), &*reason(&status)),
            (Code::InvalidArgument, "CURSOR_INVALID")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_router_is_welcomed_and_an_invalid_report_ends_its_stream() {
        use subscribe_request::Kind;

        let history = History::with_revisions(1);
        let mut client = client(history.published());
        let (up, messages) = tokio::sync::mpsc::channel(1);
        let mut stream = client
            .subscribe(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        let hello = registry::Hello {
            router_id: "router".to_owned(),
            instance: InstanceId::random().to_string(),
            resume: Some((&history.cursor_at(1, View::Router)).into()),
            ..Default::default()
        };
        let say = async |kind| up.send(registry::SubscribeRequest { kind: Some(kind) }).await.unwrap();
        say(Kind::Hello(hello)).await;
        let welcome = stream.message().await.unwrap().unwrap().kind.unwrap();
        let subscribe_response::Kind::Welcome(welcome) = welcome else {
            panic!("{welcome:?}")
        };
        assert_eq!(welcome.mode(), registry::Mode::Resumed);
        say(Kind::Report(registry::Report {
            held_total: -1,
            ..Default::default()
        }))
        .await;
        let status = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("an invalid report must not end the stream normally"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "report.held_total"
        );
    }

    #[tokio::test]
    async fn a_credential_is_read_from_the_published_state() {
        let history = History::with_revisions(1);
        let mut state = (*history.state()).clone();
        let id = CredentialId::random();
        let set = SetCredential {
            id,
            origins: BTreeSet::new(),
            token: ApiToken::parse("sk-1".to_owned()).unwrap(),
        };
        let model = ModelName::parse("models/a").unwrap();
        Arc::make_mut(&mut state.credentials).insert(model, ModelCredential::Set(set));
        let published = watch::Sender::new(Arc::new(state));
        let mut client = client(published.subscribe());
        let mut ask = async |model: &str, credential_id: String| {
            let model = model.to_owned();
            let request = registry::GetModelCredentialRequest { model, credential_id };
            client.get_model_credential(request).await
        };
        let answer = ask("models/a", id.to_string()).await.unwrap().into_inner();
        assert_eq!(
            (answer.api_token, answer.credential_id),
            ("sk-1".to_owned(), id.to_string())
        );
        let refusals = [
            ("models/a", CredentialId::random().to_string(), "CREDENTIAL_SUPERSEDED"),
            ("models/b", id.to_string(), "MODEL_NOT_FOUND"),
            ("a", id.to_string(), "VALIDATION_FAILED"),
        ];
        for (model, id, expected) in refusals {
            assert_eq!(reason(&ask(model, id).await.unwrap_err()), expected);
        }
    }
}
