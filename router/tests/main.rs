//! The router through its port, with scripted model servers behind it.

#[path = "../../tests/support/fake_upstream.rs"]
mod fake_upstream;
mod harness;

mod answers;
mod attempts;
mod connections;
mod deadlines;
mod endpoints;
mod faults;
mod inputs;
mod names;
mod permits;
mod probes;
mod routing;
mod slow_callers;
mod tls;
mod whole_answers;
