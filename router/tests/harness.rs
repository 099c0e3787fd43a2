//! A router with a hand-made configuration, on a port of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a harness fails by panicking")]

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use prost::Message as _;
use switchboard::{
    bounded,
    digest::{ChainDigest, StateDigest},
    endpoint::EndpointUri,
    history::{Cursor, Incarnation, View},
    names::{CredentialId, FeatureName, Group, IncarnationId, InstanceId, ModelName, Revision, RouterId, StoreId},
    pb::{
        registry,
        router::{
            self, CandidateOutcome, inference_service_client::InferenceServiceClient,
            inference_service_server::InferenceServiceServer, routing_service_client::RoutingServiceClient,
            routing_service_server::RoutingServiceServer, stream_infer_response::Event,
        },
    },
    resource::{
        feature::{FeatureLimits, HedgeDelay, RuleId, RuleMatch},
        model::{self, CaCertificates, Count, Endpoint, Identifier, InfillMode, ModelSpec, Platform, ServerName, Tls},
    },
    secret::ApiToken,
    service::{call::CallLayer, metrics::CallMetrics},
};
use switchboard_router::{
    call::CallLimits,
    catalog::{Assignment, Catalog, CompiledModel, CompiledRule, CompiledSetting, Credential, ModelState},
    current::Current,
    endpoints::{self, Health},
    grpc::{inference::InferenceApi, routing::RoutingApi},
    live::LiveModels,
    probe::Prober,
    subscription::{Subscription, SubscriptionConfig},
    upstream::{Upstream, names::Names},
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Response, Status, Streaming,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_types::StatusExt as _;

/// The model's API token. It may appear only in one request header.
pub(crate) const TOKEN: &str = "sk-canary-7d1e";

/// The maximum size of a request in bytes.
pub(crate) const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// A hand-made configuration of revision 7: one model, `models/m`, which answers `duo_chat`.
#[derive(Debug)]
pub(crate) struct Setup {
    family: &'static str,
    platform: Platform,
    endpoint: String,
    token_origins: Option<Vec<String>>,
    token: &'static str,
    settings: Vec<(&'static str, CompiledSetting)>,
    state: Option<ModelState>,
    infill_mode: InfillMode,
    limits: CallLimits,
    pads: bool,
    model_limits: model::Limits,
    endpoints: Vec<String>,
    others: Vec<(&'static str, String)>,
    inference_paused: bool,
    tls: Tls,
    identifier: Option<String>,
    names: Names,
}

impl Setup {
    /// Creates a setup with a model of family `mistral` at this base URL, without a token.
    pub(crate) fn at(endpoint: impl Into<String>) -> Self {
        Self {
            family: "mistral",
            platform: Platform::OpenAiCompatible,
            endpoint: endpoint.into(),
            token_origins: None,
            token: TOKEN,
            settings: Vec::new(),
            state: None,
            infill_mode: InfillMode::FamilyDefault,
            limits: CallLimits::default(),
            pads: false,
            model_limits: model::Limits::default(),
            endpoints: Vec::new(),
            others: Vec::new(),
            inference_paused: false,
            tls: Tls::default(),
            identifier: Some("org/model".to_owned()),
            names: Names::default(),
        }
    }

    /// Removes the model's identifier.
    pub(crate) fn without_identifier(mut self) -> Self {
        self.identifier = None;
        self
    }

    /// Sets the resolver of host names.
    pub(crate) fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Sets the model's CA certificates and server name.
    pub(crate) fn tls(mut self, ca_pem: Option<&str>, server_name: Option<&str>) -> Self {
        self.tls = Tls {
            ca: CaCertificates::parse(ca_pem.unwrap_or_default()).unwrap(),
            server_name: ServerName::parse(server_name.unwrap_or_default()).unwrap(),
        };
        self
    }

    /// Adds another server of the model.
    pub(crate) fn and_at(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds another model at this base URL, which is ready for calls.
    pub(crate) fn other(mut self, id: &'static str, endpoint: impl Into<String>) -> Self {
        self.others.push((id, endpoint.into()));
        self
    }

    /// Sets the fallback models of `duo_chat`, in this order.
    pub(crate) fn fallbacks(self, ids: &[&str]) -> Self {
        self.setting("duo_chat", assigned(&[], ids))
    }

    /// Sets the limits of the model.
    pub(crate) fn model_limits(mut self, limits: model::Limits) -> Self {
        self.model_limits = limits;
        self
    }

    /// Pauses self-hosted inference.
    pub(crate) fn paused(mut self) -> Self {
        self.inference_paused = true;
        self
    }

    pub(crate) fn family(mut self, family: &'static str) -> Self {
        self.family = family;
        self
    }

    /// Sets the platform of the model, and its identifier there.
    pub(crate) fn platform(mut self, platform: Platform, identifier: &'static str) -> Self {
        (self.platform, self.identifier) = (platform, Some(identifier.to_owned()));
        self
    }

    /// Gives the model an API token that is bound to these origins.
    pub(crate) fn token_for(mut self, origins: &[&str]) -> Self {
        self.token_origins = Some(origins.iter().map(|&origin| origin.to_owned()).collect());
        self
    }

    /// Sets the text of the API token.
    pub(crate) fn token(mut self, token: &'static str) -> Self {
        self.token = token;
        self
    }

    /// Sets the setting of a feature.
    pub(crate) fn setting(mut self, feature: &'static str, setting: CompiledSetting) -> Self {
        self.settings.push((feature, setting));
        self
    }

    /// Sets the state of the model, which is ready otherwise.
    pub(crate) fn state(mut self, state: ModelState) -> Self {
        self.state = Some(state);
        self
    }

    /// Sets the infill mode of the model.
    pub(crate) fn infill_mode(mut self, mode: InfillMode) -> Self {
        self.infill_mode = mode;
        self
    }

    /// Changes the call limits.
    pub(crate) fn limits(mut self, change: impl FnOnce(&mut CallLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// If `pads` is set, pads small messages of streamed answers.
    pub(crate) fn padding(mut self, pads: bool) -> Self {
        self.pads = pads;
        self
    }

    /// Starts the router.
    pub(crate) async fn start(self) -> Router {
        let (limits, pads, names) = (self.limits, self.pads, self.names.clone());
        let current = Arc::new(Current::default());
        current.swap(Arc::new(self.catalog()));
        Router::naming(current, limits, pads, names).await
    }

    pub(crate) fn catalog(self) -> Catalog {
        let origin = |text: &String| EndpointUri::parse(text).unwrap().origin();
        let credential = self.token_origins.map(|origins| {
            Arc::new(Credential {
                id: CredentialId::random(),
                origins: origins.iter().map(origin).collect(),
                token: ApiToken::parse(self.token.to_owned()).unwrap(),
            })
        });
        let endpoints = |uris: &[&String]| {
            let list = uris.iter().map(|uri| Endpoint::at(EndpointUri::parse(uri).unwrap()));
            model::Endpoints::new(list.collect()).unwrap()
        };
        let identifier = |text: &str| Identifier::parse(text).unwrap();
        let uris: Vec<_> = [&self.endpoint].into_iter().chain(&self.endpoints).collect();
        let plain = registry::Model {
            display_name: Some("M".to_owned()),
            family: Some(self.family.to_owned()),
            endpoint: Some(self.endpoint.clone()),
            ..Default::default()
        };
        let spec = ModelSpec {
            platform: self.platform,
            endpoints: endpoints(&uris),
            identifier: self.identifier.as_deref().and_then(identifier),
            limits: Box::new(self.model_limits),
            infill_mode: self.infill_mode,
            tls: self.tls,
            ..ModelSpec::whole(plain).unwrap()
        };
        let others = self.others.iter().map(|(id, uri)| {
            let other = ModelSpec {
                endpoints: endpoints(&[uri]),
                identifier: identifier(id),
                limits: Box::default(),
                tls: Tls::default(),
                ..spec.clone()
            };
            let other = CompiledModel::new(ModelName::from_id(id).unwrap(), Arc::new(other), None);
            (other.name.clone(), ModelState::Ready(Arc::new(other)))
        });
        let mut models: HashMap<_, _> = others.collect();
        let mut features = HashMap::from([(feature("duo_chat"), model_name().into())]);
        features.extend(
            self.settings
                .into_iter()
                .map(|(name, setting)| (feature(name), setting)),
        );
        let model = CompiledModel::new(model_name(), Arc::new(spec), credential);
        let state = self.state.unwrap_or_else(|| ModelState::Ready(Arc::new(model)));
        models.insert(model_name(), state);
        Catalog {
            cursor: Cursor {
                store: StoreId::random(),
                incarnation: Incarnation {
                    number: 1,
                    id: IncarnationId::random(),
                },
                revision: Revision::new(7).unwrap(),
                chain: ChainDigest::NONE,
                view: View::Router,
                state: StateDigest::EMPTY,
            },
            features,
            models,
            inference_paused: self.inference_paused,
        }
    }
}

pub(crate) fn model_name() -> ModelName {
    ModelName::parse("models/m").unwrap()
}

/// Builds a setting for `models/m` with rules by namespace, `(id, namespace, model)`, and with fallbacks.
pub(crate) fn assigned(rules: &[(&str, &str, &str)], fallbacks: &[&str]) -> CompiledSetting {
    let rule = |&(id, namespace, model): &(&str, &str, &str)| CompiledRule {
        id: RuleId::parse(id).unwrap(),
        condition: (&RuleMatch::new(vec![namespace.into()], vec![], vec![], None).unwrap()).into(),
        model: ModelName::from_id(model).unwrap(),
    };
    CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: model_name(),
        fallbacks: fallbacks.iter().map(|id| ModelName::from_id(id).unwrap()).collect(),
        rules: rules.iter().map(rule).collect(),
        limits: FeatureLimits::default(),
        hedge_delay: None,
    }))
}

/// Builds a setting with this model and nothing else.
pub(crate) fn named(model: &str) -> CompiledSetting {
    ModelName::from_id(model).unwrap().into()
}

/// Builds a setting for `models/m` whose calls are hedged after this delay.
pub(crate) fn hedged(delay: Duration) -> CompiledSetting {
    CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: model_name(),
        fallbacks: Vec::new(),
        rules: Vec::new(),
        limits: FeatureLimits::default(),
        hedge_delay: HedgeDelay::parse(delay).ok(),
    }))
}

