//! A scripted registry on a loopback port. It speaks the real protocol, and the test determines every message.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use switchboard::{
    failure::Failure,
    history::Cursor,
    pb::registry::{
        self, SubscribeResponse,
        config_service_server::{ConfigService, ConfigServiceServer},
        subscribe_request,
        subscribe_response::Kind,
    },
    reason::Reason,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::subscription::fixture::Store;

const BOUND: Duration = Duration::from_secs(10);

/// The answer to a request for a credential.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Token(&'static str),
    /// The token, but only after the gate has been opened.
    TokenBehindGate(&'static str),
    /// A token that is bound to another origin than the model names.
    Elsewhere,
    Superseded,
    Unavailable,
}

#[derive(Debug, Default)]
struct Credentials {
    answers: Mutex<HashMap<String, Answer>>,
    /// Number of requests for a credential.
    asked: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
}

pub(super) struct Registry {
    pub(super) addr: SocketAddr,
    streams: mpsc::Receiver<RouterStream>,
    credentials: Arc<Credentials>,
    server: JoinSet<()>,
}

/// The registry's end of one stream.
#[derive(Debug)]
pub(super) struct RouterStream {
    pub(super) hello: registry::Hello,
    upward: Streaming<registry::SubscribeRequest>,
    downward: mpsc::Sender<Result<SubscribeResponse, Status>>,
}

impl Registry {
    pub(super) async fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (streams_in, streams) = mpsc::channel(4);
        let credentials = Arc::<Credentials>::default();
        let service = Service {
            streams: streams_in,
            credentials: Arc::clone(&credentials),
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(ConfigServiceServer::new(service));
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            addr,
            streams,
            credentials,
            server,
        }
    }

    /// Stops listening.
    pub(super) async fn stop(&mut self) {
        self.server.shutdown().await;
    }

    /// Returns the next stream that the router opens.
    pub(super) async fn accept(&mut self) -> RouterStream {
        timeout(BOUND, self.streams.recv()).await.unwrap().unwrap()
    }

    pub(super) fn answer(&self, id: &str, answer: Answer) {
        self.credentials.answers.lock().insert(id.to_owned(), answer);
    }

    /// Waits until a credential has been requested.
    pub(super) async fn asked(&self) {
        let mut asked = self.credentials.asked.subscribe();
        timeout(BOUND, asked.wait_for(|asked| *asked > 0))
            .await
            .unwrap()
            .unwrap();
    }

    pub(super) fn open_gate(&self) {
        self.credentials.is_open.send_replace(true);
    }
}

impl RouterStream {
    pub(super) async fn send(&self, kind: Kind) {
        self.downward
            .send(Ok(SubscribeResponse { kind: Some(kind) }))
            .await
            .unwrap();
    }

    pub(super) async fn welcome(&self, head: &Cursor, mode: registry::Mode) {
        self.welcome_because(head, mode, registry::ModeReason::Unspecified)
            .await;
    }

    async fn welcome_because(&self, head: &Cursor, mode: registry::Mode, reason: registry::ModeReason) {
        self.send(Kind::Welcome(registry::Welcome {
            head: Some(head.into()),
            oldest_resumable: 1,
            heartbeat: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            mode: mode.into(),
            reason: reason.into(),
        }))
        .await;
    }

    /// Sends a welcome and a complete snapshot.
    pub(super) async fn snapshot(&self, store: &Store) {
        self.snapshot_because(store, registry::ModeReason::First).await;
    }

    /// Sends a welcome and a complete snapshot of a new incarnation of the store.
    pub(super) async fn fork(&self, store: &Store) {
        self.snapshot_because(store, registry::ModeReason::Fork).await;
    }

    async fn snapshot_because(&self, store: &Store, reason: registry::ModeReason) {
        let at = Some((&store.cursor).into());
        self.welcome_because(&store.cursor, registry::Mode::Snapshot, reason)
            .await;
        let resources: Vec<_> = store.resources.values().cloned().collect();
        self.send(Kind::SnapshotBegin(registry::SnapshotBegin {
            at: at.clone(),
            resources: i64::try_from(resources.len()).unwrap(),
            bytes: 0,
        }))
        .await;
        self.send(Kind::SnapshotPart(registry::SnapshotPart { part: 0, resources }))
            .await;
        self.send(Kind::SnapshotEnd(registry::SnapshotEnd { at })).await;
        self.bookmark(store, 1).await;
    }

    /// Sends the changes in `store` after `from`.
    pub(super) async fn delta(&self, from: &Cursor, store: &Store) {
        let upserts = store.resources.values();
        let upserts = upserts.filter(|resource| resource.revision > from.revision.get());
        self.send(Kind::Delta(registry::Delta {
            from_revision: from.revision.get(),
            to: Some((&store.cursor).into()),
            upserts: upserts.cloned().collect(),
            deletes: store
                .deleted
                .iter()
                .filter(|(_, revision)| **revision > from.revision.get())
                .map(|(name, revision)| registry::Tombstone {
                    name: name.clone(),
                    revision: *revision,
                })
                .collect(),
            ..Default::default()
        }))
        .await;
    }

