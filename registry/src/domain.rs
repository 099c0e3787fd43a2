//! What a state, a change and a write of models, features and settings *are*: pure, without I/O and without a clock. What
//! a resource itself is stands in [`switchboard::resource`].

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
