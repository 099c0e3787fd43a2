//! The writes: what each asks for, and what it does to a state.
//!
//! A write carries what was wrong with its fields already, so that its answer can name everything at once, the bad fields
//! and those that do not fit the state. Deciding is pure: the state is only read, and a new credential id is handed in.

mod feature;
mod model;
mod settings;

use switchboard::{
    names::{CredentialId, ModelName, ResourceName, Revision},
    reason::FieldReason,
    violation::Violations,
};

pub use self::{
    feature::{FeaturePatch, UpdateFeature},
    model::{CreateModel, GivenEndpoints, LimitsPatch, ModelPatch, RequestedId, TlsPatch, UpdateModel},
    settings::UpdateSettings,
};
use super::{
    state::{Change, Record, State},
    view,
};

/// A write of one resource.
pub trait Write: Send + 'static {
    /// The name of the resource.
    type Name;
    /// The resource as the answer shows it.
    type View: view::View + Send + 'static;

    /// Decides what the write does to a state. `fresh` is the id of the credential, should one be set.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when it cannot be made.
    fn judge(&self, state: &State, fresh: CredentialId) -> Result<Verdict<Self::Name>, WriteError>;

    /// The resource in a state.
    fn view(state: &State, name: &Self::Name) -> Option<Self::View>;
}

/// What a write does.
#[derive(Debug)]
pub struct Verdict<N> {
    /// The resource that it is about.
    pub name: N,
    /// The resource as it leaves it. `None`: it changes nothing.
    pub change: Option<Change>,
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
    /// The id or the display name belongs to another model.
    #[error("{field} is taken by `{holder}`")]
    NameTaken {
        /// The field that names it.
        field: &'static str,
        /// The model that has it.
        holder: ModelName,
    },
    /// A family or a feature in beta while beta is off.
    #[error("{} in beta, and beta is off: `settings.beta_enabled` switches it on", are(.0))]
    BetaNotEnabled(Vec<String>),
}

/// What a write asks of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Edit<T> {
    /// Leave it.
    #[default]
    Keep,
    /// Set it back to its default.
    Clear,
    /// Give it this value.
    Set(T),
    /// It was given a bad value, which is a violation already.
    Bad,
}

impl<T: Clone> Edit<T> {
    /// The value of a field that cannot be without one. `None`: it has none, which is a violation by now.
    fn required(&self, stored: Option<&T>, field: &str, violations: &mut Violations) -> Option<T> {
        match (self, stored) {
            (Self::Set(value), _) => return Some(value.clone()),
            (Self::Keep, Some(stored)) => return Some(stored.clone()),
            (Self::Bad, _) => {}
            (Self::Keep, None) => violations.push(field, FieldReason::FieldRequired, "must be given"),
            (Self::Clear, _) => violations.push(field, FieldReason::FieldRequired, "is required and cannot be cleared"),
        }
        None
    }

    /// The value that the write gives.
    const fn given(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear | Self::Bad => None,
        }
    }

    /// Whether the write leaves the field alone.
    const fn is_kept(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value of a field that may be without one.
    fn over(&self, stored: Option<T>) -> Option<T> {
        match self {
            Self::Set(value) => Some(value.clone()),
            Self::Clear => None,
            Self::Keep | Self::Bad => stored,
        }
    }

    /// The value of a field that has a default.
    fn or_default(&self, stored: T, default: T) -> T {
        match self {
            Self::Set(value) => value.clone(),
            Self::Clear => default,
            Self::Keep | Self::Bad => stored,
        }
    }
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

/// An id, then the same with `-2`, `-3` and so on, cut where it would get longer than an id may be.
pub(super) fn numbered(id: &str) -> impl Iterator<Item = String> {
    let more = (2_u64..).map(move |number| {
        let suffix = format!("-{number}");
        let kept: String = id.chars().take(63 - suffix.len()).collect();
        format!("{}{suffix}", kept.trim_end_matches('-'))
    });
    std::iter::once(id.to_owned()).chain(more)
}

fn are(subjects: &[String]) -> String {
    let verb = if subjects.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", subjects.join(" and "))
}
