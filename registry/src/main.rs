//! The registry process: parses the command line, then runs the server or a command.

use std::process::ExitCode;

use switchboard::service::{
    health::ask::ask,
    process::{self, Serve},
};
use switchboard_registry::{
    command,
    config::{self, RegistryTask},
    server::{StartError, assemble},
};

fn main() -> ExitCode {
    match config::parse(std::env::args_os()) {
        Ok(RegistryTask::Serve(serve)) => {
            let Serve { config, telemetry } = *serve;
            process::run(telemetry, async |stop| {
                let parts = assemble(config, &stop).await.map_err(StartError::into_fatal)?;
                Ok(parts.supervise().await?)
            })
        }
        Ok(RegistryTask::Health(question)) => ask(&question),
        Ok(RegistryTask::Command(command)) => command::run(command),
        Err(code) => code,
    }
}
