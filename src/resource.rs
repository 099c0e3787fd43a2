//! The types of models, features and settings, and their conversion from and to the contract's messages.
//!
//! A value of these types is always valid. Reading a message reports all its violations at once. Both services validate
//! with this code, each with the code of its own build. Nothing here knows how a resource is stored, changed or
//! selected; there is no I/O and no clock.
//! The one hard idea: a message is read once, as a whole, together with [`Given`], which distinguishes the fields that
//! a write has set from those that it has kept. A violation names a field that the caller can change in the write.

pub mod derived_id;
pub mod feature;
mod fields;
pub mod model;
pub mod settings;
pub mod size;

pub use self::fields::{Given, Source};
