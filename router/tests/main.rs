//! The router through its port, with scripted model servers behind it.

#[path = "../../tests/support/fake_upstream.rs"]
mod fake_upstream;
mod harness;

mod answers;
mod attempts;
mod connections;
mod deadlines;
mod faults;
mod permits;
mod routing;
mod tls;
