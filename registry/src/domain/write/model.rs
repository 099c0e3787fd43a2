//! Creates and changes models.

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::{EndpointUri, Origin},
    names::{CredentialId, ModelName},
    pb::registry,
    reason::FieldReason,
    resource::{
        Given, Source,
        derived_id::numbered,
        model::{DisplayName, GivenToken, Model, ModelSpec},
        size,
    },
    violation::Violations,
};

use super::{Write, WriteEffect, WriteError, check_etag};
use crate::{
    domain::{
        credential::{ModelCredential, SetCredential},
        reservation,
        state::{Change, State},
        view::ModelView,
    },
    merge::Edit,
};

/// Creates a model.
#[derive(Debug)]
pub struct CreateModel {
    /// The id that the caller wants.
    pub id: RequestedId,
    /// The fields of the model. `None`: they are missing, which is one of the violations.
    pub given: Option<registry::Model>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

/// The requested id of a new model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedId {
    /// The id is derived from the display name.
    Derived,
    /// The caller chose the id.
    Given {
        /// The name with this id.
        name: ModelName,
        /// The field that contained the id.
        field: &'static str,
    },
    /// The id is invalid, which is one of the violations.
    Bad,
}

/// Changes a model.
#[derive(Debug)]
pub struct UpdateModel {
    /// The name of the model. `None`: it is invalid, which is one of the violations.
    pub name: Option<ModelName>,
    /// Etag that the model must have. `None`: not checked.
    pub etag: Option<String>,
    /// The fields to change.
    pub edit: Edit<registry::Model>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

impl Write for CreateModel {
    type Name = ModelName;
    type View = ModelView;

