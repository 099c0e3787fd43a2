//! The router: follows the registry, selects the model behind a feature for each call, and streams the answer back.

pub mod catalog;
pub mod current;
pub mod status;
pub mod subscription;
pub mod wire;
