//! The states, changes and writes of models, features and settings. This module is pure: no I/O and no clock. The
//! resources themselves are defined in [`switchboard::resource`].

pub mod actor;
pub mod credential;
pub mod etag;
pub mod items;
pub mod life;
pub mod repeat;
mod reservation;
pub mod state;
pub mod view;
pub mod write;
