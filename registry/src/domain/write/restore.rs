//! Going back to an earlier revision, by a new one.

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

/// Brings models, features and settings back as they were.
///
/// What was set then is kept as an upgrade would keep it: neither beta nor the families that a feature takes are asked
/// about again, nor are reservations, which come back together with the limits that they fitted. What today's catalogue
/// cannot read at all is refused.
#[derive(Debug)]
pub struct RestoreRevision {
    /// The revision. `None`: a bad one, which is a violation already.
    pub revision: Option<Revision>,
    /// What was changed since, as it was then. The writer hands it in.
    pub since: Vec<Old>,
    /// What is wrong already.
    pub violations: Violations,
}

/// What a resource was at an earlier revision, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldValue {
    /// Its name.
    pub name: ResourceName,
    /// Its value. `None`: it did not exist.
    pub value: Option<Bytes>,
}

/// What a resource was at an earlier revision.
#[derive(Debug)]
pub struct Old {
    /// Its name.
    pub name: ResourceName,
    /// What it was, or why this build cannot tell. `None`: it did not exist.
    pub was: Result<Option<OldResource>, Violations>,
}

/// An earlier version of a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum OldResource {
    /// A model.
    Model {
        /// What somebody had set of it.
        model: Model,
        /// Whether it had an API token, or had lost one.
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
                        let description =
                            format!("`{name}` cannot be brought back: {} {}", flaw.field, flaw.description);
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
                // These are always there: a release brought them since.
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

/// A model with the token that it has now, as far as that one may go where the model was. One that is gone took its token
/// along.
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
