//! The entry point of the router process.

use std::process::ExitCode;

use switchboard::service::{
    health::ask::ask,
    process::{self, Serve, Task},
};
use switchboard_router::{config, server::assemble};

fn main() -> ExitCode {
    match config::parse(std::env::args_os()) {
        Ok(Task::Serve(serve)) => {
            let Serve { config, telemetry } = *serve;
            process::run(telemetry, async |stop| Ok(assemble(config, stop)?.supervise().await?))
        }
        Ok(Task::Health(question)) => ask(&question),
        Err(code) => code,
    }
}
