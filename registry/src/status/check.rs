//! Converts the errors of checks into failures.

use std::time::Duration;

use switchboard::{
    failure::Failure,
    reason::{FieldReason, Reason, key},
    violation::Violations,
};

use crate::check::CheckError;

/// After this time, a router may have connected.
const RETRY: Duration = Duration::from_secs(1);

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        let message = error.to_string();
        match error {
            CheckError::Subject(error) => error.into(),
            CheckError::NoRouter => Self::new(Reason::NoRouterConnected, message)
                .with(key::ROUTER_COUNT, 0)
                .retry_after(RETRY),
            CheckError::NotConnected(router) => Self::new(Reason::NoRouterConnected, message)
                .with(key::ROUTERS, router)
                .retry_after(RETRY),
            CheckError::TooMany(_) => {
                let mut violations = Violations::new();
                violations.push("all_routers", FieldReason::ValueOutOfRange, message);
                Self::invalid(&violations)
            }
        }
    }
}
