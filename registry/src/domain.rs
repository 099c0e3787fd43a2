//! What a model, a feature, the settings and a change *are*: pure, without I/O and without a clock.

pub mod credential;
pub mod items;
pub mod state;
