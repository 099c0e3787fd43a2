//! The registry's own errors as they go to callers: the only place that picks a reason.

pub mod check;
pub mod feed;
pub mod fleet;
pub mod write;
