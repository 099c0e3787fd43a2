//! Conversions between the contract's messages and the router's own types.

pub mod check;
pub mod inference;
pub mod resource;
pub mod routing;
