//! What a model, a feature and the settings are: types that are valid once they exist, read from the contract's messages
//! with everything that is wrong at once, and written back.
//!
//! Both services judge by this code, each by its own build's. Nothing here knows how a resource is stored, changed or
//! selected: no I/O, no clock.
//! The one hard idea: a message is read once, whole, together with [`Given`], which tells the fields that a write has
//! given from those that it has kept. A violation names a field that the write can do something about.

pub mod derived_id;
pub mod feature;
mod fields;
pub mod model;
pub mod settings;
pub mod size;

pub use self::fields::{Given, Source};