/// Builds a setting for `models/m` with the feature's limits: its concurrent calls, and its reserved places of the
/// model.
pub(crate) fn limited(max_concurrency: Option<i32>, reserved_concurrency: i32) -> CompiledSetting {
    CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: model_name(),
        fallbacks: Vec::new(),
        rules: Vec::new(),
        limits: FeatureLimits {
            max_concurrency: max_concurrency.and_then(|most| Count::parse(most).ok()),
            reserved_concurrency: Count::parse(reserved_concurrency).ok(),
        },
        hedge_delay: None,
    }))
}

fn feature(name: &str) -> FeatureName {
    FeatureName::from_id(name).unwrap()
}

/// A router on a port of its own, with clients. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) client: InferenceServiceClient<Channel>,
    pub(crate) routing: RoutingServiceClient<Channel>,
    pub(crate) stop: CancellationToken,
    pub(crate) drain: CancellationToken,
    pub(crate) current: Arc<Current>,
    pub(crate) models: LiveModels,
    upstream: Upstream,
    pub(crate) address: SocketAddr,
    pub(crate) tasks: TaskTracker,
    _server: JoinSet<()>,
}

impl Router {
    /// Starts a router whose configuration is `current`.
    pub(crate) async fn start(current: Arc<Current>, limits: CallLimits) -> Self {
        Self::naming(current, limits, false, Names::default()).await
    }

