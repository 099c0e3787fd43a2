//! The registry under failing disks and sudden ends: what was acknowledged stays, and what cannot be done is said.
//!
//! What each test does a few times in the gate, the long list does as often as these variables say.

pub(crate) mod damage;
pub(crate) mod faults;
pub(crate) mod kills;
mod process;
pub(crate) mod room;
mod shim;
mod writes;

use std::env;

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    env::var_os(name).map_or(default, |text| text.to_str().unwrap().parse().unwrap())
}

/// A random number generator, whose seed is printed; `SWITCHBOARD_TEST_SEED` gives an earlier one.
fn random() -> fastrand::Rng {
    let seed = number("SWITCHBOARD_TEST_SEED", fastrand::u64(..));
    eprintln!("SWITCHBOARD_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
