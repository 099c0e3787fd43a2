//! The servers of models as this router's calls see them: which server takes a call, when a server is taken out, and
//! how it comes back.
//!
//! The state belongs to a server's [`ServerIdentity`], so it survives a swap of the catalog. `live` owns the state, in
//! one `ServerGroup` for each model. The one hard idea: calls are the evidence. Failed calls take a server out, and
//! only a successful call brings it back. Failed probes take a server out only if no call succeeded in between; a
//! passed probe only permits a call to try it.
//!
//! `server` has the states of one server, `group` chooses among the servers of a model. Time is an argument in both.

mod ask;
mod group;
mod health;
mod hints;
mod identity;
mod pace;
mod reports;
mod server;
mod window;

pub use self::{
    ask::Ask,
    group::{ServerId, Status},
    health::{Health, ModelReadiness, Probed, Verdict},
    hints::EngineLoad,
    identity::{Addresses, ByName, ServerIdentity},
    pace::{Shape, Work},
    reports::{Following, HealthChange},
};
pub(crate) use self::{
    group::{HealthTransition, ServerGroup},
    reports::Reports,
    server::AttemptTicket,
};
