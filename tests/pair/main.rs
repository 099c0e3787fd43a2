//! Tests of guarantees that need both services: they run the real binaries over loopback.
//!
//! Build the binaries with `cargo build` first; `cargo test --workspace` does that by itself.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints its measurements on the terminal"
)]

#[macro_use]
#[path = "../support/runner.rs"]
mod runner;

#[path = "../support/fake_upstream.rs"]
mod fake_upstream;
mod harness;
mod mirror;
mod peer;
mod proxy;
#[path = "../support/refused_requests.rs"]
mod refused_requests;
#[path = "../support/refused_writes.rs"]
mod refused_writes;

mod administrator;
mod answers;
mod causes;
mod chaos;
mod checks;
mod cold_start;
mod command_line;
mod credentials;
mod data_plane;
mod disk;
mod docs;
mod fields;
mod fleet;
mod frozen;
mod histories;
mod history;
mod inference;
mod lives;
mod moves;
mod network;
mod observability;
mod outage;
mod process;
mod quickstart;
mod real_model;
mod refusals;
mod reports;
mod requests;
mod routing;
mod ruby;
mod shares;
mod stalled;
mod storm;
mod untrusted;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let tests = [
        administrator::tests(),
        answers::tests(),
        causes::tests(),
        chaos::tests(),
        checks::tests(),
        checks::routers::tests(),
        checks::servers::tests(),
        cold_start::tests(),
        command_line::tests(),
        credentials::tests(),
        data_plane::tests(),
        disk::damage::tests(),
        disk::faults::tests(),
        disk::kills::tests(),
        disk::room::tests(),
        docs::tests(),
        fields::tests(),
        fleet::tests(),
        frozen::tests(),
        histories::tests(),
        history::tests(),
        inference::tests(),
        lives::tests(),
        moves::tests(),
        network::tests(),
        observability::tests(),
        outage::tests(),
        process::tests(),
        quickstart::tests(),
        real_model::tests(),
        refusals::tests(),
        reports::tests(),
        requests::tests(),
        routing::tests(),
        ruby::tests(),
        shares::tests(),
        stalled::tests(),
        storm::tests(),
        untrusted::tests(),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pair");
    runner::run(&folder, tests.into_iter().flatten().collect())
}
