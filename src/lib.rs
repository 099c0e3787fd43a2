//! What the registry and the router share: the contract, its names and reasons, the facts of the catalogue, and, behind
//! the feature `service`, what stands around the handlers of both.
//!
//! Nothing here knows how a resource is stored, changed or selected: that is the services' own. What one is, and which
//! message is one, stands in [`resource`].

pub mod capability;
pub mod catalogue;
pub mod digest;
pub mod duration;
pub mod encoded;
pub mod endpoint;
#[cfg(feature = "service")]
pub mod failpoint;
pub mod failure;
pub mod history;
pub mod names;
pub mod pb;
pub mod reason;
pub mod resource;
#[cfg(feature = "service")]
pub mod seal;
pub mod secret;
#[cfg(feature = "service")]
pub mod service;
pub mod stream;
pub mod violation;
