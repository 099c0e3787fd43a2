//! Starts the two binaries on free ports, calls them, and checks that they shut down in order.

use std::{
    collections::HashMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use switchboard::pb::{
    registry::{
        self, config_service_client::ConfigServiceClient, feature_service_client::FeatureServiceClient,
        model_service_client::ModelServiceClient, settings_service_client::SettingsServiceClient,
    },
    router::{
        self, ResolveFeatureRequest, inference_service_client::InferenceServiceClient,
        routing_service_client::RoutingServiceClient, stream_infer_response::Event,
    },
    types::Provider,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::Channel};

/// Time limit for operations that take a moment on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One running binary.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    pub(crate) listen_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    log: PathBuf,
}

impl Service {
    /// Starts a binary and waits until it serves.
    pub(crate) async fn start(name: &'static str, folder: &Path, args: &[String]) -> Self {
        Self::start_under(&[], name, folder, args).await
    }

    /// Like [`Self::start`], with these environment variables.
    pub(crate) async fn start_under(env: &[(&str, &str)], name: &'static str, folder: &Path, args: &[String]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(args).envs(env.iter().copied());
        Self::launch(name, folder, &mut command).await
    }

    /// Runs a command that starts the binary, and waits until it serves.
    pub(crate) async fn launch(name: &'static str, folder: &Path, command: &mut Command) -> Self {
        let ready_file = folder.join(format!("{name}.ready"));
        let log = folder.join(format!("{name}.log"));
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let variable = |flag: &str| format!("{}_{flag}", name.replace('-', "_").to_uppercase());
        let mut child = command
            .env(variable("ADMIN_ADDR"), "127.0.0.1:0")
            .env(variable("LOG_LEVEL"), "debug")
            .env(variable("READY_FILE"), &ready_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}; build it first: cargo build --workspace"));
        let started = Instant::now();
        let addresses: HashMap<String, SocketAddr> = loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).expect("the ready file is JSON");
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{name} ended with {status}:\n{}", fs::read_to_string(&log).unwrap());
            }
            assert!(started.elapsed() < PATIENCE, "{name} is not ready");
            sleep(Duration::from_millis(5)).await;
        };
        Self {
            name,
            child,
            listen_addr: addresses["listen_addr"],
            admin_addr: addresses["admin_addr"],
            log,
        }
    }

    /// Returns a channel to the service. It connects on first use, and again after the service has restarted.
    pub(crate) fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.listen_addr))
            .unwrap()
            .connect_lazy()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the memory that the process uses now, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Returns the maximum memory that the process has used, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kills the process without any cleanup, as a power cut would. Returns its listen address.
    pub(crate) fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.listen_addr
    }

    /// Suspends the process without notice.
    pub(crate) fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Resumes a suspended process.
    pub(crate) fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Asks the process to shut down and waits until it has ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                asked.elapsed() < PATIENCE,
                "{} does not end:\n{}",
                self.name,
                self.log()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the log of this process and of earlier processes with the same name and folder.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log contains this text.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        let asked = Instant::now();
        while !self.log().contains(text) {
            assert!(asked.elapsed() < PATIENCE, "no `{text}` in:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
            if std::thread::panicking() {
                eprintln!(
                    "--- {} wrote:\n{}",
                    self.name,
                    fs::read_to_string(&self.log).unwrap_or_default()
                );
            }
        }
    }
}

/// A registry and a router that follows it.
#[derive(Debug)]
pub(crate) struct Pair {
    registry: Option<Service>,
    pub(crate) router: Service,
    /// The last field, so that it is dropped after the processes, which write into the folder until they end.
    pub(crate) folder: TempDir,
}

impl Pair {
    /// Starts both processes and waits until both serve.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Like [`Self::start`], with flags for both processes.
    pub(crate) async fn start_with(flags: &[String]) -> Self {
        Self::start_as(&[], flags, |registry| registry).await
    }

    /// Like [`Self::start`], with environment variables for both processes.
    pub(crate) async fn start_under(env: &[(&str, &str)]) -> Self {
        Self::start_as(env, &[], |registry| registry).await
    }

    /// Like [`Self::start`]; `way` maps the registry's address to the address that the router connects to.
    pub(crate) async fn start_by(way: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        Self::start_as(&[], &[], way).await
    }

    async fn start_as(env: &[(&str, &str)], flags: &[String], way: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = start_registry(env, folder.path(), ([127, 0, 0, 1], 0).into(), flags).await;
        let router = start_router(env, folder.path(), way(registry.listen_addr), flags).await;
        let pair = Self {
            folder,
            registry: Some(registry),
            router,
        };
        pair.wait_until_configured().await;
        pair
    }

