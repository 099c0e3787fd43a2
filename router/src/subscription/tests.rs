//! Tests of the whole subscription against a scripted registry.

mod registry;
mod restart;

use std::{net::SocketAddr, time::Duration};

use switchboard::{
    names::{Group, InstanceId, ModelName, RouterId},
    pb::{
        registry::{HeldWhy, HistoryRefusalWhy, Mode},
        types::EndpointState,
    },
    reason::Reason,
};
use tokio::time::{Instant, timeout};

use self::registry::{Answer, Registry, RouterStream};
use super::{
    fixture::{Store, TOKEN_A, TOKEN_B, assigned, model, model_with_token},
    persist::SnapshotFile,
    *,
};
use crate::{
    catalog::{Caller, ModelState},
    endpoints::{Ask, Shape, Verdict, Work},
    live::LiveModels,
};

const CHAT: &str = "features/duo_chat";
const A: &str = "models/a";
const TOKEN_C: &str = "cccccccccccccccccccccccccccccccc";

/// A router that follows a scripted registry.
struct Case {
    registry: Registry,
    current: Arc<Current>,
    models: LiveModels,
    cancel: CancellationToken,
    router: JoinSet<()>,
}

impl Case {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(snapshot: Option<SnapshotFile>) -> Self {
        let registry = Registry::start(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let (current, models, cancel) = (Arc::default(), LiveModels::default(), CancellationToken::new());
        let mut case = Self {
            registry,
            current,
            models,
            cancel,
            router: JoinSet::new(),
        };
        case.start_router(snapshot);
        case
    }

    /// Starts a router whose only state is its snapshot file.
    fn start_router(&mut self, snapshot: Option<SnapshotFile>) {
        let config = SubscriptionConfig {
            registry_addrs: vec![format!("http://{}", self.registry.addr).parse().unwrap()],
            router_id: RouterId::parse("router-1").unwrap(),
            group: Group::parse("north").unwrap(),
            instance: InstanceId::random(),
            build: "test".into(),
            snapshot,
        };
        self.current = Arc::default();
        self.cancel = CancellationToken::new();
        let subscription = Subscription::new(config, Arc::clone(&self.current), self.models.clone());
        self.router.spawn(subscription.run(self.cancel.clone()));
    }

    /// Starts a router that has applied `store`.
    async fn following(store: &Store) -> (Self, RouterStream) {
        let mut case = Self::start().await;
        let mut stream = case.registry.accept().await;
        stream.snapshot(store).await;
        stream.applied(store).await;
        (case, stream)
    }

    /// Returns the model that answers a chat now, and the token that it sends.
    fn chat(&self) -> Option<(String, Option<String>)> {
        let catalog = self.current.load()?;
        let decision = catalog.resolve("duo_chat", &Caller::default()).ok()?;
        let model = catalog.candidates(&decision).next()?.model.ok()?;
        let token = model.credential.as_ref();
        let token = token.map(|credential| credential.token.expose().to_owned());
        Some((model.identifier_or(None).to_owned(), token))
    }

    async fn ready(&self) {
        let mut ready = self.current.ready();
        let ready = ready.wait_for(|ready| *ready);
        timeout(Duration::from_secs(4), ready).await.unwrap().unwrap();
    }

    async fn stop(mut self, stream: RouterStream) {
        self.cancel.cancel();
        drop(stream);
        self.stopped().await;
    }

