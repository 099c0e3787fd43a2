//! The effect of writing a whole configuration, listed by resource.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use switchboard::{
    names::{ModelName, ResourceName, Revision},
    reason::FieldReason,
    violation::Violations,
};

use super::{Plan, WriteError};
use crate::domain::{
    credential::ModelCredential,
    state::{Change, State},
    view::WriteView,
};

/// Maximum number of resources that one revision may change.
pub const COUNT_MAX: usize = 20_000;

/// The effect of writing a whole configuration.
#[derive(Debug)]
pub struct Diff {
    /// The revision that the write was checked against.
    pub base: Revision,
    /// The resources that change, ordered by name.
    pub changes: Vec<ChangedResource>,
    /// The models that lose their API token.
    pub tokens_dropped: Vec<ModelName>,
}

/// One resource that changes.
#[derive(Debug)]
pub struct ChangedResource {
    /// The resource.
    pub name: ResourceName,
    /// Its value before. `None`: it did not exist.
    pub before: Option<Bytes>,
    /// Its new state. `None`: it is deleted.
    pub after: Option<Change>,
}

/// A write of the whole configuration as its answer contains it.
#[derive(Debug, Clone)]
pub struct DiffView {
    /// The effect of the write.
    pub diff: Arc<Diff>,
    /// The newest revision after the write.
    pub revision: Revision,
    /// When that revision was committed. For display only.
    pub commit_time: SystemTime,
}

impl WriteView for DiffView {
    fn revision(&self) -> Revision {
        self.revision
    }
}

impl DiffView {
    pub(super) fn new(state: &State, diff: &Arc<Diff>) -> Self {
        Self {
            diff: Arc::clone(diff),
            revision: state.items.revision(),
            commit_time: state.items.head().commit_time,
        }
    }
}

/// Plans only those changes that differ from the state. Violations name `field`.
pub(super) fn plan(
    state: &State,
    field: &str,
    mut wanted: Vec<Change>,
    deleted: Vec<ModelName>,
) -> Result<Plan<Arc<Diff>>, WriteError> {
    wanted.retain(|change| is_new(state, change));
    let count = wanted.len() + deleted.len();
    if count > COUNT_MAX {
        let mut violations = Violations::new();
        let description = format!("would change {count} resources; one revision can change {COUNT_MAX}");
        violations.push(field, FieldReason::ValueOutOfRange, description);
        return Err(WriteError::Invalid(violations));
    }
    let tokens_dropped = wanted.iter().filter_map(|change| match change {
        Change::Model {
            model,
            credential: ModelCredential::Dropped,
            ..
        } if !matches!(state.credential(&model.name), ModelCredential::Dropped) => Some(model.name.clone()),
        _ => None,
    });
    let mut tokens_dropped: Vec<_> = tokens_dropped.collect();
    tokens_dropped.sort_unstable();
    let put = wanted.iter().map(|change| (change.name(), Some(change.clone())));
    let gone = deleted.iter().map(|name| (name.clone().into(), None));
    let mut changes: Vec<_> = put
        .chain(gone)
        .map(|(name, after)| {
            let key = name.to_string();
            let before = state.items.get(&key).map(|item| item.value.clone());
            (key, ChangedResource { name, before, after })
        })
        .collect();
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let diff = Diff {
        base: state.items.revision(),
        changes: changes.into_iter().map(|(_, changed)| changed).collect(),
        tokens_dropped,
    };
    Ok(Plan {
        subject: Arc::new(diff),
        changes: wanted,
        deleted,
    })
}

fn is_new(state: &State, change: &Change) -> bool {
    match change {
        Change::Model {
            model,
            is_token_touched,
            ..
        } => {
            let stored = state.models.get(&model.name);
            *is_token_touched || stored.is_none_or(|stored| stored.value != *model)
        }
        Change::Feature(feature) => {
            let stored = state.features.get(&feature.name);
            stored.is_none_or(|stored| stored.value != *feature)
        }
        Change::Settings(settings) => state.settings.value != *settings,
    }
}
