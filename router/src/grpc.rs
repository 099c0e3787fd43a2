//! gRPC handlers of the router's services. They read the request, make the call, and write the answer.

pub mod inference;
pub mod routing;
