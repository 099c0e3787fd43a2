//! The model and server that a call selected.

use std::{net::IpAddr, sync::Arc};

use switchboard::{
    names::{FeatureName, Revision},
    resource::{feature::RuleId, model::Endpoint},
};

use crate::{
    catalog::{CompiledModel, SelectionReason},
    upstream::ServerLabel,
};

/// The model and server that a call selected, and why.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The requested feature.
    pub feature: &'static FeatureName,
    /// The feature whose setting was used: the requested one, or its parent.
    pub source_feature: &'static FeatureName,
    /// The model.
    pub model: Arc<CompiledModel>,
    /// The endpoint of the server that is called.
    pub endpoint: Endpoint,
    /// The name by which the server knows the model.
    pub identifier: Arc<str>,
    /// The address to dial. `None`: the host name is dialled.
    pub address: Option<IpAddr>,
    /// Whether every server of the model is failing, and this one is used for lack of an alternative.
    pub is_degraded: bool,
    /// What decided the selection.
    pub reason: SelectionReason,
    /// The rule that decided. `None`: no rule decided.
    pub rule: Option<RuleId>,
    /// Revision of the configuration that decided.
    pub revision: Revision,
    /// Number of attempts that the call has made, including the one that answers.
    pub attempts: u32,
}

impl Selected {
    /// Returns the name of the server in texts.
    #[must_use]
    pub fn server(&self) -> ServerLabel {
        ServerLabel::new(&self.endpoint.uri, self.address)
    }
}
