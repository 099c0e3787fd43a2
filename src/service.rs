//! The server code around the handlers of both services: transport, limits, telemetry, health, command line and
//! shutdown.
//!
//! It is shared, so that a security fix here protects both services. It knows nothing about resources, SQL or the
//! catalogue.

pub mod admin;
pub mod call;
pub mod cause;
pub mod chain;
pub mod deadline;
pub mod flags;
pub mod health;
pub mod listener;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod ready_file;
pub mod request_id;
pub mod requests;
pub mod serve;
pub mod shutdown;
pub mod signals;
pub mod trace;
