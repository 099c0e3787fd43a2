//! What stands around the handlers of both services, once: a mistake here would be a hole in both.
//!
//! It knows no resource, no SQL and no catalogue.

pub mod request_id;
