//! The writes: what each asks for, and what it does to a state.
//!
//! A write carries what was wrong with its fields already, so that its answer can name everything at once, the bad fields
//! and those that do not fit the state. Deciding is pure: the state is only read, and a new credential id is handed in.

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
    /// The resource as the answer shows it.
    type View: view::WriteView + Send + 'static;

    /// Decides what the write does to a state. `fresh` is the id of the credential, should one be set.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when it cannot be made.
    fn judge(&self, state: &State, fresh: CredentialId) -> Result<WriteEffect<Self::Name>, WriteError>;

    /// The resource in a state.
    fn view(state: &State, name: &Self::Name) -> Option<Self::View>;
}

/// What a write does.
#[derive(Debug)]
pub struct WriteEffect<N> {
    /// The resource that it is about.
    pub name: N,
    /// The resource as it leaves it. `None`: it changes nothing.
    pub change: Option<Change>,
}

/// Whatever makes one revision: a write of one resource, or of several that belong together.
pub trait Revise: Send + 'static {
    /// What the answer is about.
    type Subject: Send;
    /// The outcome as the answer shows it.
    type View: view::WriteView;

    /// Decides what it does to a state. `fresh` is the id of the credential, should one be set.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when it cannot be made.
    fn plan(&self, state: &State, fresh: CredentialId) -> Result<Plan<Self::Subject>, WriteError>;

    /// The outcome, in the state that the plan leaves. `None`: the subject is not of this state.
    fn outcome(state: &State, subject: &Self::Subject) -> Option<Self::View>;

    /// The revision that it goes back to: what was changed since is handed in before it is asked for its plan.
    fn goes_back_to(&self) -> Option<Revision> {
        None
    }

    /// Takes in what the resources that were changed since that revision were at it.
    fn hand_in(&mut self, _since: Vec<Old>) {}
}

/// What one revision is to do. Nothing at all: then none is made.
#[derive(Debug)]
pub struct Plan<S> {
    /// What the answer is about.
    pub subject: S,
    /// The resources as it leaves them.
    pub changes: Vec<Change>,
    /// The models that it deletes.
    pub deleted: Vec<ModelName>,
}

impl<S> Plan<S> {
    /// Whether there is nothing to do.
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

/// Why a write cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Fields are bad, or do not fit the state.
    #[error("the request has bad fields")]
    Invalid(Violations),
    /// The resource that the write is about does not exist.
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
    /// The revision that it goes by is not yet.
    #[error("the revision is not yet: the newest is {newest}")]
    InFuture {
        /// The oldest revision that can be gone back to.
        oldest: Revision,
        /// The newest.
        newest: Revision,
    },
    /// The changes since the revision that it goes back to are no longer kept.
    #[error("the changes since the revision are no longer kept: the oldest that can be restored is {oldest}")]
    Compacted {
        /// The oldest revision that can be gone back to.
        oldest: Revision,
        /// The newest.
        newest: Revision,
    },
    /// The id or the display name belongs to another model.
    #[error("{field} is taken by `{holder}`")]
    NameTaken {
        /// The field that names it.
        field: &'static str,
        /// The model that has it.
        holder: ModelName,
    },
    /// The model cannot be deleted: features name it.
    #[error(
        "`{name}` is in use by {}: name another model for them, or delete it with `reassign_to`",
        list(features)
    )]
    InUse {
        /// The model.
        name: ModelName,
        /// The features that name it, disabled ones too.
        features: Vec<FeatureName>,
    },
    /// A family or a feature in beta while beta is off.
    #[error("{} in beta, and beta is off: `settings.beta_enabled` switches it on", are(.0))]
    BetaNotEnabled(Vec<String>),
}

/// Fails when an etag was given and is not the resource's present one.
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