    async fn naming(current: Arc<Current>, limits: CallLimits, pads: bool, names: Names) -> Self {
        let (tasks, drain) = (TaskTracker::new(), CancellationToken::new());
        let models = LiveModels::new("", names.clone());
        let upstream = Upstream::new(Duration::from_secs(2), names, models.clone()).unwrap();
        let config = SubscriptionConfig {
            registry_addrs: Vec::new(),
            router_id: RouterId::parse("router-1").unwrap(),
            group: Group::default(),
            instance: InstanceId::random(),
            build: "test".into(),
            snapshot: None,
        };
        let progress = Subscription::new(config, Arc::clone(&current), models.clone()).progress();
        let (shared, served) = (Arc::clone(&current), upstream.clone());
        let api = InferenceApi::new(shared, served, limits, tasks.clone(), drain.clone()).padding(pads);
        let stop = CancellationToken::new();
        let routing = RoutingApi::new(api.calls().clone(), progress, stop.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let metrics = CallMetrics::new(&mut Registry::default(), &[]);
            let server = Server::builder()
                .layer(CallLayer::new(MESSAGE_BYTES, metrics))
                .add_service(bounded!(InferenceServiceServer::new(api), MESSAGE_BYTES))
                .add_service(bounded!(RoutingServiceServer::new(routing), MESSAGE_BYTES));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect().await.unwrap();
        Self {
            current,
            address,
            models,
            upstream,
            client: InferenceServiceClient::new(channel.clone()),
            routing: RoutingServiceClient::new(channel),
            stop,
            drain,
            tasks,
            _server: server,
        }
    }

    /// Replaces the configuration.
    pub(crate) fn swap(&self, setup: Setup) {
        self.current.swap(Arc::new(setup.catalog()));
    }

    /// Resolves a feature without making a call.
    pub(crate) async fn resolved(&self, feature: &str) -> router::ResolveFeatureResponse {
        let request = router::ResolveFeatureRequest {
            feature: feature.to_owned(),
            ..Default::default()
        };
        let resolved = self.routing.clone().resolve_feature(request).await;
        resolved.unwrap().into_inner()
    }

    /// Probes every server once, one after the other, and returns the health of each.
    pub(crate) async fn probe(&self) -> Vec<Option<Health>> {
        let prober = Prober::new(Arc::clone(&self.current), self.upstream.clone());
        for server in self.servers() {
            prober.probe(&server.identity).await;
        }
        self.servers().iter().map(|server| server.health).collect()
    }

    /// Returns the number of attempts in the metrics for each outcome, and the number of running attempts.
    pub(crate) fn counted<const N: usize>(&self, outcomes: [&str; N]) -> ([u64; N], u64) {
        let mut registry = Registry::default();
        self.upstream.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the metric exists").trim().parse().unwrap()
        };
        let counts = outcomes.map(|outcome| value(&format!("attempts_total{{outcome=\"{outcome}\"}}")));
        (counts, value("attempts_active"))
    }

