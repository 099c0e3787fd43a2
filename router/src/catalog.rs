//! An immutable snapshot of the configuration, ready to select from, and the selection itself.
//!
//! Pure: no I/O, no clock, nothing async. It knows nothing of health or load.
//! The one hard idea: a call loads the catalog once and uses that one to its end, whatever is swapped in meanwhile.

mod limits;
mod resolve;
mod rule;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use switchboard::{
    catalogue::Family,
    endpoint::{EndpointUri, Origin},
    history::Cursor,
    names::{CredentialId, FeatureName, ModelName},
    secret::ApiToken,
};

pub use self::{
    limits::{Limits, QUEUE_MAX},
    resolve::{Candidate, Decision, ResolveError, SelectionReason, Unusable},
    rule::{Caller, Match, Rule, RuleId, RuleIdError, Scope, Share, ShareError},
    tls::{Tls, TlsError},
};

/// Everything that a call needs to select a model.
#[derive(Debug)]
pub struct Catalog {
    /// The state that it was compiled from.
    pub cursor: Cursor,
    /// The setting of each feature.
    pub features: HashMap<FeatureName, Setting>,
    /// Each model that exists, usable or not.
    pub models: HashMap<ModelName, ModelState>,
    /// Self-hosted inference is switched off everywhere.
    pub inference_paused: bool,
}

/// Who answers a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
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
    pub rules: Vec<Rule>,
    /// The limits of its calls, on this router.
    pub limits: FeatureLimits,
    /// When a call that has no token yet is made a second time. `None`: never.
    pub hedge_delay: Option<Duration>,
}

/// The limits of a feature's calls, on this router alone. A feature that uses its parent's setting counts as the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureLimits {
    /// How many calls it may have at a time. `None`: as many as there are.
    pub max_concurrency: Option<usize>,
    /// How many places of [`Assignment::model`] are there for it whatever others do.
    pub reserved_concurrency: usize,
}

impl Assignment {
    /// Every model that it names.
    pub fn models(&self) -> impl Iterator<Item = &ModelName> {
        let rules = self.rules.iter().map(|rule| &rule.model);
        [&self.model].into_iter().chain(&self.fallbacks).chain(rules)
    }
}

/// One model alone.
impl From<ModelName> for Setting {
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
    Ready(Arc<Model>),
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped and no other was given.
    CredentialMissing,
    /// There is no usable version of it here yet.
    NotReady,
}

/// A model that can be called.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// Its family.
    pub family: &'static Family,
    /// The kind of API that its servers speak.
    pub platform: Platform,
    /// The name by which its servers know it, as sent. `None`: none was given, and each server's model list tells.
    pub identifier: Option<String>,
    /// Its servers, one at least with a weight above 0.
    pub endpoints: Vec<Endpoint>,
    /// Its credential. `None`: calls carry none.
    pub credential: Option<Arc<Credential>>,
    /// How it completes code.
    pub infill_mode: InfillMode,
    /// The limits of its calls.
    pub limits: Limits,
    /// How its servers prove who they are. `None`: by the system's roots.
    pub tls: Option<Arc<Tls>>,
}

impl Model {
    /// The name that is sent to a server whose model list tells `listed`.
    #[must_use]
    pub fn identifier_or<'a>(&'a self, listed: Option<&'a str>) -> &'a str {
        self.identifier.as_deref().or(listed).unwrap_or_else(|| self.name.id())
    }
}

/// The kind of API that a model's servers speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Platform {
    /// OpenAI's chat completions and completions, as many servers have them.
    #[default]
    OpenAiCompatible,
    /// Azure OpenAI.
    AzureOpenAi {
        /// The version of its API.
        api_version: Box<str>,
    },
    /// Anthropic Messages.
    Anthropic,
}

impl Platform {
    /// Whether its servers are the administrator's own: those of others are not probed.
    #[must_use]
    pub const fn is_probed(&self) -> bool {
        match self {
            Self::OpenAiCompatible => true,
            Self::AzureOpenAi { .. } | Self::Anthropic => false,
        }
    }
}

/// How a model completes code between a prefix and a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InfillMode {
    /// As its family does.
    #[default]
    FamilyDefault,
    /// With the family's marks, as text to go on from.
    Completions,
    /// With a suffix beside the text, for servers that put in the marks themselves.
    Suffix,
    /// By chat.
    Chat,
}

/// One server of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its share of the calls, 0 to 1000.
    pub weight: u32,
    /// Where it stands; routers of the same group prefer it. Empty: nowhere in particular.
    pub zone: Box<str>,
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
