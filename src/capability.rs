//! What one side of the change stream can do that another release may not: words that both must spell alike.

/// A router that answers check requests.
pub const CHECKS: &str = "checks";