    async fn stopped(&mut self) {
        let ended = timeout(Duration::from_secs(3), self.router.join_next()).await;
        ended.expect("the router should end promptly").unwrap().unwrap();
    }
}

fn store() -> Store {
    let mut store = Store::new();
    store.write(vec![(A, model(|_| ())), (CHAT, assigned(A))]);
    store
}

/// A chat answered by this model without a token.
fn plain(identifier: &str) -> Option<(String, Option<String>)> {
    Some((identifier.to_owned(), None))
}

fn with_token(token: &str) -> Option<(String, Option<String>)> {
    Some(("a".to_owned(), Some(token.to_owned())))
}

fn rename(store: &mut Store, identifier: &str) {
    let payload = model(|entry| entry.model.as_mut().unwrap().identifier = Some(identifier.to_owned()));
    store.write(vec![(A, payload)]);
}

#[tokio::test]
async fn a_router_that_lost_its_connection_resumes_without_a_snapshot() {
    let mut store = store();
    let mut case = Case::start().await;
    let mut stream = case.registry.accept().await;
    assert_eq!(stream.hello.router_id, "router-1");
    assert_eq!(stream.hello.resume, None);
    stream.report(|report| report.received.is_none()).await;
    assert!(case.current.load().is_none());
    stream.snapshot(&store).await;
    stream.applied(&store).await;
    assert_eq!(case.chat(), plain("a"));
    assert!(case.current.age().is_some());
    case.ready().await;

    let from = store.cursor;
    rename(&mut store, "second");
    stream.delta(&from, &store).await;
    stream.applied(&store).await;
    assert_eq!(case.chat(), plain("second"));
    stream.bookmark(&store, 77).await;
    stream.report(|report| report.probe == 77).await;

    stream.cut().await;
    let mut stream = case.registry.accept().await;
    assert_eq!(stream.hello.resume, Some((&store.cursor).into()));
    assert!(!stream.hello.want_snapshot);
    stream.applied(&store).await;
    stream.welcome(&store.cursor, Mode::Resumed).await;
    let from = store.cursor;
    rename(&mut store, "third");
    stream.delta(&from, &store).await;
    stream.applied(&store).await;
    assert_eq!(case.chat(), plain("third"));
    case.stop(stream).await;
}

#[tokio::test]
async fn a_wrong_digest_is_reported_and_the_router_requests_a_snapshot() {
    let mut store = store();
    let (mut case, mut stream) = Case::following(&store).await;
    let from = store.cursor;
    rename(&mut store, "second");
    let mut wrong = store.clone();
    wrong.cursor.state = from.state;
    stream.delta(&from, &wrong).await;
    let refused = |report: &switchboard::pb::registry::Report| {
        let why = report.history_refusal.as_ref().map(|refusal| refusal.why());
        why == Some(HistoryRefusalWhy::StateMismatch)
    };
    let report = stream.report(refused).await;
    assert_eq!(report.received, Some((&from).into()));
    assert_eq!(case.chat(), plain("a"), "the last good catalog stays in use");

    let mut stream = case.registry.accept().await;
    assert!(stream.hello.want_snapshot);
    stream.report(refused).await;
    stream.snapshot(&store).await;
    let report = stream.applied(&store).await;
    assert_eq!(report.history_refusal, None);
    assert_eq!(case.chat(), plain("second"));
    case.stop(stream).await;
}

#[tokio::test]
async fn credentials_are_fetched_by_id_and_a_superseded_one_waits_for_its_change() {
    let mut store = store();
    store.write(vec![(A, model_with_token(TOKEN_A))]);
    let mut case = Case::start().await;
    case.registry.answer(TOKEN_A, Answer::Token("sk-a"));
    case.registry.answer(TOKEN_B, Answer::Superseded);
    case.registry.answer(TOKEN_C, Answer::Token("sk-c"));
    let mut stream = case.registry.accept().await;
    stream.snapshot(&store).await;
    let nothing_held = |report: &switchboard::pb::registry::Report| report.applied.is_some() && report.held.is_empty();
    stream.report(nothing_held).await;
    assert_eq!(case.chat(), with_token("sk-a"));
    case.ready().await;

    let from = store.cursor;
    store.write(vec![(A, model_with_token(TOKEN_B))]);
    stream.delta(&from, &store).await;
    let report = stream.applied(&store).await;
    assert_eq!(report.held_total, 1);
    let held = &report.held[0];
    let item = held.item.as_ref().unwrap();
    assert_eq!(
        (item.resource.as_str(), item.revision),
        (A, store.cursor.revision.get())
    );
    assert_eq!(held.why(), HeldWhy::CredentialPending);
    assert_eq!(held.used_revision, from.revision.get());
    assert_eq!(case.chat(), with_token("sk-a"), "the old version stays in use");

    let from = store.cursor;
    store.write(vec![(A, model_with_token(TOKEN_C))]);
    stream.delta(&from, &store).await;
    stream.report(nothing_held).await;
    assert_eq!(case.chat(), with_token("sk-c"));
    case.stop(stream).await;
}

#[tokio::test]
async fn a_model_deleted_while_its_credential_is_being_fetched_is_removed_with_it() {
    let mut store = store();
    store.write(vec![(A, model_with_token(TOKEN_A))]);
    let mut case = Case::start().await;
    case.registry.answer(TOKEN_A, Answer::TokenBehindGate("sk-a"));
    let mut stream = case.registry.accept().await;
    stream.snapshot(&store).await;
    case.registry.asked().await;

    let from = store.cursor;
    store.delete(&[A]);
    stream.delta(&from, &store).await;
    let report = stream.applied(&store).await;
    assert!(report.held.iter().all(|held| held.item.as_ref().unwrap().resource != A));
    case.registry.open_gate();
    assert_eq!(case.chat(), None);

    // A new model with the same name and another token uses nothing of the deleted one.
    case.registry.answer(TOKEN_B, Answer::Token("sk-b"));
    let from = store.cursor;
    store.write(vec![(A, model_with_token(TOKEN_B))]);
    stream.delta(&from, &store).await;
    stream
        .report(|report| report.applied == Some((&store.cursor).into()) && report.held.is_empty())
        .await;
    assert_eq!(case.chat(), with_token("sk-b"));
    case.stop(stream).await;
}

#[tokio::test]
async fn a_credential_for_other_origins_is_not_used_and_a_failed_fetch_is_repeated() {
    for wrong in [Answer::Elsewhere, Answer::Unavailable] {
        let mut store = store();
        store.write(vec![(A, model_with_token(TOKEN_A))]);
        let mut case = Case::start().await;
        case.registry.answer(TOKEN_A, wrong);
        let mut stream = case.registry.accept().await;
        stream.snapshot(&store).await;
        let report = stream.applied(&store).await;
        assert_eq!(report.held_total, 1);
        case.ready().await;
        assert_eq!(case.chat(), None);
        case.registry.asked().await;

        case.registry.answer(TOKEN_A, Answer::Token("sk-a"));
        stream.report(|report| report.held.is_empty()).await;
        assert_eq!(case.chat(), with_token("sk-a"));
        case.stop(stream).await;
    }
}

#[tokio::test]
async fn a_new_incarnation_of_the_store_is_used_once_its_credentials_are_fetched() {
    let mut store = store();
    let (mut case, stream) = Case::following(&store).await;
    stream.cut().await;
    store.restore();
    store.write(vec![(A, model_with_token(TOKEN_A))]);
    case.registry.answer(TOKEN_A, Answer::TokenBehindGate("sk-a"));
    let mut stream = case.registry.accept().await;
    stream.fork(&store).await;
    case.registry.asked().await;
    assert_eq!(case.chat(), plain("a"), "the old incarnation stays in use until then");
    case.registry.open_gate();
    let report = stream.applied(&store).await;
    assert_eq!(report.held, []);
    assert_eq!(case.chat(), with_token("sk-a"));
    case.stop(stream).await;
}

#[tokio::test]
async fn the_last_catalog_stays_in_use_while_the_registry_is_down() {
    let mut store = store();
    let (mut case, stream) = Case::following(&store).await;
    let addr = case.registry.addr;
    stream.cut().await;
    case.registry.stop().await;
    assert_eq!(case.chat(), plain("a"));
    case.registry = Registry::start(addr).await;
    let mut stream = case.registry.accept().await;
    assert_eq!(stream.hello.resume, Some((&store.cursor).into()));
    stream.welcome(&store.cursor, Mode::Resumed).await;
    let from = store.cursor;
    rename(&mut store, "back");
    stream.delta(&from, &store).await;
    stream.applied(&store).await;
    assert_eq!(case.chat(), plain("back"));
    case.stop(stream).await;
}

#[tokio::test]
async fn the_health_of_servers_is_reported_once_and_again_on_the_next_stream() {
    let (mut case, mut stream) = Case::following(&store()).await;
    let catalog = case.current.load().unwrap();
    let ModelState::Ready(model) = &catalog.models[&ModelName::parse(A).unwrap()] else {
        panic!("the model is ready")
    };
    let work = Work {
        shape: Shape::Stream,
        bytes: 1,
    };
    let ask = Ask {
        key: None,
        tried: &[],
        work,
        deadline: Instant::now() + Duration::from_secs(1),
        may_be_degraded: false,
    };
    let mut chosen = case.models.of(model).choose(&ask).unwrap();
    chosen.in_flight.judge(Verdict::Soft(Reason::UpstreamStreamTruncated));
    let uri = &model.spec.servers()[0].uri;
    let report = stream.report(|report| !report.endpoints.is_empty()).await;
    let told = &report.endpoints[0];
    assert_eq!(
        (&*told.model, &*told.uri, told.state(), &*told.reason),
        (A, uri.as_str(), EndpointState::Recovering, "UPSTREAM_STREAM_TRUNCATED")
    );
    stream.cut().await;
    let mut stream = case.registry.accept().await;
    assert_eq!(stream.hello.group, "north");
    let again = stream.report(|_| true).await;
    assert_eq!(again.endpoints, report.endpoints);
    case.stop(stream).await;
}

#[tokio::test]
async fn a_stream_that_the_router_gives_up_is_not_half_closed() {
    let (mut case, mut stream) = Case::following(&store()).await;
    // A second welcome violates the protocol.
    stream.welcome(&store().cursor, Mode::Resumed).await;
    let next = case.registry.accept().await;
    let ended = timeout(Duration::from_millis(100), stream.end_of_upward()).await;
    assert!(
        !matches!(ended, Ok(Ok(()))),
        "otherwise the registry would no longer wait for this router"
    );
    drop(stream);
    case.stop(next).await;
}

#[tokio::test]
async fn a_router_that_shuts_down_half_closes_its_stream() {
    let (case, mut stream) = Case::following(&store()).await;
    case.cancel.cancel();
    stream.half_closed().await;
    case.stop(stream).await;
}