    fn judge(&self, state: &State, fresh: CredentialId) -> Result<WriteEffect<ModelName>, WriteError> {
        let mut violations = self.violations.clone();
        let given = self.given.clone();
        let read = given.and_then(|given| ModelSpec::read(given, &Given::Whole, &mut violations));
        let (Some(read), true) = (read, violations.is_empty()) else {
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
            RequestedId::Derived => free_name(state, &read.spec.display_name)?,
            RequestedId::Bad => return Err(WriteError::Invalid(violations)),
        };
        let model = Model { name, spec: read.spec };
        check_display_name(state, &model)?;
        check_beta(state, model.spec.family)?;
        let (credential, is_token_touched) = credential_after(&read.token, &ModelCredential::None, &model.spec, fresh);
        check_size(&model, &credential)?;
        Ok(WriteEffect {
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

    fn judge(&self, state: &State, fresh: CredentialId) -> Result<WriteEffect<ModelName>, WriteError> {
        let mut violations = self.violations.clone();
        let Some(name) = &self.name else {
            ModelSpec::read(self.edit.alone(), &Given::Alone, &mut violations);
            return Err(WriteError::Invalid(violations));
        };
        let Some(stored) = state.models.get(name) else {
            return Err(WriteError::NotFound(name.clone().into()));
        };
        check_etag(state, name.clone().into(), stored.record, self.etag.as_deref())?;
        let stored = &stored.value;
        let (merged, given) = self.edit.over(&stored.to_message());
        let replaces_several = replaces_several(&stored.spec, &merged, &given);
        let family = merged
            .family
            .as_deref()
            .and_then(|family| Catalogue::get().family(family));
        let read = ModelSpec::read(merged, &given, &mut violations);
        if replaces_several {
            violations.push(
                "model.endpoint",
                FieldReason::EndpointAmbiguous,
                "can only replace a single endpoint, but the model has several; give the whole list as `endpoints`",
            );
        }
        if let Some(family) = family.filter(|family| *family != stored.spec.family) {
            check_features(state, name, family, &mut violations);
        }
        let (Some(read), true) = (read, violations.is_empty()) else {
            return Err(WriteError::Invalid(violations));
        };
        let model = Model {
            name: name.clone(),
            spec: read.spec,
        };
        check_reservations(state, stored, &model)?;
        check_display_name(state, &model)?;
        if model.spec.family != stored.spec.family {
            check_beta(state, model.spec.family)?;
        }
        let (credential, is_token_touched) = credential_after(&read.token, state.credential(name), &model.spec, fresh);
        check_size(&model, &credential)?;
        let is_changed = is_token_touched || model != *stored;
        Ok(WriteEffect {
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

/// Returns whether an update gives the short form `endpoint` to a model that has several endpoints.
fn replaces_several(stored: &ModelSpec, merged: &registry::Model, given: &Given) -> bool {
    let is_list_given = given.source("endpoints", !merged.endpoints.is_empty()) == Source::Set;
    let one = merged.endpoint.as_deref().filter(|_| !is_list_given);
    stored.endpoints.as_slice().len() > 1 && one.is_some_and(|one| EndpointUri::parse(one).is_ok())
}

/// Returns the credential of a model after a write, and whether the write sets, clears or drops it.
pub(super) fn credential_after(
    token: &GivenToken,
    stored: &ModelCredential,
    model: &ModelSpec,
    fresh: CredentialId,
) -> (ModelCredential, bool) {
    let origins = model.origins();
    match (token, stored) {
        (GivenToken::Set(token), _) => {
            let set = SetCredential {
                id: fresh,
                origins,
                token: token.clone(),
            };
            (ModelCredential::Set(set), true)
        }
        (GivenToken::Cleared, ModelCredential::None) => (ModelCredential::None, false),
        (GivenToken::Cleared, ModelCredential::Set(_) | ModelCredential::Dropped) => (ModelCredential::None, true),
        // An API token is only sent to origins that the model had when the token was set.
        (GivenToken::Kept, ModelCredential::Set(set)) if !origins.is_subset(&set.origins) => {
            (ModelCredential::Dropped, true)
        }
        (GivenToken::Kept, kept) => (kept.clone(), false),
    }
}

/// Returns the name derived from a display name, with the suffix `-2`, `-3` and so on if it is taken.
fn free_name(state: &State, display_name: &DisplayName) -> Result<ModelName, WriteError> {
    numbered(&display_name.to_id())
        .filter_map(|id| ModelName::from_id(&id).ok())
        .find(|name| !state.models.contains_key(name))
        .ok_or_else(|| {
            let mut violations = Violations::new();
            violations.push(
                "model_id",
                FieldReason::FieldRequired,
                "must be given: all ids derived from the display name are taken",
            );
            WriteError::Invalid(violations)
        })
}

fn check_display_name(state: &State, model: &Model) -> Result<(), WriteError> {
    let holder = state
        .models
        .values()
        .map(|other| &other.value)
        .find(|other| other.name != model.name && other.spec.display_name.is_taken_by(&model.spec.display_name));
    match holder {
        Some(holder) => Err(WriteError::NameTaken {
            field: "model.display_name",
            holder: holder.name.clone(),
        }),
        None => Ok(()),
    }
}

/// Checks that a changed limit is not below the number of places that features have reserved.
fn check_reservations(state: &State, stored: &Model, model: &Model) -> Result<(), WriteError> {
    if model.spec.limits.max_concurrency == stored.spec.limits.max_concurrency {
        return Ok(());
    }
    reservation::check(model, state.places_reserved_on(&model.name)).map_err(|overbooked| {
        let mut violations = Violations::new();
        violations.push(
            "model.limits.max_concurrency",
            FieldReason::ReservationTooLarge,
            overbooked.to_string(),
        );
        WriteError::Invalid(violations)
    })
}

/// Checks that the stored model fits into one part of the change stream.
pub(super) fn check_size(model: &Model, credential: &ModelCredential) -> Result<(), WriteError> {
    let origins = match credential {
        ModelCredential::Set(set) => set
            .origins
            .iter()
            .map(Origin::to_string)
            .map(|origin| size::text(&origin))
            .sum(),
        ModelCredential::None | ModelCredential::Dropped => 0,
    };
    let bytes = model.stored_bytes_max() + origins;
    if bytes <= size::STORED_BYTES_MAX {
        return Ok(());
    }
    let mut violations = Violations::new();
    let description = format!(
        "{}: shorten `endpoints`, `labels` or `tls.ca_pem`",
        size::too_large(bytes)
    );
    violations.push("model", FieldReason::ValueOutOfRange, description);
    Err(WriteError::Invalid(violations))
}

fn check_beta(state: &State, family: &Family) -> Result<(), WriteError> {
    if family.stage.needs_beta() && !state.is_beta_enabled() {
        return Err(WriteError::BetaNotEnabled(vec![family_subject(family)]));
    }
    Ok(())
}

/// Returns the text that stands for a family in errors about beta.
pub(super) fn family_subject(family: &Family) -> String {
    format!("family `{}`", family.machine_name)
}

/// Checks that a new family can serve every feature that names the model.
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
