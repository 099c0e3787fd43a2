//! The registry: owns model and feature configuration, serves it, and streams its changes to routers.

pub mod commit;
pub mod domain;
pub mod grpc;
pub mod pulse;
pub mod status;
pub mod store;
pub mod wire;
