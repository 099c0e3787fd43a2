//! Restores an earlier revision by making a new one.

use std::sync::Arc;

use bytes::Bytes;
use switchboard::{
    names::{CredentialId, ResourceName, Revision},
    resource::{
        feature::Feature,
        model::{GivenToken, Model},
        settings::Settings,
    },
    violation::Violations,
};

use super::{
    Plan, Revise, WriteError,
    diff::{self, Diff, DiffView},
    model::credential_after,
};
use crate::domain::{
    credential::ModelCredential,
    state::{Change, State},
};

const REVISION: &str = "revision";

/// Restores models, features and settings to an earlier revision.
///
/// Restored settings are treated as an upgrade treats stored ones: beta is not checked again, nor the families that a
/// feature takes, nor reservations, which are restored together with the limits that they were checked against. A
/// resource that today's catalogue cannot read at all is refused.
#[derive(Debug)]
pub struct RestoreRevision {
    /// The revision to restore. `None`: it is invalid, which is one of the violations.
    pub revision: Option<Revision>,
    /// The resources that were changed since the revision, in their state at it. The writer provides them.
    pub since: Vec<Old>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

/// The state of a resource at an earlier revision, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldValue {
    /// The name of the resource.
    pub name: ResourceName,
    /// Its value. `None`: it did not exist.
    pub value: Option<Bytes>,
}

/// The state of a resource at an earlier revision.
#[derive(Debug)]
pub struct Old {
    /// The name of the resource.
    pub name: ResourceName,
    /// Its state, or why this build cannot read it. `Ok(None)`: it did not exist.
    pub was: Result<Option<OldResource>, Violations>,
}

/// An earlier state of a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum OldResource {
    /// A model.
    Model {
        /// The stored fields of the model.
        model: Model,
        /// Whether the model had an API token, or had one that was dropped.
        wanted_token: bool,
    },
    /// A feature.
    Feature(Feature),
    /// The settings.
    Settings(Settings),
}

impl Revise for RestoreRevision {
    type Subject = Arc<Diff>;
    type View = DiffView;

    fn plan(&self, state: &State, fresh: CredentialId) -> Result<Plan<Arc<Diff>>, WriteError> {
        let mut violations = self.violations.clone();
        let (Some(revision), true) = (self.revision, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        let (oldest, newest) = (state.items.oldest_resumable(), state.items.revision());
        if revision > newest {
            return Err(WriteError::InFuture { oldest, newest });
        }
        if revision < oldest {
            return Err(WriteError::Compacted { oldest, newest });
        }
        let (mut wanted, mut deleted) = (Vec::new(), Vec::new());
        for old in &self.since {
            match (&old.name, &old.was) {
                (name, Err(found)) => {
                    for flaw in found.as_slice() {
                        let description = format!("`{name}` cannot be restored: {} {}", flaw.field, flaw.description);
                        violations.push(REVISION, flaw.reason, description);
                    }
                }
                (_, Ok(Some(OldResource::Model { model, wanted_token }))) => {
                    wanted.push(brought_back(state, model, *wanted_token, fresh));
                }
                (_, Ok(Some(OldResource::Feature(feature)))) => wanted.push(Change::Feature(feature.clone())),
                (_, Ok(Some(OldResource::Settings(settings)))) => wanted.push(Change::Settings(*settings)),
                (ResourceName::Model(name), Ok(None)) => {
                    deleted.extend(state.models.contains_key(name).then(|| name.clone()));
                }
                // Features and settings always exist: a later release has introduced this one.
                (ResourceName::Feature(name), Ok(None)) => {
                    wanted.push(Change::Feature(Feature::unset(name.clone())));
                }
                (ResourceName::Settings, Ok(None)) => wanted.push(Change::Settings(Settings::default())),
            }
        }
        if !violations.is_empty() {
            return Err(WriteError::Invalid(violations));
        }
        diff::plan(state, REVISION, wanted, deleted)
    }

    fn outcome(state: &State, diff: &Arc<Diff>) -> Option<DiffView> {
        Some(DiffView::new(state, diff))
    }

    fn goes_back_to(&self) -> Option<Revision> {
        self.revision
    }

    fn hand_in(&mut self, since: Vec<Old>) {
        self.since = since;
    }
}

/// Restores a model. It keeps its current token if the token may be sent to all restored origins. If the model was
/// deleted, its token was deleted with it.
fn brought_back(state: &State, model: &Model, wanted_token: bool, fresh: CredentialId) -> Change {
    let (credential, is_token_touched) = if state.models.contains_key(&model.name) {
        credential_after(&GivenToken::Kept, state.credential(&model.name), &model.spec, fresh)
    } else if wanted_token {
        (ModelCredential::Dropped, true)
    } else {
        (ModelCredential::None, false)
    };
    Change::Model {
        model: model.clone(),
        credential,
        is_token_touched,
    }
}
