//! Promises that need both services: the real binaries, over loopback.
//!
//! `cargo build` makes the binaries first; `cargo test --workspace` does so by itself.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on the terminal what it skips"
)]

#[path = "../support/fake_upstream.rs"]
mod fake_upstream;
mod harness;
mod mirror;
mod peer;
mod proxy;

mod administrator;
mod chaos;
mod checks;
mod cold_start;
mod credentials;
mod data_plane;
mod disk;
mod fleet;
mod frozen;
mod histories;
mod history;
mod inference;
mod lives;
mod network;
mod observability;
mod outage;
mod process;
mod real_model;
mod refusals;
mod reports;
mod requests;
mod routing;
mod ruby;
mod shares;
mod stalled;
mod storm;
mod tasks;
mod untrusted;
