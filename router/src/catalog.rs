//! The catalog: an immutable snapshot of the configuration, and the selection of models from it.
//!
//! Pure: no I/O, no clock, nothing async. It knows nothing of health or load.
//! The one hard idea: a call loads the catalog once and uses it to its end, even if another one is put in use
//! meanwhile.

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
    /// The registry's state that the catalog was compiled from.
    pub cursor: Cursor,
    /// The setting of each feature.
    pub features: HashMap<FeatureName, CompiledSetting>,
    /// Each model that exists, usable or not.
    pub models: HashMap<ModelName, ModelState>,
    /// Whether self-hosted inference is switched off everywhere.
    pub inference_paused: bool,
}

/// The provider of a feature, with the models if it is self-hosted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompiledSetting {
    /// No provider is set: the parent's setting is used.
    Unassigned,
    /// The feature is switched off.
    Disabled,
    /// GitLab's own cloud answers the feature.
    Vendored,
    /// Self-hosted models answer the feature.
    SelfHosted(Arc<Assignment>),
}

/// Which self-hosted models answer a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The model that answers if no rule decides.
    pub model: ModelName,
    /// Models that are tried in this order if the ones before cannot answer.
    pub fallbacks: Vec<ModelName>,
    /// Exceptions: the first rule that matches decides instead of [`Self::model`].
    pub rules: Vec<CompiledRule>,
    /// Limits of the feature's calls, on this router alone. A feature that uses its parent's setting counts as the
    /// parent.
    pub limits: FeatureLimits,
    /// Delay after which a call without a token gets a second attempt in parallel. `None`: it gets none.
    pub hedge_delay: Option<HedgeDelay>,
}

/// Compiles a setting. The models that a switched-off feature keeps are left out, since the router does not use them.
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
    /// Returns every model that the assignment names.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        let rules = self.rules.iter().map(|rule| &rule.model);
        [&self.model].into_iter().chain(&self.fallbacks).chain(rules)
    }
}

/// Assigns one model, without rules, fallbacks or limits.
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

/// Whether a model can be called at the moment, and if not, why.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// It can be called.
    Ready(Arc<CompiledModel>),
    /// It is disabled.
    Disabled,
    /// Its API token was dropped, and no other was set.
    CredentialMissing,
    /// This router has no usable version of it yet.
    NotReady,
}

/// A model that can be called.
#[derive(Debug, Clone)]
pub struct CompiledModel {
    /// Its name.
    pub name: ModelName,
    /// Its configuration.
    pub spec: Arc<ModelSpec>,
    /// Its credential. `None`: calls carry no credential.
    pub credential: Option<Arc<Credential>>,
    /// How the certificates of its servers are verified. `None`: with the system's roots and the endpoint's host name.
    pub tls: Option<Arc<CompiledTls>>,
}

impl CompiledModel {
    /// Creates a model from its configuration.
    #[must_use]
    pub fn new(name: ModelName, spec: Arc<ModelSpec>, credential: Option<Arc<Credential>>) -> Self {
        Self {
            name,
            credential,
            tls: CompiledTls::of(&spec.tls).map(Arc::new),
            spec,
        }
    }

    /// Returns the name that is sent to a server. `listed` is the model's name in the server's model list.
    #[must_use]
    pub fn identifier_or<'a>(&'a self, listed: Option<&'a str>) -> &'a str {
        self.spec.sent_identifier().or(listed).unwrap_or_else(|| self.name.id())
    }
}

/// Whether servers of this platform are probed. Only the administrator's own servers are, not those of hosted
/// platforms.
#[must_use]
pub const fn is_probed(platform: &Platform) -> bool {
    match platform {
        Platform::OpenAiCompatible => true,
        Platform::AzureOpenAi { .. } | Platform::Anthropic => false,
    }
}

/// An API token, and the origins to which it may be sent.
#[derive(Debug)]
pub struct Credential {
    /// The id of the token. Another token has another id.
    pub id: CredentialId,
    /// The only origins to which it may be sent.
    pub origins: BTreeSet<Origin>,
    /// The token.
    pub token: ApiToken,
}

impl Credential {
    /// Returns the token if it may be sent to this server.
    #[must_use]
    pub fn token_for(&self, server: &EndpointUri) -> Option<&ApiToken> {
        self.origins.contains(&server.origin()).then_some(&self.token)
    }
}
