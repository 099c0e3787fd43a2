//! Starts and configures all servers of the benchmark: model server, bare relay, registry and router.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use switchboard::pb::{
    registry::{
        CreateModelRequest, Feature, Model, UpdateFeatureRequest, feature_service_client::FeatureServiceClient,
        model_service_client::ModelServiceClient,
    },
    types::Provider,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::{
    ask::{FEATURE, Question},
    collector::Collector,
    line::{Caller, Http, Line},
    process::{Cores, PinnedProcess, Tenant},
};

/// How long a router may take until it answers a call.
const ROUTED_WITHIN: Duration = Duration::from_secs(20);

/// The paths of the programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This program, which is also the model server and the bare relay.
    pub(crate) own: PathBuf,
    pub(crate) registry: PathBuf,
    pub(crate) router: PathBuf,
    /// Measures the resolution of a feature.
    pub(crate) resolution: PathBuf,
}

/// Whether a router records traces and access lines.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Telemetry {
    /// One call in ten is traced, and the access log is on. Metrics are always on.
    On,
    /// No traces, and only errors in the log.
    Off,
}

/// The server that clients call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side<'a> {
    Router(&'a PinnedProcess),
    Floor,
    /// The model server itself, without a relay.
    Direct,
}

/// The running servers.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) model: PinnedProcess,
    pub(crate) floor: PinnedProcess,
    pub(crate) router: PinnedProcess,
    registry: PinnedProcess,
    collector: Collector,
    programs: Programs,
    cores: Cores,
    folder: TempDir,
}

impl Bed {
    pub(crate) async fn start(programs: &Programs, cores: &Cores) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = |name: &str| folder.path().join(name);
        let model = PinnedProcess::start(
            cores,
            Tenant::Model,
            &programs.own,
            &["model".to_owned()],
            &ready("model"),
        )
        .await?;
        let floor = ["floor".to_owned(), format!("--model={}", model.addr)];
        let floor = PinnedProcess::start(cores, Tenant::Relay, &programs.own, &floor, &ready("floor")).await?;
        let registry = [
            "--listen-addr=127.0.0.1:0".to_owned(),
            "--admin-addr=127.0.0.1:0".to_owned(),
            format!("--database-url=sqlite://{}", folder.path().join("bench.db").display()),
        ];
        let registry =
            PinnedProcess::start(cores, Tenant::Load, &programs.registry, &registry, &ready("registry")).await?;
        configure(registry.addr, model.addr).await?;
        let collector = Collector::start().await?;
        let router = start_router(programs, cores, &folder, registry.addr, &collector, Telemetry::On).await?;
        Ok(Self {
            model,
            floor,
            router,
            registry,
            collector,
            programs: programs.clone(),
            cores: cores.clone(),
            folder,
        })
    }

    /// Starts another router.
    pub(crate) async fn another_router(&self, telemetry: Telemetry) -> Result<PinnedProcess> {
        let (registry, collector) = (self.registry.addr, &self.collector);
        start_router(
            &self.programs,
            &self.cores,
            &self.folder,
            registry,
            collector,
            telemetry,
        )
        .await
    }

    /// Returns the relay's process, or `None` if the model server is called directly.
    pub(crate) const fn relay<'a>(&'a self, side: Side<'a>) -> Option<&'a PinnedProcess> {
        match side {
            Side::Router(router) => Some(router),
            Side::Floor => Some(&self.floor),
            Side::Direct => None,
        }
    }

    /// Opens `count` lines, which share this many connections. Lines directly to the model server do not share
    /// connections.
    pub(crate) async fn lines(&self, side: Side<'_>, count: usize, connections: usize) -> Result<Vec<Line>> {
        let mut lines = Vec::with_capacity(count);
        match self.relay(side) {
            None => {
                for _ in 0..count {
                    lines.push(Line::Http(Http::connect(self.model.addr).await?));
                }
            }
            Some(relay) => {
                let mut callers = Vec::with_capacity(connections);
                for _ in 0..connections {
                    callers.push(Caller::connect(relay.addr).await?);
                }
                lines.extend(callers.into_iter().cycle().take(count).map(Line::Grpc));
            }
        }
        Ok(lines)
    }

    /// Shuts down router and registry.
    pub(crate) async fn end(self) -> Result<()> {
        self.router.end().await?;
        self.registry.end().await
    }
}

/// Registers the model server and assigns it to the feature.
async fn configure(registry: SocketAddr, model: SocketAddr) -> Result<()> {
    let channel = Endpoint::from_shared(format!("http://{registry}"))?.connect().await?;
    let model = Model {
        display_name: Some("Bench".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some(format!("http://{model}/v1")),
        identifier: Some("bench".to_owned()),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let created = ModelServiceClient::new(channel.clone()).create_model(request).await?;
    let feature = Feature {
        name: format!("features/{FEATURE}"),
        provider: Some(Provider::SelfHosted.into()),
        model: Some(created.into_inner().name),
        ..Default::default()
    };
    let request = UpdateFeatureRequest {
        feature: Some(feature),
        ..Default::default()
    };
    FeatureServiceClient::new(channel).update_feature(request).await?;
    Ok(())
}

/// Starts a router and waits until it answers a call of the feature.
async fn start_router(
    programs: &Programs,
    cores: &Cores,
    folder: &TempDir,
    registry: SocketAddr,
    collector: &Collector,
    telemetry: Telemetry,
) -> Result<PinnedProcess> {
    let mut arguments = vec![
        "--listen-addr=127.0.0.1:0".to_owned(),
        "--admin-addr=127.0.0.1:0".to_owned(),
        "--router-id=bench".to_owned(),
        "--drain-timeout=1s".to_owned(),
        format!("--registry-addr=http://{registry}"),
    ];
    arguments.extend(match telemetry {
        Telemetry::On => vec![
            format!("--otlp-endpoint=http://{}", collector.addr),
            "--trace-ratio=0.1".to_owned(),
        ],
        Telemetry::Off => vec!["--log-level=error".to_owned()],
    });
    let ready = folder.path().join("router");
    let router = PinnedProcess::start(cores, Tenant::Relay, &programs.router, &arguments, &ready).await?;
    let give_up = Instant::now() + ROUTED_WITHIN;
    let question = Question::paced(Duration::ZERO);
    loop {
        let mut line = Line::Grpc(Caller::connect(router.addr).await?);
        match line.whole(&question).await {
            Ok(()) => return Ok(router),
            Err(error) if Instant::now() > give_up => return Err(error).context("the router did not answer in time"),
            Err(_not_yet) => sleep(Duration::from_millis(20)).await,
        }
    }
}