    pub(crate) fn registry(&self) -> &Service {
        self.registry.as_ref().expect("the registry runs")
    }

    /// Kills the registry as a power cut would. Returns its address, so that it can be restarted on the same port.
    pub(crate) fn kill_registry(&mut self) -> SocketAddr {
        self.registry.take().expect("the registry runs").kill()
    }

    pub(crate) async fn restart_registry(&mut self, addr: SocketAddr) {
        self.registry = Some(start_registry(&[], self.folder.path(), addr, &[]).await);
    }

    /// Kills the router as a power cut would, and starts another one with these flags.
    pub(crate) async fn restart_router(&mut self, registry: SocketAddr, flags: &[String]) {
        self.restart_router_under(&[], registry, flags).await;
    }

    /// Like [`Self::restart_router`], with these environment variables.
    pub(crate) async fn restart_router_under(&mut self, env: &[(&str, &str)], registry: SocketAddr, flags: &[String]) {
        self.kill_router();
        // The ready file of the killed router has its old address.
        drop(fs::remove_file(self.folder.path().join("switchboard-router.ready")));
        self.router = start_router(env, self.folder.path(), registry, flags).await;
    }

    /// Kills the router as a power cut would.
    pub(crate) fn kill_router(&mut self) {
        self.router.child.kill().unwrap();
        self.router.child.wait().unwrap();
    }

    /// Ends both processes and checks that they exit with success.
    pub(crate) async fn finish(mut self) {
        let status = self.router.terminate().await;
        assert!(
            status.success(),
            "the router ended with {status}:\n{}",
            self.router.log()
        );
        if let Some(mut registry) = self.registry.take() {
            let status = registry.terminate().await;
            assert!(
                status.success(),
                "the registry ended with {status}:\n{}",
                registry.log()
            );
        }
    }

