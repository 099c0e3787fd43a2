//! The router: receives its configuration from the registry, selects the model that serves the feature of each call,
//! and streams the model's answer back to the caller.

pub mod balance;
pub mod call;
pub mod catalog;
pub mod check;
pub mod config;
pub mod current;
pub mod endpoints;
pub mod grpc;
pub mod live;
pub mod permits;
pub mod probe;
pub mod prompt;
#[cfg(test)]
#[path = "../../tests/support/refused_requests.rs"]
mod refused_requests;
pub mod relay;
pub mod rounds;
pub mod server;
pub mod status;
pub mod subscription;
pub mod telemetry;
pub mod upstream;
pub mod wire;
