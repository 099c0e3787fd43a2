//! The fleet as an operator sees it: connected routers, the revision in force on each of them, and the health of model
//! servers.

use std::time::Duration;

use switchboard::{
    names::InstanceId,
    pb::{
        registry::{
            GetModelRequest, GetSettingsRequest, Held, HeldWhy, Hello, ListModelsRequest, ListRoutersRequest, Model,
            Report, Router, Settings, SubscribeRequest, SubscribeResponse, UpdateSettingsRequest,
            WaitForRevisionRequest, WaitForRevisionResponse, subscribe_request, subscribe_response,
        },
        types::{Cursor, EndpointState, Refusal},
    },
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{PATIENCE, Pair, Service, infer, reason_of},
};

/// Another router of the pair's registry.
pub(crate) struct Other {
    pub(crate) service: Service,
    _folder: TempDir,
}

impl Other {
    pub(crate) async fn start(pair: &Pair, id: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut args = vec![
            "--listen-addr=127.0.0.1:0".to_owned(),
            format!("--registry-addr=http://{}", pair.registry().listen_addr),
            format!("--router-id={id}"),
        ];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let service = Service::start("switchboard-router", folder.path(), &args).await;
        Self {
            service,
            _folder: folder,
        }
    }
}

async fn routers(pair: &Pair) -> Vec<Router> {
    let listed = pair.config().list_routers(ListRoutersRequest::default()).await;
    listed.unwrap().into_inner().routers
}

/// Waits until `count` routers are connected and have applied the newest revision.
async fn settled(pair: &Pair, count: usize) {
    pair.wait_until(async || {
        let routers = routers(pair).await;
        routers.len() == count && routers.iter().all(|router| router.lag == Some(0))
    })
    .await;
}

/// Waits until the pair's own router has applied the newest revision.
async fn reached(pair: &Pair) {
    pair.wait_until(async || {
        let routers = routers(pair).await;
        let own = routers.iter().find(|router| router.router_id == "pair");
        own.is_some_and(|own| own.lag == Some(0))
    })
    .await;
}

async fn write(pair: &Pair) -> i64 {
    let current = pair.settings().get_settings(GetSettingsRequest {}).await;
    let beta_enabled = Some(!current.unwrap().into_inner().beta_enabled.unwrap_or_default());
    let request = UpdateSettingsRequest {
        settings: Some(Settings {
            beta_enabled,
            ..Default::default()
        }),
        ..Default::default()
    };
    let written = pair.settings().update_settings(request).await.unwrap();
    written.into_inner().revision
}

fn within(timeout: Duration) -> WaitForRevisionRequest {
    WaitForRevisionRequest {
        timeout: prost_types::Duration::try_from(timeout).ok(),
        ..Default::default()
    }
}

async fn wait(pair: &Pair, request: WaitForRevisionRequest) -> Result<WaitForRevisionResponse, Status> {
    let waited = pair.config().wait_for_revision(request).await;
    waited.map(tonic::Response::into_inner)
}

const SHORT: Duration = Duration::from_millis(200);

/// Returns the routers that the status of a wait names.
fn named(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["routers"].clone()
}

async fn routers_are_listed_and_duplicate_ids_are_marked() {
    let pair = Pair::start().await;
    settled(&pair, 1).await;
    let [router] = &routers(&pair).await[..] else {
        panic!("one router")
    };
    assert_eq!((&*router.router_id, router.duplicate), ("pair", false));
    assert!(router.report_time.is_some() && router.held.is_empty());

    let twin = Other::start(&pair, "pair", &["--group=north"]).await;
    settled(&pair, 2).await;
    let both = routers(&pair).await;
    assert!(both.iter().all(|router| router.duplicate));
    let mut groups = both.iter().map(|router| router.group.as_str());
    assert!(groups.any(|group| group == "north"));
    drop(twin);
    pair.finish().await;
}

async fn a_wait_names_the_frozen_router_and_ends_within_100_ms_of_its_apply() {
    let pair = Pair::start().await;
    let other = Other::start(&pair, "other", &[]).await;
    settled(&pair, 2).await;
    other.service.freeze();
    let revision = write(&pair).await;
    reached(&pair).await;
    let status = wait(&pair, within(SHORT)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of::<()>(&Err(status.clone())).as_deref()),
        (Code::DeadlineExceeded, Some("REVISION_NOT_APPLIED"))
    );
    assert_eq!(named(&status), "other");
    let lags: Vec<_> = routers(&pair).await.iter().map(|router| router.lag).collect();
    assert_eq!(lags, [Some(1), Some(0)]);

    let mut client = pair.config();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let answer = client.wait_for_revision(within(PATIENCE)).await;
        (answer, Instant::now())
    });
    other.service.thaw();
    settled(&pair, 2).await;
    let seen = Instant::now();
    let (answer, ended) = waiting.join_next().await.unwrap().unwrap();
    let answer = answer.unwrap().into_inner();
    assert_eq!(
        (answer.revision, answer.router_ids),
        (revision, vec!["other".to_owned(), "pair".to_owned()])
    );
    let late = ended.saturating_duration_since(seen);
    assert!(
        late < Duration::from_millis(100),
        "the wait ends {late:?} after the last apply was seen"
    );
    pair.finish().await;
}

