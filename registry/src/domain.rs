//! What a model, a feature, the settings and a change *are*: pure, without I/O and without a clock.

pub mod actor;
pub mod credential;
mod derived_id;
pub mod etag;
pub mod feature;
pub mod items;
pub mod life;
pub mod model;
pub mod repeat;
mod reservation;
pub mod settings;
pub mod size;
pub mod state;
pub mod view;
pub mod write;
