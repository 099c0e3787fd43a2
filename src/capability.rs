//! Names of capabilities: abilities of one side of the change stream that another release may lack. Both services use
//! these names.

/// The router answers check requests.
pub const CHECKS: &str = "checks";
