//! The setting of a feature, as somebody would explain it.

use switchboard::pb::{
    registry::{self, FeatureLimits},
    types::Provider,
};

/// Who answers a feature.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Setting {
    pub(super) provider: Provider,
    pub(super) model: Option<String>,
    pub(super) fallbacks: Vec<String>,
    /// The models of the rules; no call of the histories matches one.
    pub(super) rules: Vec<String>,
    pub(super) limits: FeatureLimits,
    pub(super) hedge_delay: Option<prost_types::Duration>,
}

impl Setting {
    /// What the fields of a feature say.
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

    /// Of which nobody has set anything.
    pub(super) fn unset() -> Self {
        Self {
            provider: Provider::Unassigned,
            ..Self::default()
        }
    }

    /// Who answers, without any model; what else is set stays.
    pub(super) fn answered_by(self, provider: Provider) -> Self {
        Self {
            provider,
            limits: self.limits,
            hedge_delay: self.hedge_delay,
            ..Self::default()
        }
    }

    /// Sets what is given of the limits and of the hedge delay.
    pub(super) fn limit(&mut self, given: &Self) {
        let (limits, given_limits) = (&mut self.limits, &given.limits);
        limits.max_concurrency = given_limits.max_concurrency.or(limits.max_concurrency);
        limits.reserved_concurrency = given_limits.reserved_concurrency.or(limits.reserved_concurrency);
        self.hedge_delay = given.hedge_delay.or(self.hedge_delay);
    }

    /// The places of its model that it reserves: none while it is switched off.
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
