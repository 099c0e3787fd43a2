//! Creating and changing models.

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::EndpointUri,
    names::{CredentialId, ModelName},
    reason::FieldReason,
    secret::ApiToken,
    violation::Violations,
};

use super::{Edit, Verdict, Write, WriteError, check_etag};
use crate::domain::{
    credential::{Credential, SetCredential},
    model::{DisplayName, Endpoints, Identifier, Model},
    state::{Change, State},
    view::ModelView,
};

/// What a write asks of a model's fields.
#[derive(Debug, Default)]
pub struct ModelPatch {
    /// `display_name`.
    pub display_name: Edit<DisplayName>,
    /// `family`.
    pub family: Edit<&'static Family>,
    /// `endpoints` and `endpoint`.
    pub endpoints: Edit<GivenEndpoints>,
    /// `identifier`.
    pub identifier: Edit<Identifier>,
    /// `disabled`.
    pub disabled: Edit<bool>,
    /// `api_token`. Every token that is given is a new credential, even if the text is the same.
    pub token: Edit<ApiToken>,
}

/// The endpoints, in the form in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenEndpoints {
    /// As `endpoints`.
    List(Endpoints),
    /// As `endpoint`.
    One(EndpointUri),
}

/// Registers a model.
#[derive(Debug)]
pub struct CreateModel {
    /// The id that it shall have.
    pub id: RequestedId,
    /// Its fields.
    pub patch: ModelPatch,
    /// What is wrong already.
    pub violations: Violations,
}

/// The id that a new model shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedId {
    /// Derived from the display name.
    Derived,
    /// This one.
    Given {
        /// The name.
        name: ModelName,
        /// The field that gave it.
        field: &'static str,
    },
    /// A bad one, which is a violation already.
    Bad,
}

/// Changes a model.
#[derive(Debug)]
pub struct UpdateModel {
    /// The model. `None`: a bad name, which is a violation already.
    pub name: Option<ModelName>,
    /// The etag that it must have.
    pub etag: Option<String>,
    /// What to change.
    pub patch: ModelPatch,
    /// What is wrong already.
    pub violations: Violations,
}

impl Write for CreateModel {
    type Name = ModelName;
    type View = ModelView;

    fn judge(&self, state: &State, fresh: CredentialId) -> Result<Verdict<ModelName>, WriteError> {
        let mut violations = self.violations.clone();
        let parts = self.patch.merged(None, &mut violations);
        let (Some(parts), true) = (parts, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        let name = match &self.id {
            RequestedId::Given { name, field } if state.models.contains_key(name) => {
                return Err(WriteError::NameTaken {
                    field,
                    holder: name.clone(),
                });
            }
            RequestedId::Given { name, .. } => name.clone(),
            RequestedId::Derived => free_name(state, &parts.display_name)?,
            RequestedId::Bad => return Err(WriteError::Invalid(violations)),
        };
        let model = parts.into_model(name);
        check_display_name(state, &model)?;
        check_beta(state, model.family)?;
        let (credential, is_token_touched) = self.patch.credential(&Credential::None, &model, fresh);
        Ok(Verdict {
            name: model.name.clone(),
            change: Some(Change::Model {
                model,
                credential,
                is_token_touched,
            }),
        })
    }

    fn view(state: &State, name: &ModelName) -> Option<ModelView> {
        state.model(name)
    }
}

impl Write for UpdateModel {
    type Name = ModelName;
    type View = ModelView;

    fn judge(&self, state: &State, fresh: CredentialId) -> Result<Verdict<ModelName>, WriteError> {
        let mut violations = self.violations.clone();
        let Some(name) = &self.name else {
            return Err(WriteError::Invalid(violations));
        };
        let Some(stored) = state.models.get(name) else {
            return Err(WriteError::NotFound(name.clone().into()));
        };
        check_etag(state, name.clone().into(), stored.record, self.etag.as_deref())?;
        let stored = &stored.value;
        if let Edit::Set(family) = self.patch.family
            && family != stored.family
        {
            check_features(state, name, family, &mut violations);
        }
        let parts = self.patch.merged(Some(stored), &mut violations);
        let (Some(parts), true) = (parts, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        let model = parts.into_model(name.clone());
        check_display_name(state, &model)?;
        if model.family != stored.family {
            check_beta(state, model.family)?;
        }
        let (credential, is_token_touched) = self.patch.credential(state.credential(name), &model, fresh);
        let is_changed = is_token_touched || model != *stored;
        Ok(Verdict {
            name: name.clone(),
            change: is_changed.then_some(Change::Model {
                model,
                credential,
                is_token_touched,
            }),
        })
    }

    fn view(state: &State, name: &ModelName) -> Option<ModelView> {
        state.model(name)
    }
}

/// A model that has no name yet.
struct Parts {
    display_name: DisplayName,
    family: &'static Family,
    endpoints: Endpoints,
    identifier: Option<Identifier>,
    disabled: bool,
}

impl Parts {
    fn into_model(self, name: ModelName) -> Model {
        Model {
            name,
            display_name: self.display_name,
            family: self.family,
            endpoints: self.endpoints,
            identifier: self.identifier,
            disabled: self.disabled,
        }
    }
}

impl ModelPatch {
    /// The model that the patch alone makes.
    ///
    /// # Errors
    ///
    /// Violations for required fields that are not set.
    pub fn into_model(self, name: ModelName) -> Result<Model, Violations> {
        let mut violations = Violations::new();
        match self.merged(None, &mut violations) {
            Some(parts) if violations.is_empty() => Ok(parts.into_model(name)),
            _ => Err(violations),
        }
    }

