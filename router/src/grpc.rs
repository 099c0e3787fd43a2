//! Thin handlers of the router's services: read the request, make the call, write the answer.

pub mod inference;
pub mod routing;