async fn a_wait_ends_before_the_deadline_of_its_call() {
    let pair = Pair::start().await;
    settled(&pair, 1).await;
    pair.router.freeze();
    write(&pair).await;
    let mut request = tonic::Request::new(WaitForRevisionRequest::default());
    request.set_timeout(Duration::from_secs(1));
    let status = pair.config().wait_for_revision(request).await.unwrap_err();
    pair.router.thaw();
    assert_eq!(
        named(&status),
        "pair",
        "the registry answers before the deadline of the call"
    );
    pair.finish().await;
}

async fn a_wait_includes_a_killed_router_until_its_next_process_applies_but_not_a_stopped_one() {
    let pair = Pair::start().await;
    let other = Other::start(&pair, "other", &[]).await;
    settled(&pair, 2).await;
    other.service.freeze();
    write(&pair).await;
    reached(&pair).await;
    let mut client = pair.config();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.wait_for_revision(within(PATIENCE)).await });
    // The wait has begun: a second wait names the router both before and after it is killed.
    assert_eq!(named(&wait(&pair, within(SHORT)).await.unwrap_err()), "other");
    other.service.kill();
    pair.wait_until(async || routers(&pair).await.len() == 1).await;
    let early = timeout(SHORT, waiting.join_next()).await;
    assert!(early.is_err(), "the wait continues: {early:?}");
    let mut next = Other::start(&pair, "other", &[]).await;
    let answer = timeout(PATIENCE, waiting.join_next()).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().unwrap().into_inner().router_ids, ["other", "pair"]);

    let two = || WaitForRevisionRequest {
        min_routers: Some(2),
        ..within(SHORT)
    };
    settled(&pair, 2).await;
    assert!(wait(&pair, two()).await.is_ok());
    assert!(next.service.terminate().await.success());
    pair.wait_until(async || routers(&pair).await.len() == 1).await;
    let reason = reason_of(&wait(&pair, two()).await);
    assert_eq!(reason.as_deref(), Some("NO_ROUTER_CONNECTED"));
    pair.finish().await;
}

async fn a_router_that_shuts_down_during_a_wait_is_no_longer_waited_for() {
    let pair = Pair::start().await;
    reached(&pair).await;
    let peer = Peer::join(&pair, "peer").await;
    peer.report(Report::default()).await;
    let mut client = pair.config();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.wait_for_revision(within(PATIENCE)).await });
    assert_eq!(named(&wait(&pair, within(SHORT)).await.unwrap_err()), "peer");
    peer.leave().await;
    let answer = timeout(PATIENCE, waiting.join_next()).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().unwrap().into_inner().router_ids, ["pair"]);
    pair.finish().await;
}

async fn a_wait_can_be_for_one_group_and_for_no_router() {
    let pair = Pair::start().await;
    settled(&pair, 1).await;
    let of = |group: &str, min_routers| WaitForRevisionRequest {
        group: group.to_owned(),
        min_routers: Some(min_routers),
        ..within(SHORT)
    };
    assert_eq!(wait(&pair, of("north", 0)).await.unwrap().router_ids, [""; 0]);
    let reason = reason_of(&wait(&pair, of("north", 1)).await);
    assert_eq!(reason.as_deref(), Some("NO_ROUTER_CONNECTED"));
    let future = WaitForRevisionRequest {
        revision: 1_000,
        ..within(SHORT)
    };
    assert_eq!(
        reason_of(&wait(&pair, future).await).as_deref(),
        Some("REVISION_IN_FUTURE")
    );
    let elsewhere = WaitForRevisionRequest {
        incarnation: InstanceId::random().to_string(),
        ..within(SHORT)
    };
    let reason = reason_of(&wait(&pair, elsewhere).await);
    assert_eq!(reason.as_deref(), Some("STORE_INCARNATION_CHANGED"));
    pair.finish().await;
}

/// A router that sends the messages that the test gives it.
struct Peer {
    up: mpsc::Sender<SubscribeRequest>,
    down: Streaming<SubscribeResponse>,
    head: Cursor,
}

impl Peer {
    /// Joins the fleet and reads to the end of its snapshot.
    async fn join(pair: &Pair, id: &str) -> Self {
        let hello = Hello {
            router_id: id.to_owned(),
            instance: InstanceId::random().to_string(),
            ..Default::default()
        };
        let (up, requests) = mpsc::channel(4);
        let hello = subscribe_request::Kind::Hello(hello);
        up.send(SubscribeRequest { kind: Some(hello) }).await.unwrap();
        let stream = pair.config().subscribe(ReceiverStream::new(requests)).await;
        let mut down = stream.unwrap().into_inner();
        loop {
            let message = down.message().await.unwrap().unwrap();
            if let Some(subscribe_response::Kind::SnapshotEnd(end)) = message.kind {
                let head = end.at.unwrap();
                return Self { up, down, head };
            }
        }
    }

