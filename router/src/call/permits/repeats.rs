//! The budgets of all models: how many of their calls are tried once more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::names::ModelName;
use tokio::time::Instant;

use crate::call::budget::Budget;

/// With more budgets than this, those of models that nobody calls are dropped.
const KEPT_MIN: usize = 256;

/// A clone counts in the same place.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    budgets: Arc<Mutex<Budgets>>,
    refused: Counter,
    hedges: Counter,
}

#[derive(Debug)]
struct Budgets {
    of: HashMap<ModelName, Budget>,
    /// With so many it is looked which are still needed.
    most: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            most: KEPT_MIN,
        }
    }
}

impl Repeats {
    pub(super) fn call(&self, model: &ModelName) {
        let now = Instant::now();
        let mut budgets = self.lock();
        if let Some(budget) = budgets.of.get_mut(model) {
            budget.call(now);
            return;
        }
        if budgets.of.len() >= budgets.most {
            budgets.of.retain(|_, budget| !budget.is_idle(now));
            budgets.most = KEPT_MIN.max(2 * budgets.of.len());
        }
        let budget = budgets.of.entry(model.clone()).or_insert_with(|| Budget::new(now));
        budget.call(now);
    }

    pub(super) fn repeat(&self, model: &ModelName) -> bool {
        let may_repeat = self.ask(model, |budget| budget.repeat(Instant::now()));
        if !may_repeat {
            self.refused.inc();
        }
        may_repeat
    }

    pub(super) fn hedge(&self, model: &ModelName) -> bool {
        let may_hedge = self.ask(model, Budget::hedge);
        if may_hedge {
            self.hedges.inc();
        }
        may_hedge
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "repeats_refused",
            "Calls that were not tried once more after a failure, since too many were",
            self.refused.clone(),
        );
        registry.register(
            "hedges",
            "Calls that were made a second time, since no token came in time",
            self.hedges.clone(),
        );
    }

    /// A budget that was dropped meanwhile was not used for long.
    fn ask(&self, model: &ModelName, question: impl FnOnce(&mut Budget) -> bool) -> bool {
        self.lock().of.get_mut(model).is_none_or(question)
    }

    fn lock(&self) -> MutexGuard<'_, Budgets> {
        self.budgets.lock()
    }
}
