//! The writes: the request of each, and its effect on a state.
//!
//! A write already carries the violations that were found in its fields. Its answer can therefore report all violations
//! at once: invalid fields, and fields that conflict with the state. Deciding about a write is pure: it only reads the
//! state, and takes the id for a new credential as an argument.

mod apply;
mod batch;
mod delete;
mod diff;
mod feature;
mod model;
mod restore;
mod settings;

use switchboard::{
    names::{CredentialId, FeatureName, ModelName, ResourceName, Revision},
    violation::Violations,
};

pub use self::{
    apply::{ApplyConfig, GivenFeature, GivenModel},
    batch::{BatchUpdateFeatures, BatchView},
    delete::{DeleteModel, DeletedView},
    diff::{COUNT_MAX, ChangedResource, Diff, DiffView},
    feature::UpdateFeature,
    model::{CreateModel, RequestedId, UpdateModel},
    restore::{Old, OldResource, OldValue, RestoreRevision},
    settings::UpdateSettings,
};
use super::{
    state::{Change, Record, State},
    view,
};

/// A write of one resource.
pub trait Write: Send + 'static {
    /// The name of the resource.
    type Name: Send;
    /// The resource as the answer contains it.
    type View: view::WriteView + Send + 'static;

    /// Decides the effect of the write on a state. `fresh` becomes the id of the credential if the write sets one.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the write is refused.
    fn judge(&self, state: &State, fresh: CredentialId) -> Result<WriteEffect<Self::Name>, WriteError>;

    /// Returns the resource in a state.
    fn view(state: &State, name: &Self::Name) -> Option<Self::View>;
}

/// The effect of a write.
#[derive(Debug)]
pub struct WriteEffect<N> {
    /// The name of the resource.
    pub name: N,
    /// The new state of the resource. `None`: the write changes nothing.
    pub change: Option<Change>,
}

/// A request that makes one revision: a write of one resource, or of several that belong together.
pub trait Revise: Send + 'static {
    /// Identifies the subject of the answer.
    type Subject: Send;
    /// The outcome as the answer contains it.
    type View: view::WriteView;

    /// Decides the effect of the request on a state. `fresh` becomes the id of the credential if the request sets one.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the request is refused.
    fn plan(&self, state: &State, fresh: CredentialId) -> Result<Plan<Self::Subject>, WriteError>;

    /// Returns the outcome. `state` is the state after the plan was carried out. `None`: the subject is not part of the
    /// state.
    fn outcome(state: &State, subject: &Self::Subject) -> Option<Self::View>;

    /// Returns the revision that the request goes back to. If there is one, the writer calls [`Self::hand_in`] before
    /// [`Self::plan`].
    fn goes_back_to(&self) -> Option<Revision> {
        None
    }

    /// Receives the old values of the resources that were changed since that revision.
    fn hand_in(&mut self, _since: Vec<Old>) {}
}

/// The content of one revision. If it is empty, no revision is made.
#[derive(Debug)]
pub struct Plan<S> {
    /// Identifies the subject of the answer.
    pub subject: S,
    /// The new states of the changed resources.
    pub changes: Vec<Change>,
    /// The models that the revision deletes.
    pub deleted: Vec<ModelName>,
}

impl<S> Plan<S> {
    /// Returns whether the plan changes nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.deleted.is_empty()
    }
}

impl<W: Write> Revise for W {
    type Subject = W::Name;
    type View = W::View;

    fn plan(&self, state: &State, fresh: CredentialId) -> Result<Plan<W::Name>, WriteError> {
        let verdict = self.judge(state, fresh)?;
        Ok(Plan {
            subject: verdict.name,
            changes: verdict.change.into_iter().collect(),
            deleted: Vec::new(),
        })
    }

    fn outcome(state: &State, subject: &W::Name) -> Option<W::View> {
        W::view(state, subject)
    }
}

/// Why a write is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Fields are invalid, or conflict with the state.
    #[error("the request has invalid fields")]
    Invalid(Violations),
    /// The resource to write does not exist.
    #[error("`{0}` does not exist")]
    NotFound(ResourceName),
    /// The resource has changed since the writer read it.
    #[error("`{name}` has changed since it was read: it is at revision {revision} now")]
    Conflict {
        /// The resource.
        name: ResourceName,
        /// The revision that last changed it.
        revision: Revision,
    },
    /// The revision in the request does not exist yet.
    #[error("the revision does not exist yet: the newest is {newest}")]
    InFuture {
        /// The oldest revision that can be restored.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The changes since the revision in the request are no longer kept.
    #[error("the changes since the revision are no longer kept: the oldest revision that can be restored is {oldest}")]
    Compacted {
        /// The oldest revision that can be restored.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The id or the display name belongs to another model.
    #[error("{field} is taken by `{holder}`")]
    NameTaken {
        /// The field with the id or the display name.
        field: &'static str,
        /// The model that uses it.
        holder: ModelName,
    },
    /// The model cannot be deleted because features name it.
    #[error(
        "`{name}` is in use by {}: give them another model, or delete this one with `reassign_to`",
        list(features)
    )]
    InUse {
        /// The model.
        name: ModelName,
        /// The features that name the model, including disabled ones.
        features: Vec<FeatureName>,
    },
    /// The write assigns a family or a feature that is in beta, but beta is off.
    #[error("{} in beta, but beta is off: set `settings.beta_enabled` to switch it on", are(.0))]
    BetaNotEnabled(Vec<String>),
}

/// Fails if an etag was given that differs from the resource's current one.
fn check_etag(state: &State, name: ResourceName, record: Record, etag: Option<&str>) -> Result<(), WriteError> {
    match etag {
        Some(etag) if etag != state.etag(&name, record).as_str() => Err(WriteError::Conflict {
            name,
            revision: record.revision,
        }),
        _ => Ok(()),
    }
}

fn list(features: &[FeatureName]) -> String {
    let names: Vec<_> = features.iter().map(|name| format!("`{}`", name.id())).collect();
    names.join(", ")
}

fn are(subjects: &[String]) -> String {
    let verb = if subjects.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", subjects.join(" and "))
}
