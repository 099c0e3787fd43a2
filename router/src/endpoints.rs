//! The servers of models as this router's calls find them: which takes a call, which is taken out, and how it comes back.
//!
//! What is known belongs to a server's [`Identity`], so it survives a swap of the catalog. `live` keeps it, one
//! `Group` for each model. The one hard idea: what takes a server out is evidence from calls, and what brings it back is
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
    health::{Health, Probed, Readiness, Verdict},
    hints::EngineLoad,
    identity::{Addresses, ByName, Identity},
    pace::{Shape, Work},
    reports::{Following, HealthChange},
};
pub(crate) use self::{
    group::{Group, HealthTransition},
    reports::Reports,
    server::AttemptTicket,
};
