//! The life of a process that serves: logs, runtime, signals, exit code.

use std::{error::Error, fmt, process::ExitCode, time::Duration};

use tokio::{runtime::Builder, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    chain::Chain,
    health::ask::HealthQuestion,
    logs::{self, Logging},
    signals::Signals,
    trace::export::{SpanSender, Traces},
};

/// What a process was told to do.
#[derive(Debug)]
pub enum Task<C> {
    /// Serve.
    Serve(Box<Serve<C>>),
    /// Ask a service that runs whether it serves.
    Health(HealthQuestion),
}

/// What a process was told that shall serve.
#[derive(Debug)]
pub struct Serve<C> {
    /// What the service runs with.
    pub config: C,
    /// What the process tells of itself.
    pub telemetry: Telemetry,
}

/// What a process tells of itself.
#[derive(Debug)]
pub struct Telemetry {
    /// What is logged, and how.
    pub logging: Logging,
    /// Where spans are sent. `None`: nowhere.
    pub traces: Option<Traces>,
}

/// Why a service could not start, or ended otherwise than it was told to.
pub type FatalError = Box<dyn Error + Send + Sync>;

/// A failure for which the process has an exit code of its own.
#[derive(Debug)]
pub struct ExitWith {
    /// The exit code.
    pub code: u8,
    /// What failed.
    pub cause: FatalError,
}

impl fmt::Display for ExitWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for ExitWith {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// How long the name look-ups of a service that has ended may hold up its process.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a service until it ends, and returns the exit code of its process.
///
/// Its last spans are sent within a second of its end. The first signal cancels the token that `service` is given; a second one ends the process at once.
pub fn run(telemetry: Telemetry, service: impl AsyncFnOnce(CancellationToken) -> Result<(), FatalError>) -> ExitCode {
    let (tracer, sender) = telemetry.traces.map(Traces::open).unzip();
    logs::init(telemetry.logging, tracer);
    let ended = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(FatalError::from)
        .and_then(|runtime| {
            let ended = runtime.block_on(with_traces(sender, until_signal(service)));
            runtime.shutdown_timeout(RUNTIME_TIMEOUT);
            ended
        });
    match ended {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "the service failed");
            let own = error.downcast_ref::<ExitWith>();
            own.map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
        }
    }
}

/// Runs a service while its spans are sent; what they still are at its end is sent last.
async fn with_traces<T>(sender: Option<SpanSender>, service: impl Future<Output = T>) -> T {
    let (stop, mut sending) = (CancellationToken::new(), JoinSet::new());
    if let Some(sender) = sender {
        // Best effort: without it spans are dropped.
        sending.spawn(sender.run(stop.clone()));
    }
    let ended = service.await;
    stop.cancel();
    while sending.join_next().await.is_some() {}
    ended
}

async fn until_signal(
    service: impl AsyncFnOnce(CancellationToken) -> Result<(), FatalError>,
) -> Result<ExitCode, FatalError> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(service(stop.clone()));
    tokio::select! {
        ended = &mut running => return ended.map(|()| ExitCode::SUCCESS),
        () = signals.next() => {}
    }
    tracing::info!("stopping; a second signal ends the process at once");
    stop.cancel();
    tokio::select! {
        ended = running => ended.map(|()| ExitCode::SUCCESS),
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}
