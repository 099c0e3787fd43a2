//! The process of the router: flags, logs, signals, exit code.

use std::process::ExitCode;

use switchboard::service::{chain::Chain, logs, signals::Signals};
use switchboard_router::{
    config::{self, Config},
    server::Server,
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let serve = match config::parse(std::env::args_os()) {
        Ok(serve) => serve,
        Err(code) => return code,
    };
    logs::init(serve.log_filter, serve.log_format);
    match run(serve.config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "router failed");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let server = Server::bind(config).await?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(server.run(stop.clone()));
    tokio::select! {
        result = &mut running => {
            result?;
            return Ok(ExitCode::SUCCESS);
        }
        () = signals.next() => {}
    }
    tracing::info!("stopping; a second signal ends the process at once");
    stop.cancel();
    tokio::select! {
        result = running => {
            result?;
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}
