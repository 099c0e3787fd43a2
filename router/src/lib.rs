//! The router: follows the registry, selects the model behind a feature for each call, and streams the answer back.

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
