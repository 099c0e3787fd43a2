//! The contract's messages made into what the router knows, and back.

pub mod inference;