    pub(super) async fn bookmark(&self, store: &Store, probe: i64) {
        self.send(Kind::Bookmark(registry::Bookmark {
            at: Some((&store.cursor).into()),
            head_revision: store.cursor.revision.get(),
            probe,
            stalled: false,
        }))
        .await;
    }

    /// Ends the stream with an error.
    pub(super) async fn cut(self) {
        self.downward.send(Err(Status::unavailable("cut"))).await.unwrap();
    }

    /// Returns the next report for which `fits` holds.
    pub(super) async fn report(&mut self, fits: impl Fn(&registry::Report) -> bool) -> registry::Report {
        let found = async {
            loop {
                let message = self.upward.message().await.unwrap().unwrap();
                if let Some(subscribe_request::Kind::Report(report)) = message.kind
                    && fits(&report)
                {
                    return report;
                }
            }
        };
        timeout(BOUND, found).await.expect("no report fits")
    }

    /// Returns the next report that a catalog compiled from this state is in use.
    pub(super) async fn applied(&mut self, store: &Store) -> registry::Report {
        let cursor = Some((&store.cursor).into());
        self.report(|report| report.applied == cursor).await
    }

    /// Waits for the end of the router's direction and returns how it ended.
    pub(super) async fn end_of_upward(&mut self) -> Result<(), Status> {
        while self.upward.message().await?.is_some() {}
        Ok(())
    }

    /// Waits until the router has half-closed the stream.
    pub(super) async fn half_closed(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.upward.message().await {} };
        timeout(BOUND, ended)
            .await
            .expect("the router did not half-close the stream");
    }
}

struct Service {
    streams: mpsc::Sender<RouterStream>,
    credentials: Arc<Credentials>,
}

#[tonic::async_trait]
impl ConfigService for Service {
    type WatchStream = ReceiverStream<Result<registry::WatchResponse, Status>>;
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn watch(&self, _: Request<registry::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<registry::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut upward = request.into_inner();
        let Some(subscribe_request::Kind::Hello(hello)) = upward.message().await?.and_then(|first| first.kind) else {
            return Err(Status::invalid_argument("hello comes first"));
        };
        let (downward, stream) = mpsc::channel(16);
        let stream_of_router = RouterStream {
            hello,
            upward,
            downward,
        };
        self.streams
            .send(stream_of_router)
            .await
            .map_err(|_gone| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_routers(
        &self,
        _: Request<registry::ListRoutersRequest>,
    ) -> Result<Response<registry::ListRoutersResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn wait_for_revision(
        &self,
        _: Request<registry::WaitForRevisionRequest>,
    ) -> Result<Response<registry::WaitForRevisionResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn list_changes(
        &self,
        _: Request<registry::ListChangesRequest>,
    ) -> Result<Response<registry::ListChangesResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn restore_revision(
        &self,
        _: Request<registry::RestoreRevisionRequest>,
    ) -> Result<Response<registry::RestoreRevisionResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn export_config(
        &self,
        _: Request<registry::ExportConfigRequest>,
    ) -> Result<Response<registry::ExportConfigResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn apply_config(
        &self,
        _: Request<registry::ApplyConfigRequest>,
    ) -> Result<Response<registry::ApplyConfigResponse>, Status> {
        Err(Status::unimplemented("routers do not call this"))
    }

    async fn get_model_credential(
        &self,
        request: Request<registry::GetModelCredentialRequest>,
    ) -> Result<Response<registry::GetModelCredentialResponse>, Status> {
        let id = request.into_inner().credential_id;
        self.credentials.asked.send_modify(|asked| *asked += 1);
        let answer = self.credentials.answers.lock().get(&id).copied();
        if matches!(answer, Some(Answer::TokenBehindGate(_))) {
            let mut gate = self.credentials.is_open.subscribe();
            gate.wait_for(|is_open| *is_open).await.unwrap();
        }
        let given = |origin: &str, token: &str| {
            Ok(Response::new(registry::GetModelCredentialResponse {
                credential_id: id.clone(),
                origins: vec![origin.to_owned()],
                api_token: token.to_owned(),
            }))
        };
        match answer {
            Some(Answer::Token(token) | Answer::TokenBehindGate(token)) => given("http://gpu1:8000", token),
            Some(Answer::Elsewhere) => given("http://elsewhere:80", "sk-wrong"),
            Some(Answer::Superseded) => Err(Failure::new(Reason::CredentialSuperseded, "another").into()),
            Some(Answer::Unavailable) | None => Err(Status::unavailable("not now")),
        }
    }
}