    async fn report(&self, report: Report) {
        let kind = Some(subscribe_request::Kind::Report(report));
        self.up.send(SubscribeRequest { kind }).await.unwrap();
    }

    /// Closes the router's side of the stream, as a router does when it shuts down.
    async fn leave(self) {
        let Self { up, mut down, .. } = self;
        drop(up);
        while down.message().await.unwrap().is_some() {}
    }

    /// Returns the error with which the registry ends the stream.
    async fn end(&mut self) -> Status {
        loop {
            match self.down.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }
}

async fn a_refused_item_fails_a_wait_at_once_and_an_invalid_report_ends_only_its_stream() {
    let pair = Pair::start().await;
    pair.configure("http://127.0.0.1:9", None).await;
    let peer = Peer::join(&pair, "peer").await;
    let (head, revision) = (peer.head.clone(), peer.head.revision);
    let item = Refusal {
        resource: "models/mistral".to_owned(),
        field: "family".to_owned(),
        reason: "FAMILY_UNKNOWN".to_owned(),
        revision: revision - 1,
        ..Default::default()
    };
    let refused = Report {
        applied: Some(head.clone()),
        held: vec![Held {
            item: Some(item),
            why: HeldWhy::Refused.into(),
            used_revision: 0,
        }],
        held_total: 1,
        ..Default::default()
    };
    peer.report(refused).await;
    let asked = Instant::now();
    let status = wait(&pair, within(PATIENCE)).await.unwrap_err();
    assert!(asked.elapsed() < PATIENCE / 2, "the wait fails at once");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "REVISION_REFUSED");
    let violation = &details.precondition_failure().unwrap().violations[0];
    assert_eq!(
        (&*violation.subject, &*violation.description),
        ("peer models/mistral", "family: FAMILY_UNKNOWN")
    );
    peer.leave().await;

    let mut liar = Peer::join(&pair, "liar").await;
    let mut client = pair.config();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.wait_for_revision(within(Duration::from_secs(2))).await });
    let mut future = head;
    future.revision += 5;
    liar.report(Report {
        applied: Some(future),
        ..Default::default()
    })
    .await;
    let status = liar.end().await;
    assert_eq!(
        reason_of::<()>(&Err(status)).as_deref(),
        Some("STREAM_PROTOCOL_VIOLATION")
    );
    settled(&pair, 1).await;
    assert!(
        wait(&pair, within(PATIENCE)).await.is_ok(),
        "other routers are not affected"
    );
    // A wait that began earlier continues to wait for the next process of the misbehaving router.
    if let Err(status) = waiting.join_next().await.unwrap().unwrap() {
        assert_eq!(named(&status), "liar");
    }
    pair.finish().await;
}

async fn the_health_of_a_server_comes_from_calls() {
    let pair = Pair::start().await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), Some("sk-1")).await;
    pair.wait_until_routed("code_generations").await;
    let read = async || {
        let request = GetModelRequest {
            name: "models/mistral".to_owned(),
        };
        pair.models().get_model(request).await.unwrap().into_inner()
    };
    let etag = read().await.etag;
    let shows = async |state: EndpointState| {
        let is_shown = |model: &Model| model.health.first().is_some_and(|health| health.state() == state);
        pair.wait_until(async || is_shown(&read().await)).await;
        read().await
    };

    upstream.then(Script::response(404, &[], "no"));
    infer(&mut pair.inference(), "code_generations", "hello")
        .await
        .unwrap_err();
    let model = shows(EndpointState::Misconfigured).await;
    let health = &model.health[0];
    assert_eq!(
        (&*health.uri, &*health.reason, health.router_count),
        (&*upstream.url(), "UPSTREAM_MODEL_NOT_FOUND", 1)
    );
    assert_eq!(health.routers[0].router, "pair");
    assert_eq!(model.etag, etag, "health does not change the model");
    let listed = pair.models().list_models(ListModelsRequest::default()).await;
    let listed = &listed.unwrap().into_inner().models[0].health[0];
    assert_eq!((listed.state, listed.routers.len()), (health.state, 0));

    upstream.then(Script::response(503, &[("retry-after", "1")], ""));
    infer(&mut pair.inference(), "code_generations", "hello")
        .await
        .unwrap_err();
    shows(EndpointState::BackingOff).await;
    // The router makes no call for as long as the server has asked for.
    pair.wait_until(async || infer(&mut pair.inference(), "code_generations", "hello").await.is_ok())
        .await;
    assert_eq!(shows(EndpointState::Healthy).await.health[0].reason, "");
    pair.finish().await;
}

tests! {
    routers_are_listed_and_duplicate_ids_are_marked,
    a_wait_names_the_frozen_router_and_ends_within_100_ms_of_its_apply,
    a_wait_ends_before_the_deadline_of_its_call,
    a_wait_includes_a_killed_router_until_its_next_process_applies_but_not_a_stopped_one,
    a_router_that_shuts_down_during_a_wait_is_no_longer_waited_for,
    a_wait_can_be_for_one_group_and_for_no_router,
    a_refused_item_fails_a_wait_at_once_and_an_invalid_report_ends_only_its_stream,
    the_health_of_a_server_comes_from_calls,
}
