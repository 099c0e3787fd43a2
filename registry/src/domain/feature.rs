//! The setting of one AI-powered feature. What the feature is in itself stands in the catalogue.

use switchboard::names::{FeatureName, ModelName};

/// A feature and who answers it: only what somebody has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: FeatureName,
    /// Who answers.
    pub setting: Setting,
}

impl Feature {
    /// Every model that it names: what keeps a model from being deleted.
    pub fn references(&self) -> impl Iterator<Item = &ModelName> {
        self.setting.model().into_iter()
    }

    /// The same feature with every reference to `from` moved to `to`.
    #[must_use]
    pub fn reassigned(&self, from: &ModelName, to: &ModelName) -> Self {
        let moved = |model: &ModelName| if model == from { to.clone() } else { model.clone() };
        let setting = match &self.setting {
            Setting::SelfHosted(model) => Setting::SelfHosted(moved(model)),
            Setting::Disabled(model) => Setting::Disabled(model.as_ref().map(moved)),
            Setting::Unassigned => Setting::Unassigned,
            Setting::Vendored => Setting::Vendored,
        };
        Self {
            name: self.name.clone(),
            setting,
        }
    }
}

/// Who answers a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Nobody was chosen.
    Unassigned,
    /// Switched off.
    Disabled,
    /// GitLab's own cloud.
    Vendored,
    /// A self-hosted model.
    SelfHosted,
}

/// Who answers a feature, with the model where one may be named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Setting {
    /// Nobody was chosen.
    #[default]
    Unassigned,
    /// Switched off; the model is kept for when it is switched on again.
    Disabled(Option<ModelName>),
    /// GitLab's own cloud.
    Vendored,
    /// This self-hosted model.
    SelfHosted(ModelName),
}

impl Setting {
    /// Who answers.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Unassigned => Provider::Unassigned,
            Self::Disabled(_) => Provider::Disabled,
            Self::Vendored => Provider::Vendored,
            Self::SelfHosted(_) => Provider::SelfHosted,
        }
    }

    /// The model that it names.
    #[must_use]
    pub const fn model(&self) -> Option<&ModelName> {
        match self {
            Self::SelfHosted(model) | Self::Disabled(Some(model)) => Some(model),
            Self::Unassigned | Self::Disabled(None) | Self::Vendored => None,
        }
    }
}
