//! Runs the process of a service: logs, runtime, signals and exit code.

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

/// The task that the command line selects.
#[derive(Debug)]
pub enum Task<C> {
    /// Run the service.
    Serve(Box<Serve<C>>),
    /// Ask a running service whether it is serving.
    Health(HealthQuestion),
}

/// The options of a process that runs a service.
#[derive(Debug)]
pub struct Serve<C> {
    /// The configuration of the service.
    pub config: C,
    /// The options of logs and traces.
    pub telemetry: Telemetry,
}

/// The options of logs and traces.
#[derive(Debug)]
pub struct Telemetry {
    /// Filter and format of the logs.
    pub logging: Logging,
    /// The options of tracing. `None`: no spans are sent.
    pub traces: Option<Traces>,
}

/// Why a service could not start, or ended without being asked to.
pub type FatalError = Box<dyn Error + Send + Sync>;

/// A failure with a specific exit code of the process.
#[derive(Debug)]
pub struct ExitWith {
    /// The exit code of the process.
    pub code: u8,
    /// The failure.
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

/// How long the process waits at its end for blocking tasks of the runtime, such as name look-ups.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a service until it ends, and returns the exit code of the process.
///
/// The first SIGTERM or SIGINT cancels the token that is passed to `service`; a second one ends the process at once.
/// After the service has ended, its last spans are sent within a second.
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
            tracing::error!(error = %Chain(error.as_ref()), "service failed");
            let own = error.downcast_ref::<ExitWith>();
            own.map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
        }
    }
}

/// Runs a service while `sender` sends its spans, then lets the sender send the remaining spans.
async fn with_traces<T>(sender: Option<SpanSender>, service: impl Future<Output = T>) -> T {
    let (stop, mut sending) = (CancellationToken::new(), JoinSet::new());
    if let Some(sender) = sender {
        // Best effort: if the task fails, spans are dropped.
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
