//! Decides whether a call may be made now: the quotas of features, and the gate of each model.
//!
//! A feature has a limit of concurrent calls, and a model has a number of places. A model also has a budget for
//! repeated calls, and gets no calls for a while after its credential was refused. All of this counts on this router
//! alone. The decisions are pure: time is an argument, and the owner of a gate locks it.

mod budget;
#[cfg(test)]
pub(crate) mod fixture;
mod gate;
pub mod places;
mod quota;
mod refusal;

use switchboard::names::FeatureName;

pub use self::{
    gate::{Admitted, Gate},
    places::Room,
    quota::{FeaturePermit, QuotaExceeded, Quotas},
};

/// The model has no place for the call: its queue is full, waiting would be of no use, or the call has waited for too
/// long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// The group that a call is counted with at one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// The feature whose setting is used.
    pub feature: &'static FeatureName,
    /// Whether the call goes to the feature's own model, where the feature's reservation counts. It does not count if
    /// the call comes to the model by a rule or as a fallback.
    pub has_reservation: bool,
}
