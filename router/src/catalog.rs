//! An immutable snapshot of the configuration, ready to select from, and the selection itself.
//!
//! Pure: no I/O, no clock, nothing async. It knows nothing of health or load.
//! The one hard idea: a call loads the catalog once and uses that one to its end, whatever is swapped in meanwhile.

mod resolve;
mod rule;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use switchboard::{
    endpoint::{EndpointUri, Origin},
    history::Cursor,
    names::{CredentialId, FeatureName, ModelName},
    resource::{
        feature::{self, FeatureLimits, FeatureSpec, HedgeDelay},
        model::{ModelSpec, Platform},
    },
    secret::ApiToken,
};

pub use self::{
    resolve::{Candidate, Decision, ResolveError, SelectionReason, Unusable},
    rule::{Caller, CompiledRule, Match, Scope},
    tls::CompiledTls,
};

/// Everything that a call needs to select a model.
#[derive(Debug)]
pub struct Catalog {
    /// The state that it was compiled from.
    pub cursor: Cursor,
    /// The setting of each feature.
    pub features: HashMap<FeatureName, CompiledSetting>,
    /// Each model that exists, usable or not.
    pub models: HashMap<ModelName, ModelState>,
    /// Self-hosted inference is switched off everywhere.
    pub inference_paused: bool,
}

/// Who answers a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompiledSetting {
    /// Nobody was chosen: the parent decides.
    Unassigned,
    /// Switched off.
    Disabled,
    /// GitLab's own cloud.
    Vendored,
    /// Self-hosted models.
    SelfHosted(Arc<Assignment>),
}

/// Which self-hosted models answer a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The model that answers where no rule decides.
    pub model: ModelName,
    /// Who answers, in this order, when the one before cannot.
    pub fallbacks: Vec<ModelName>,
    /// Exceptions: the first that fits decides instead of [`Self::model`].
    pub rules: Vec<CompiledRule>,
    /// The limits of its calls, on this router alone. A feature that uses its parent's setting counts as the parent.
    pub limits: FeatureLimits,
    /// When a call that has no token yet is made a second time. `None`: never.
    pub hedge_delay: Option<HedgeDelay>,
}

/// What a setting comes to on this router. Models that a switched-off feature keeps are of no use here.
impl From<FeatureSpec> for CompiledSetting {
    fn from(spec: FeatureSpec) -> Self {
        let FeatureSpec {
            setting,
            limits,
            hedge_delay,
        } = spec;
        match setting {
            feature::Setting::Unassigned => Self::Unassigned,
            feature::Setting::Disabled { .. } => Self::Disabled,
            feature::Setting::Vendored => Self::Vendored,
            feature::Setting::SelfHosted { model, routes } => Self::SelfHosted(Arc::new(Assignment {
                model,
                fallbacks: routes.fallbacks.as_slice().to_vec(),
                rules: routes.rules.as_slice().iter().map(CompiledRule::from).collect(),
                limits,
                hedge_delay,
            })),
        }
    }
}

impl Assignment {
    /// Every model that it names.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        let rules = self.rules.iter().map(|rule| &rule.model);
        [&self.model].into_iter().chain(&self.fallbacks).chain(rules)
    }
}

/// One model alone.
impl From<ModelName> for CompiledSetting {
    fn from(model: ModelName) -> Self {
        Self::SelfHosted(Arc::new(Assignment {
            model,
            fallbacks: Vec::new(),
            rules: Vec::new(),
            limits: FeatureLimits::default(),
            hedge_delay: None,
        }))
    }
}

/// What a model can be used for now.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// It can be called.
    Ready(Arc<CompiledModel>),
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped and no other was given.
    CredentialMissing,
    /// There is no usable version of it here yet.
    NotReady,
}

/// A model that can be called.
#[derive(Debug, Clone)]
pub struct CompiledModel {
    /// Its name.
    pub name: ModelName,
    /// What it is.
    pub spec: Arc<ModelSpec>,
    /// Its credential. `None`: calls carry none.
    pub credential: Option<Arc<Credential>>,
    /// How its servers prove who they are. `None`: by the system's roots.
    pub tls: Option<Arc<CompiledTls>>,
}

impl CompiledModel {
    /// Makes a model of what it is.
    #[must_use]
    pub fn new(name: ModelName, spec: Arc<ModelSpec>, credential: Option<Arc<Credential>>) -> Self {
        Self {
            name,
            credential,
            tls: CompiledTls::of(&spec.tls).map(Arc::new),
            spec,
        }
    }

    /// The name that is sent to a server whose model list tells `listed`.
    #[must_use]
    pub fn identifier_or<'a>(&'a self, listed: Option<&'a str>) -> &'a str {
        self.spec.sent_identifier().or(listed).unwrap_or_else(|| self.name.id())
    }
}

/// Whether a platform's servers are the administrator's own: those of others are not probed.
#[must_use]
pub const fn is_probed(platform: &Platform) -> bool {
    match platform {
        Platform::OpenAiCompatible => true,
        Platform::AzureOpenAi { .. } | Platform::Anthropic => false,
    }
}

/// An API token and where it may be sent.
#[derive(Debug)]
pub struct Credential {
    /// The id of this very token.
    pub id: CredentialId,
    /// The only origins to which it may be sent.
    pub origins: BTreeSet<Origin>,
    /// The token.
    pub token: ApiToken,
}

impl Credential {
    /// The token, if it may be sent to this server.
    #[must_use]
    pub fn token_for(&self, server: &EndpointUri) -> Option<&ApiToken> {
        self.origins.contains(&server.origin()).then_some(&self.token)
    }
}
