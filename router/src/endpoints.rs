//! The servers of models as this router's calls find them: which takes a call, which is taken out, and how it comes back.
//!
//! What is known belongs to a server's [`ServerIdentity`], so it survives a swap of the catalog. `live` keeps it, one
//! `ServerGroup` for each model. The one hard idea: what takes a server out is evidence from calls, and what brings it back is
//! too. Probes only say when to try.
//!
//! All is pure: `server` has the states of one server, `group` the choice among those of a model.

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
