//! Converts the registry's own errors into failures for callers. Only this module picks reasons.

pub mod check;
pub mod feed;
pub mod fleet;
pub mod write;
