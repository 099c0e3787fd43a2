//! Who answers a call.

use std::{net::IpAddr, sync::Arc};

use switchboard::{
    names::{FeatureName, Revision},
    resource::{feature::RuleId, model::Endpoint},
};

use crate::catalog::{CompiledModel, SelectionReason};

/// Who answers a call, and why.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The feature that was asked for.
    pub feature: &'static FeatureName,
    /// The feature whose setting was used.
    pub source_feature: &'static FeatureName,
    /// The model.
    pub model: Arc<CompiledModel>,
    /// The server that is called.
    pub endpoint: Endpoint,
    /// The server's name of the model.
    pub identifier: Arc<str>,
    /// The address to dial. `None`: by name.
    pub address: Option<IpAddr>,
    /// Whether every server of the model is failing, and this one is used all the same.
    pub is_degraded: bool,
    /// What decided last.
    pub reason: SelectionReason,
    /// The rule that decided. `None`: none did.
    pub rule: Option<RuleId>,
    /// The revision of the configuration that decided.
    pub revision: Revision,
    /// How many attempts it took; the last is the one that answers.
    pub attempts: u32,
}
