//! The setting of a feature, as somebody would explain it.

use switchboard::pb::{registry, types::Provider};

/// Who answers a feature.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Setting {
    pub(super) provider: Provider,
    pub(super) model: Option<String>,
    pub(super) fallbacks: Vec<String>,
    /// The models of the rules; no call of the histories matches one.
    pub(super) rules: Vec<String>,
}

impl Setting {
    /// What the fields of a feature say.
    pub(super) fn read(feature: &registry::Feature) -> Self {
        Self {
            provider: feature.provider(),
            model: feature.model.clone(),
            fallbacks: feature.fallback_models.clone(),
            rules: feature.rules.iter().map(|rule| rule.model.clone()).collect(),
        }
    }

    pub(super) fn of(model: &str) -> Self {
        Self {
            model: Some(model.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn models(&self) -> impl Iterator<Item = &String> {
        self.model.iter().chain(&self.fallbacks).chain(&self.rules)
    }

    pub(super) fn reassign(&mut self, from: &str, to: &str) {
        let move_one = |model: &mut String| {
            if model == from {
                *model = to.to_owned();
            }
        };
        self.model.iter_mut().for_each(move_one);
        self.rules.iter_mut().for_each(move_one);
        let mut fallbacks = Vec::new();
        for mut fallback in std::mem::take(&mut self.fallbacks) {
            move_one(&mut fallback);
            if self.model.as_ref() != Some(&fallback) && !fallbacks.contains(&fallback) {
                fallbacks.push(fallback);
            }
        }
        self.fallbacks = fallbacks;
    }
}
