//! Tests of the router through its port, with scripted model servers.

#[path = "../../tests/support/fake_upstream.rs"]
mod fake_upstream;
mod harness;

mod answers;
mod attempts;
mod cancels;
mod connections;
mod credentials;
mod cuts;
mod deadlines;
mod dialects;
mod endpoints;
mod faults;
mod fuzz;
mod hedging;
mod inputs;
mod names;
mod overruns;
mod peer;
mod permits;
mod probes;
mod routing;
mod slow_callers;
mod slow_servers;
mod stalled;
mod tls;
mod whole_answers;
