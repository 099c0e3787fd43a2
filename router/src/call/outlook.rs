//! The dry run of a call: finds the model that a call would reach, without making the call.

use std::sync::Arc;

use switchboard::reason::Reason;

use super::{
    CallError, CallRefusal, Calls,
    considered::{Considered, Outcome},
    entry::{Entered, Prospect},
};
use crate::{
    catalog::{Catalog, CompiledModel, Decision, ResolveError, SelectionReason},
    permits::QuotaExceeded,
};

/// The result of a dry run.
#[derive(Debug)]
pub struct Outlook {
    /// The model that would be called. `None`: the call would fail.
    pub answerer: Option<Answerer>,
    /// Why the call would fail. `None`: it would reach a model.
    pub failure: Option<CallError>,
    /// Every candidate with its outcome, and the models of rules that do not decide.
    pub considered: Vec<Considered>,
}

/// The model that would be called.
#[derive(Debug, Clone)]
pub struct Answerer {
    /// The model.
    pub model: Arc<CompiledModel>,
    /// What decided the selection.
    pub reason: SelectionReason,
    /// Why all of the model's servers are failing. `None`: at least one takes calls.
    pub degraded: Option<Reason>,
}

impl Calls {
    /// Goes through the candidates of `decision`, which `catalog` made, as a call would, but calls no model.
    ///
    /// It ignores everything that depends on a call's input: it assumes that every model supports the input.
    #[must_use]
    pub fn outlook(&self, catalog: &Arc<Catalog>, decision: &Decision) -> Outlook {
        let source = decision.source_feature;
        let refused = self.refusal(catalog, decision);
        let rules = catalog.rules(decision).filter(|(_, decides)| !decides);
        let mut considered: Vec<Considered> = rules
            .map(|(rule, _)| Considered {
                model: rule.model.clone(),
                source_feature: source,
                rule: Some(rule.id.clone()),
                outcome: Outcome::RuleNotMatched,
            })
            .collect();
        let prospect = Prospect {
            catalog,
            decision,
            models: self.models(),
        };
        let mut answerer = None;
        let mut first = None;
        for (index, candidate) in catalog.candidates(decision).enumerate() {
            let outcome = match prospect.consider(&candidate, index + 1, |_| Ok(())) {
                Err(error) => {
                    let outcome = Outcome::from(&error);
                    first.get_or_insert(error);
                    outcome
                }
                Ok(_) if answerer.is_some() || refused.is_some() => Outcome::Standby,
                Ok(Entered { live, degraded, .. }) => {
                    answerer = Some(Answerer {
                        model: live.model,
                        reason: candidate.reason,
                        degraded,
                    });
                    Outcome::Chosen
                }
            };
            considered.push(Considered::new(&candidate, source, outcome));
        }
        Outlook {
            failure: refused.or(first).filter(|_| answerer.is_none()),
            answerer,
            considered,
        }
    }

    /// Returns why a call would be refused before any model is considered. `None`: it would not be refused.
    fn refusal(&self, catalog: &Catalog, decision: &Decision) -> Option<CallError> {
        if catalog.inference_paused {
            let feature = decision.feature;
            return Some(CallRefusal::from(ResolveError::InferencePaused { feature }).into());
        }
        let feature = decision.source_feature;
        let limit = catalog.max_concurrency(decision)?;
        let is_spent = self.quotas.is_spent(feature, Some(limit));
        is_spent.then(|| CallRefusal::from(QuotaExceeded { feature, limit }).into())
    }
}

#[cfg(test)]
mod tests;
