//! The contract and the domain, each in the other's words.

pub mod change;
pub mod credential;
pub mod report;