    /// Returns the current state of the servers.
    pub(crate) fn servers(&self) -> Vec<endpoints::Status> {
        self.models.status(&self.current.load().unwrap())
    }

    /// Replaces the client with one whose transport reads little ahead: it has the protocol's default windows.
    pub(crate) async fn narrow(mut self) -> Self {
        const WINDOW: u32 = 65_535;
        let channel = Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        self.client = InferenceServiceClient::new(channel.connect().await.unwrap());
        self
    }

    /// Makes a streamed call and reads its answer to the end.
    pub(crate) async fn ask(&self, request: impl tonic::IntoRequest<router::InferRequest>) -> Answer {
        let mut answer = Answer::default();
        match self.client.clone().stream_infer(request).await {
            Ok(response) => {
                answer.metadata = Some(response.metadata().clone());
                answer.read(response.into_inner()).await;
            }
            Err(status) => answer.failure = Some(status),
        }
        answer
    }

    /// Makes a unary call.
    pub(crate) async fn infer(
        &self,
        request: impl tonic::IntoRequest<router::InferRequest>,
    ) -> Result<Response<router::InferResponse>, Told> {
        let answered = self.client.clone().infer(request).await;
        answered.map_err(|status| Told::of(&status))
    }

    /// Begins a streamed call and reads its selection and its first piece.
    pub(crate) async fn begin(&self) -> Streaming<router::StreamInferResponse> {
        let mut stream = self
            .client
            .clone()
            .stream_infer(prompt("hi"))
            .await
            .unwrap()
            .into_inner();
        assert!(matches!(event(&mut stream).await, Event::Selection(_)));
        assert!(matches!(event(&mut stream).await, Event::Delta(_)));
        stream
    }

    /// Waits until this many calls run.
    pub(crate) async fn running(&self, calls: usize) {
        let reached = async {
            while self.tasks.len() != calls {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = timeout(Duration::from_secs(10), reached).await;
        reached.expect("this many calls run");
    }

    /// Waits until every call's task has ended. From then on each body has been read to its end, or its connection is
    /// closed.
    pub(crate) async fn settled(&self) {
        self.tasks.close();
        let ended = timeout(Duration::from_secs(10), self.tasks.wait()).await;
        ended.expect("every task ends");
        self.tasks.reopen();
    }
}

/// Reads a number from the environment; `.ci/long` sets larger ones.
pub(crate) fn number<N: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: N) -> N {
    std::env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
}

/// Returns a percentile of these times.
pub(crate) fn percentile(times: &[Duration], hundredths: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * hundredths / 100).min(times.len() - 1)]
}

