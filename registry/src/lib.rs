//! The registry: owns model and feature configuration, serves it, and streams its changes to routers.

pub mod domain;
pub mod feed;
pub mod fleet;
pub mod grpc;
pub mod pulse;
pub mod status;
pub mod wire;
