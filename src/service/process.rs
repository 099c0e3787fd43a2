//! The life of a process that serves: logs, runtime, signals, exit code.

use std::{error::Error, process::ExitCode, time::Duration};

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::{
    chain::Chain,
    logs::{self, Logging},
    signals::Signals,
};

/// What a process was told that shall serve.
#[derive(Debug)]
pub struct Serve<C> {
    /// What the service runs with.
    pub config: C,
    /// What is logged, and how.
    pub logging: Logging,
}

/// Why a service could not start, or ended otherwise than it was told to.
pub type Failed = Box<dyn Error + Send + Sync>;

/// How long the name look-ups of a service that has ended may hold up its process.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a service until it ends, and returns the exit code of its process.
///
/// The first signal cancels the token that `service` is given; a second one ends the process at once.
pub fn run(logging: Logging, service: impl AsyncFnOnce(CancellationToken) -> Result<(), Failed>) -> ExitCode {
    logs::init(logging);
    let ended = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failed::from)
        .and_then(|runtime| {
            let ended = runtime.block_on(until_signal(service));
            runtime.shutdown_timeout(RUNTIME_TIMEOUT);
            ended
        });
    match ended {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "the service failed");
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(service: impl AsyncFnOnce(CancellationToken) -> Result<(), Failed>) -> Result<ExitCode, Failed> {
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
