//! Changes several features in one revision, or none of them.

use std::collections::HashSet;

use switchboard::{
    names::{CredentialId, FeatureName, Revision},
    reason::FieldReason,
    violation::Violations,
};

use super::{Plan, Revise, UpdateFeature, Write as _, WriteError};
use crate::domain::{
    state::State,
    view::{FeatureView, WriteView},
};

/// Changes several features, or none of them.
#[derive(Debug)]
pub struct BatchUpdateFeatures {
    /// The updates. The paths of their violations are those of a separate request.
    pub updates: Vec<UpdateFeature>,
    /// Violations in the batch itself that were found when the request was read.
    pub violations: Violations,
}

/// The features of a batch, in the order of the request.
#[derive(Debug, Clone)]
pub struct BatchView {
    /// The features.
    pub features: Vec<FeatureView>,
}

impl BatchUpdateFeatures {
    /// Maximum number of features that one batch may change.
    pub const COUNT_MAX: usize = 100;
}

impl WriteView for BatchView {
    fn revision(&self) -> Revision {
        let revisions = self.features.iter().map(WriteView::revision);
        revisions.max().unwrap_or(Revision::ZERO)
    }
}

impl Revise for BatchUpdateFeatures {
    type Subject = Vec<FeatureName>;
    type View = BatchView;

    fn plan(&self, state: &State, fresh: CredentialId) -> Result<Plan<Vec<FeatureName>>, WriteError> {
        let mut violations = self.violations.clone();
        let mut seen = HashSet::new();
        for (index, update) in self.updates.iter().enumerate() {
            if let Some(name) = &update.name
                && !seen.insert(name)
            {
                violations.push(
                    format!("requests[{index}].feature.name"),
                    FieldReason::ValueRepeated,
                    "is in the batch more than once; each feature can be changed once",
                );
            }
        }
        // Each update is checked against the state that the earlier ones leave.
        let mut draft = state.clone();
        let mut refusal = None;
        let mut plan = Plan {
            subject: Vec::with_capacity(self.updates.len()),
            changes: Vec::new(),
            deleted: Vec::new(),
        };
        for (index, update) in self.updates.iter().enumerate() {
            match update.judge(&draft, fresh) {
                Ok(verdict) => {
                    draft.preview(verdict.change.clone().into_iter().collect(), &[], std::time::UNIX_EPOCH);
                    plan.subject.push(verdict.name);
                    plan.changes.extend(verdict.change);
                }
                Err(WriteError::Invalid(found)) => violations.append(found.under(&format!("requests[{index}]."))),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        if !violations.is_empty() {
            return Err(WriteError::Invalid(violations));
        }
        refusal.map_or(Ok(plan), Err)
    }

    fn outcome(state: &State, names: &Vec<FeatureName>) -> Option<BatchView> {
        let features = names.iter().map(|name| state.feature(name)).collect::<Option<_>>()?;
        Some(BatchView { features })
    }
}
