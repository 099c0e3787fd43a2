//! Who may make a call now: quotas of features, and the gate of each model.
//!
//! A feature has as many calls at a time as its limit says, and a model as many places. A model has a budget for what is
//! tried once more, and is left alone for a while when its credential is refused. All of it counts on this router alone.
//! The decisions are pure: time is an argument, and whoever holds a gate locks it.

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

/// The model has no place: too many calls run, and too many wait or the call waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// Whose calls are counted together at one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// The feature whose setting is used.
    pub feature: &'static FeatureName,
    /// Whether the call comes to the feature's own model, where its reservation is. By rule or as a fallback it does not.
    pub has_reservation: bool,
}
