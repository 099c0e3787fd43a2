//! The registry with failing disks and sudden process ends: acknowledged writes stay, and operations that cannot be
//! done are reported.
//!
//! `.ci/run` repeats each test a few times. `.ci/long` sets environment variables for more repetitions.

pub(crate) mod damage;
pub(crate) mod faults;
pub(crate) mod kills;
mod process;
pub(crate) mod room;
mod shim;
mod writes;

use std::env;

/// Reads a number from the environment.
fn number(name: &str, default: u64) -> u64 {
    env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
}

/// Creates a random number generator and prints its seed; `SWITCHBOARD_TEST_SEED` sets the seed of an earlier run.
fn random() -> fastrand::Rng {
    let seed = number("SWITCHBOARD_TEST_SEED", fastrand::u64(..));
    eprintln!("SWITCHBOARD_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
