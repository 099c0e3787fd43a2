//! The router through its port, with scripted model servers behind it.

#[path = "../../tests/support/fake_upstream.rs"]
mod fake_upstream;
mod harness;

mod answers;
mod attempts;
mod connections;
mod credentials;
mod deadlines;
mod endpoints;
mod faults;
mod hedging;
mod inputs;
mod permits;
mod routing;
mod slow_callers;
mod tls;
mod whole_answers;
