//! What stands around the handlers of both services, once: a mistake here would be a hole in both.
//!
//! It knows no resource, no SQL and no catalogue.

pub mod admin;
pub mod call;
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
