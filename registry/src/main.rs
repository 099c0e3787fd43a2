//! The process of the registry.

use std::process::ExitCode;

use switchboard::service::{
    health::ask::ask,
    process::{self, Serve},
};
use switchboard_registry::{
    command::{self, DAMAGED},
    config::{self, Task},
    server::Server,
};

fn main() -> ExitCode {
    match config::parse(std::env::args_os()) {
        Ok(Task::Serve(serve)) => {
            let Serve { config, telemetry } = *serve;
            let mut is_damaged = false;
            let code = process::run(telemetry, async |stop| {
                let server = Server::bind(config)
                    .await
                    .inspect_err(|error| is_damaged = error.is_damaged())?;
                Ok(server.run(stop).await?)
            });
            if is_damaged { ExitCode::from(DAMAGED) } else { code }
        }
        Ok(Task::Health(question)) => ask(&question, config::LISTEN_ADDR),
        Ok(Task::Command(command)) => command::run(command),
        Err(code) => code,
    }
}