/// Reads the next event of a stream, which must have one.
pub(crate) async fn event(stream: &mut Streaming<router::StreamInferResponse>) -> Event {
    let message = stream.message().await.unwrap().expect("another event arrives");
    message.event.expect("an event is set")
}

/// Builds a call of `duo_chat` with plain text.
pub(crate) fn prompt(text: &str) -> router::InferRequest {
    router::InferRequest {
        feature: "duo_chat".to_owned(),
        input: Some(router::infer_request::Input::Prompt(text.to_owned())),
        ..Default::default()
    }
}

/// Everything that a caller received.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) metadata: Option<tonic::metadata::MetadataMap>,
    pub(crate) selection: Option<router::Selection>,
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) signatures: Vec<Vec<u8>>,
    pub(crate) calls: Vec<router::ToolCallDelta>,
    pub(crate) deltas: usize,
    pub(crate) completion: Option<router::Completion>,
    pub(crate) failure: Option<Status>,
}

impl Answer {
    /// Reads the stream to its end and checks the order of its events.
    pub(crate) async fn read(&mut self, mut stream: Streaming<router::StreamInferResponse>) {
        loop {
            let event = match stream.message().await {
                Ok(Some(message)) => message.event.expect("an event is set"),
                Ok(None) => break assert!(self.completion.is_some(), "OK never comes without a completion"),
                Err(status) => {
                    assert_eq!(self.completion, None, "no failure follows a completion");
                    self.failure = Some(status);
                    break;
                }
            };
            assert_eq!(self.completion, None, "no event follows the completion");
            match event {
                Event::Selection(selection) => {
                    assert_eq!(self.selection, None, "only one selection arrives");
                    assert_eq!(self.deltas, 0, "the selection comes first");
                    self.selection = Some(selection);
                }
                Event::Delta(delta) => {
                    self.deltas += 1;
                    match delta.kind.expect("a delta has a kind") {
                        router::delta::Kind::Text(text) => self.text.push_str(&text),
                        router::delta::Kind::Reasoning(text) => self.reasoning.push_str(&text),
                        router::delta::Kind::ToolCall(call) => self.calls.push(call),
                        router::delta::Kind::ReasoningSignature(bytes) => self.signatures.push(bytes),
                    }
                }
                Event::Completion(completion) => self.completion = Some(completion),
            }
        }
        assert!(
            self.selection.is_some() || self.metadata.is_none(),
            "an answer has a selection"
        );
    }

    /// Returns the failure as callers evaluate it.
    pub(crate) fn told(&self) -> Told {
        Told::of(self.failure.as_ref().expect("the call fails"))
    }
}

/// A failure as callers evaluate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: tonic::Code,
    pub(crate) reason: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) fields: Vec<String>,
    pub(crate) retry: Option<Duration>,
    /// Each candidate model and its outcome.
    pub(crate) candidates: Vec<(String, CandidateOutcome)>,
}

impl Told {
    pub(crate) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().expect("every failure has its reason");
        assert_eq!(info.domain, "switchboard");
        let id = info.metadata.get("request_id").expect("every failure names its call");
        // A failure after the first message arrives in trailers, which do not contain the header.
        if let Some(header) = status.metadata().get("x-request-id") {
            assert_eq!(*header, id.as_str());
        }
        let fields = details
            .bad_request()
            .map(|bad| bad.field_violations.as_slice())
            .unwrap_or_default();
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            metadata: info.metadata.clone(),
            fields: fields.iter().map(|violation| violation.field.clone()).collect(),
            retry: details.retry_info().and_then(|info| info.retry_delay),
            candidates: candidates(status),
        }
    }
}

/// Returns the candidates that a failure lists, if it lists any.
fn candidates(status: &Status) -> Vec<(String, CandidateOutcome)> {
    let rich = tonic_types::pb::Status::decode(status.details()).expect("the details are readable");
    let ours = rich
        .details
        .iter()
        .find(|detail| detail.type_url == "type.googleapis.com/switchboard.router.v1.Candidates");
    let Some(ours) = ours else { return Vec::new() };
    let candidates = router::Candidates::decode(ours.value.as_slice()).expect("the message has the named type");
    candidates
        .candidates
        .into_iter()
        .map(|candidate| (candidate.model.clone(), candidate.outcome()))
        .collect()
}