    /// Lays the patch over the stored model; without one, over nothing.
    fn merged(&self, stored: Option<&Model>, violations: &mut Violations) -> Option<Parts> {
        let display_name = self.display_name.required(
            stored.map(|model| &model.display_name),
            "model.display_name",
            violations,
        );
        let family = self
            .family
            .required(stored.map(|model| &model.family), "model.family", violations);
        let given = stored.map(|model| GivenEndpoints::List(model.endpoints.clone()));
        let endpoints = self.endpoints.required(given.as_ref(), "model.endpoints", violations);
        if matches!(endpoints, Some(GivenEndpoints::One(_)))
            && let Some(model) = stored
            && model.endpoints.as_slice().len() > 1
        {
            violations.push(
                "model.endpoint",
                FieldReason::EndpointAmbiguous,
                "stands for the only endpoint, but the model has several; give the whole list as `endpoints`",
            );
        }
        let identifier = match &self.identifier {
            Edit::Set(identifier) => Some(identifier.clone()),
            Edit::Clear => None,
            Edit::Keep | Edit::Bad => stored.and_then(|model| model.identifier.clone()),
        };
        Some(Parts {
            display_name: display_name?,
            family: family?,
            endpoints: match endpoints? {
                GivenEndpoints::List(list) => list,
                GivenEndpoints::One(uri) => Endpoints::one(uri),
            },
            identifier,
            disabled: self
                .disabled
                .or_default(stored.is_some_and(|model| model.disabled), false),
        })
    }

    /// The credential that `model` has after this write, and whether the write set, cleared or dropped it.
    fn credential(&self, stored: &Credential, model: &Model, fresh: CredentialId) -> (Credential, bool) {
        let origins = model.endpoints.origins();
        match (&self.token, stored) {
            (Edit::Set(token), _) => {
                let set = SetCredential {
                    id: fresh,
                    origins,
                    token: token.clone(),
                };
                (Credential::Set(set), true)
            }
            (Edit::Clear, Credential::None) => (Credential::None, false),
            (Edit::Clear, Credential::Set(_) | Credential::Dropped) => (Credential::None, true),
            // A token goes only where its giver saw it going.
            (Edit::Keep | Edit::Bad, Credential::Set(set)) if !origins.is_subset(&set.origins) => {
                (Credential::Dropped, true)
            }
            (Edit::Keep | Edit::Bad, kept) => (kept.clone(), false),
        }
    }
}

/// The name that follows from a display name, with `-2`, `-3` and so on if it is taken.
fn free_name(state: &State, display_name: &DisplayName) -> Result<ModelName, WriteError> {
    let base = display_name.to_id();
    let numbered = (2_u64..).map(|number| {
        let suffix = format!("-{number}");
        let kept: String = base.chars().take(63 - suffix.len()).collect();
        format!("{}{suffix}", kept.trim_end_matches('-'))
    });
    std::iter::once(base.clone())
        .chain(numbered)
        .filter_map(|id| ModelName::from_id(&id).ok())
        .find(|name| !state.models.contains_key(name))
        .ok_or_else(|| {
            let mut violations = Violations::new();
            violations.push(
                "model_id",
                FieldReason::FieldRequired,
                "must be given: no derived id is free",
            );
            WriteError::Invalid(violations)
        })
}

fn check_display_name(state: &State, model: &Model) -> Result<(), WriteError> {
    let holder = state
        .models
        .values()
        .map(|other| &other.value)
        .find(|other| other.name != model.name && other.display_name.is_taken_by(&model.display_name));
    match holder {
        Some(holder) => Err(WriteError::NameTaken {
            field: "model.display_name",
            holder: holder.name.clone(),
        }),
        None => Ok(()),
    }
}

fn check_beta(state: &State, family: &Family) -> Result<(), WriteError> {
    if family.stage.needs_beta() && !state.is_beta_enabled() {
        return Err(WriteError::BetaNotEnabled(vec![format!(
            "family `{}`",
            family.machine_name
        )]));
    }
    Ok(())
}

/// A new family has to fit every feature that names the model.
fn check_features(state: &State, name: &ModelName, family: &Family, violations: &mut Violations) {
    let catalogue = Catalogue::get();
    let facts: Vec<_> = state
        .features_of(name)
        .filter_map(|feature| catalogue.feature(&feature.name))
        .collect();
    let unfit: Vec<_> = facts
        .iter()
        .filter(|feature| !feature.fits(family))
        .map(|feature| format!("`{}`", feature.name))
        .collect();
    if unfit.is_empty() {
        return;
    }
    let fitting: Vec<_> = catalogue
        .families()
        .iter()
        .filter(|family| facts.iter().all(|feature| feature.fits(family)))
        .map(|family| family.machine_name.as_str())
        .collect();
    violations.push(
        "model.family",
        FieldReason::FamilyNotCompatible,
        format!(
            "family `{}` cannot serve {}, which use this model; families that can serve all its features: {}",
            family.machine_name,
            unfit.join(", "),
            fitting.join(", ")
        ),
    );
}
