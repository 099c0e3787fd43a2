//! The contract's messages to and from the router's own types.

pub mod check;
pub mod inference;
pub mod resource;
pub mod routing;
