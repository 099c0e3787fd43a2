//! The handlers: each parses, calls and converts, and decides nothing.

pub mod config;
