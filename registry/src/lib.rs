//! The registry: owns model and feature configuration, serves it, and streams its changes to routers.

pub mod check;
pub mod command;
pub mod commit;
pub mod config;
pub mod control;
pub mod domain;
pub mod exit;
pub mod feed;
pub mod fleet;
pub mod grpc;
pub mod merge;
pub mod pulse;
#[cfg(test)]
#[path = "../../tests/support/refused_writes.rs"]
mod refused_writes;
pub mod server;
pub mod status;
pub mod store;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;
