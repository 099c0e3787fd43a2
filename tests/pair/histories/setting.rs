//! The setting of a feature in the simple description that the histories are compared with.

use switchboard::pb::{
    registry::{self, FeatureLimits},
    types::Provider,
};

/// The setting of a feature.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Setting {
    pub(super) provider: Provider,
    pub(super) model: Option<String>,
    pub(super) fallbacks: Vec<String>,
    /// The models of the rules. No call of the histories matches a rule.
    pub(super) rules: Vec<String>,
    pub(super) limits: FeatureLimits,
    pub(super) hedge_delay: Option<prost_types::Duration>,
}

impl Setting {
    /// Reads the fields of a feature.
    pub(super) fn read(feature: &registry::Feature) -> Self {
        Self {
            provider: feature.provider(),
            model: feature.model.clone(),
            fallbacks: feature.fallback_models.clone(),
            rules: feature.rules.iter().map(|rule| rule.model.clone()).collect(),
            limits: feature.limits.unwrap_or_default(),
            hedge_delay: feature.hedge_delay,
        }
    }

    /// The setting of a feature without any setting.
    pub(super) fn unset() -> Self {
        Self {
            provider: Provider::Unassigned,
            ..Self::default()
        }
    }

    /// Changes the provider and removes all models. Limits and hedge delay stay.
    pub(super) fn answered_by(self, provider: Provider) -> Self {
        Self {
            provider,
            limits: self.limits,
            hedge_delay: self.hedge_delay,
            ..Self::default()
        }
    }

    /// Sets the limits and the hedge delay that the request has.
    pub(super) fn limit(&mut self, given: &Self) {
        let (limits, given_limits) = (&mut self.limits, &given.limits);
        limits.max_concurrency = given_limits.max_concurrency.or(limits.max_concurrency);
        limits.reserved_concurrency = given_limits.reserved_concurrency.or(limits.reserved_concurrency);
        self.hedge_delay = given.hedge_delay.or(self.hedge_delay);
    }

    /// The number of reserved places of the model: 0 while the feature is switched off.
    pub(super) fn reserved(&self) -> i32 {
        let is_on = self.provider == Provider::SelfHosted;
        self.limits.reserved_concurrency.filter(|_| is_on).unwrap_or(0)
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