    pub(crate) fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.registry().channel())
    }

    pub(crate) fn features(&self) -> FeatureServiceClient<Channel> {
        FeatureServiceClient::new(self.registry().channel())
    }

    pub(crate) fn settings(&self) -> SettingsServiceClient<Channel> {
        SettingsServiceClient::new(self.registry().channel())
    }

    pub(crate) fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(self.registry().channel())
    }

    pub(crate) fn inference(&self) -> InferenceServiceClient<Channel> {
        InferenceServiceClient::new(self.router.channel())
    }

    pub(crate) fn routing(&self) -> RoutingServiceClient<Channel> {
        RoutingServiceClient::new(self.router.channel())
    }

    /// Registers a model of family `mistral` and assigns it to code generation.
    pub(crate) async fn configure(&self, endpoint: &str, api_token: Option<&str>) -> registry::Feature {
        let model = registry::Model {
            display_name: Some("Mistral".to_owned()),
            family: Some("mistral".to_owned()),
            endpoint: Some(endpoint.to_owned()),
            api_token: api_token.map(str::to_owned),
            ..Default::default()
        };
        let request = registry::CreateModelRequest {
            model: Some(model),
            ..Default::default()
        };
        let model = self.models().create_model(request).await.unwrap().into_inner();
        self.assign("code_generations", &model.name).await
    }

    pub(crate) async fn assign(&self, feature: &str, model: &str) -> registry::Feature {
        let feature = registry::Feature {
            name: format!("features/{feature}"),
            provider: Some(Provider::SelfHosted.into()),
            model: Some(model.to_owned()),
            ..Default::default()
        };
        let request = registry::UpdateFeatureRequest {
            feature: Some(feature),
            ..Default::default()
        };
        self.features().update_feature(request).await.unwrap().into_inner()
    }

    /// Updates the model that [`Pair::configure`] created: sets the fields that are present.
    pub(crate) async fn update_model(&self, model: registry::Model) -> Result<registry::Model, Status> {
        let model = registry::Model {
            name: "models/mistral".to_owned(),
            ..model
        };
        let request = registry::UpdateModelRequest {
            model: Some(model),
            ..Default::default()
        };
        self.models()
            .update_model(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Calls code generation until the router answers from a configuration of at least `revision`.
    pub(crate) async fn wait_for_revision(&self, revision: i64) {
        let started = Instant::now();
        loop {
            let last = infer(&mut self.inference(), "code_generations", "ping").await;
            if last
                .as_ref()
                .is_ok_and(|answer| answer.selection.config_revision >= revision)
            {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the router does not reach revision {revision}: {last:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the router resolves a feature with a configuration of at least `revision`. It makes no inference
    /// call.
    pub(crate) async fn wait_until_resolved(&self, feature: &str, revision: i64) {
        self.wait_until(async || {
            let request = ResolveFeatureRequest {
                feature: feature.to_owned(),
                ..Default::default()
            };
            let resolved = self.routing().resolve_feature(request).await.unwrap().into_inner();
            resolved
                .selection
                .is_some_and(|selection| selection.config_revision >= revision)
        })
        .await;
    }

    /// Waits until the router sends calls of a feature to a model server, even if the server fails them.
    pub(crate) async fn wait_until_routed(&self, feature: &str) {
        self.wait_until(async || {
            let result = infer(&mut self.inference(), feature, "ping").await;
            let reason = reason_of(&result).unwrap_or_default();
            !reason.starts_with("FEATURE_") && !reason.starts_with("MODEL_")
        })
        .await;
    }

    /// Waits until a condition holds.
    pub(crate) async fn wait_until(&self, mut holds: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !holds().await {
            assert!(
                started.elapsed() < PATIENCE,
                "the condition does not hold in time:\n{}",
                self.router.log()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the router has any configuration: from then on it knows all features, whether assigned or not.
    async fn wait_until_configured(&self) {
        let started = Instant::now();
        loop {
            let status = infer(&mut self.inference(), "code_generations", "ping")
                .await
                .unwrap_err();
            if status.code() == tonic::Code::FailedPrecondition {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the router has no configuration: {status:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn start_router(env: &[(&str, &str)], folder: &Path, registry: SocketAddr, flags: &[String]) -> Service {
    let mut args = vec![
        "--listen-addr=127.0.0.1:0".to_owned(),
        format!("--registry-addr=http://{registry}"),
        "--router-id=pair".to_owned(),
        "--drain-timeout=5s".to_owned(),
    ];
    args.extend_from_slice(flags);
    Service::start_under(env, "switchboard-router", folder, &args).await
}

async fn start_registry(env: &[(&str, &str)], folder: &Path, addr: SocketAddr, flags: &[String]) -> Service {
    let mut args = vec![
        format!("--listen-addr={addr}"),
        format!("--database-url=sqlite://{}", folder.join("switchboard.db").display()),
    ];
    args.extend_from_slice(flags);
    // The ready file of an earlier process has its old address.
    drop(fs::remove_file(folder.join("switchboard-registry.ready")));
    Service::start_under(env, "switchboard-registry", folder, &args).await
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) selection: router::Selection,
    pub(crate) text: String,
    pub(crate) completion: router::Completion,
}

/// Builds a request for the feature.
pub(crate) fn asking(feature: &str, prompt: &str) -> router::InferRequest {
    router::InferRequest {
        feature: feature.to_owned(),
        input: Some(router::infer_request::Input::Prompt(prompt.to_owned())),
        ..Default::default()
    }
}

/// Makes one call and checks that its events arrive in the documented order.
pub(crate) async fn infer(
    client: &mut InferenceServiceClient<Channel>,
    feature: &str,
    prompt: &str,
) -> Result<Answer, Status> {
    call(client, asking(feature, prompt)).await
}

/// Like [`infer`], with a complete request.
pub(crate) async fn call(
    client: &mut InferenceServiceClient<Channel>,
    request: router::InferRequest,
) -> Result<Answer, Status> {
    let (mut selection, mut text, mut completion) = (None, String::new(), None);
    let mut stream = client.stream_infer(request).await?.into_inner();
    while let Some(message) = timeout(PATIENCE, stream.message())
        .await
        .expect("the stream continues")?
    {
        assert!(completion.is_none(), "no event follows the completion");
        match message.event.expect("an event is set") {
            Event::Selection(first) => assert!(selection.replace(first).is_none(), "one selection"),
            Event::Delta(delta) => {
                assert!(selection.is_some(), "the selection comes first");
                if let Some(router::delta::Kind::Text(piece)) = delta.kind {
                    text.push_str(&piece);
                }
            }
            Event::Completion(last) => completion = Some(last),
        }
    }
    Ok(Answer {
        selection: selection.expect("an answer has a selection"),
        text,
        completion: completion.expect("OK never comes without a completion"),
    })
}

/// Returns the reason of a failure, or `None` if the call succeeded.
pub(crate) fn reason_of<T>(result: &Result<T, Status>) -> Option<String> {
    use tonic_types::StatusExt as _;

    let status = result.as_ref().err()?;
    Some(
        status
            .get_error_details()
            .error_info()
            .map(|info| info.reason.clone())
            .unwrap_or_default(),
    )
}

/// Returns the path of a workspace binary, which cargo puts next to the test binaries.
pub(crate) fn binary(name: &str) -> PathBuf {
    let mut path = env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join(name)
}
