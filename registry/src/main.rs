//! The process of the registry.

use std::process::ExitCode;

use switchboard::service::process::{self, Serve};
use switchboard_registry::{config, server::Server};

fn main() -> ExitCode {
    match config::parse(std::env::args_os()) {
        Ok(Serve { config, logging }) => {
            process::run(logging, async |stop| Ok(Server::bind(config).await?.run(stop).await?))
        }
        Err(code) => code,
    }
}
