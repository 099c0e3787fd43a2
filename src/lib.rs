//! Code that the registry and the router share: the contract, names, reasons, the catalogue, and the server code around
//! the handlers (cargo feature `service`).
//!
//! This crate does not know how a resource is stored, changed or selected: that is up to the services. The module
//! [`resource`] defines the resources and checks whether a message is a valid one.

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
