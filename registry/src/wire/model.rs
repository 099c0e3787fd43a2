//! Models and families in the contract.

use switchboard::{
    catalogue::{Catalogue, Family},
    names::ModelName,
    pb::registry,
    reason::FieldReason,
    violation::Violations,
};

use super::{name, stage, timestamp};
use crate::{
    domain::{
        state::State,
        view::ModelView,
        write::{CreateModel, RequestedId, UpdateModel},
    },
    merge::Edit,
};

/// Reads a request to register a model.
#[must_use]
pub fn create(request: registry::CreateModelRequest) -> CreateModel {
    let mut violations = Violations::new();
    let given = body(request.model, &mut violations);
    let whole = given.as_ref().map_or("", |model| &model.name);
    CreateModel {
        id: requested_id(&request.model_id, whole, &mut violations),
        given,
        violations,
    }
}

/// Reads a request to change a model.
#[must_use]
pub fn update(request: registry::UpdateModelRequest) -> UpdateModel {
    let mut violations = Violations::new();
    let has_body = request.model.is_some();
    let edit = Edit::new(
        request.model.unwrap_or_default(),
        request.update_mask.as_ref(),
        &mut violations,
    );
    let (name, etag) = if has_body {
        edit.check_not_empty(&mut violations);
        let name = name(&edit.given().name, "model.name", ModelName::parse, &mut violations);
        (name, super::etag(edit.given().etag.clone()))
    } else {
        violations.push("model", FieldReason::FieldRequired, "must be given");
        (None, None)
    };
    UpdateModel {
        name,
        etag,
        edit,
        violations,
    }
}

/// Reads a request for one model.
///
/// # Errors
///
/// A violation if the name is invalid.
pub fn get(request: &registry::GetModelRequest) -> Result<ModelName, Violations> {
    let mut violations = Violations::new();
    name(&request.name, "name", ModelName::parse, &mut violations).ok_or(violations)
}

/// Returns a model as answers contain it.
#[must_use]
pub fn answer(view: &ModelView) -> registry::Model {
    let (model, record) = (&view.model.value, &view.model.record);
    registry::Model {
        etag: view.etag.to_string(),
        api_token_set: view.is_token_set,
        api_token_dropped: view.is_token_dropped,
        api_token_update_time: view.token_update_time.map(timestamp),
        features: view.features.iter().map(ToString::to_string).collect(),
        release_stage: stage(model.spec.family.stage).into(),
        // Added from the fleet when a model is read.
        health: Vec::new(),
        revision: record.revision.get(),
        create_time: Some(timestamp(record.create_time)),
        update_time: Some(timestamp(record.update_time)),
        kept_without_beta: view.is_kept_without_beta,
        ..model.to_message()
    }
}

/// Returns a family as answers contain it.
#[must_use]
pub fn family(family: &Family, state: &State) -> registry::ModelFamily {
    let features = Catalogue::get().features().iter();
    registry::ModelFamily {
        family: family.machine_name.clone(),
        display_name: family.display_name.clone(),
        release_stage: stage(family.stage).into(),
        assignable: !family.stage.needs_beta() || state.is_beta_enabled(),
        features: features
            .filter(|feature| feature.fits(family))
            .map(|feature| feature.name.to_string())
            .collect(),
        context_tokens: family.context_tokens,
        max_output_tokens: family.max_output_tokens,
        temperature: family.temperature,
    }
}

fn body(model: Option<registry::Model>, violations: &mut Violations) -> Option<registry::Model> {
    if model.is_none() {
        violations.push("model", FieldReason::FieldRequired, "must be given");
    }
    model
}

fn requested_id(id: &str, whole: &str, violations: &mut Violations) -> RequestedId {
    let from_id = (!id.is_empty()).then(|| {
        ModelName::from_id(id).map_err(|error| {
            violations.push("model_id", error.reason(id), error.to_string());
        })
    });
    let from_name = (!whole.is_empty()).then(|| name(whole, "model.name", ModelName::parse, violations).ok_or(()));
    match (from_id, from_name) {
        (None, None) => RequestedId::Derived,
        (Some(Ok(one)), Some(Ok(other))) if one != other => {
            violations.push(
                "model.name",
                FieldReason::ValueMalformed,
                "must be `models/` followed by `model_id`, or be left out",
            );
            RequestedId::Bad
        }
        (Some(Err(())), _) | (_, Some(Err(()))) => RequestedId::Bad,
        (Some(Ok(name)), _) => RequestedId::Given {
            name,
            field: "model_id",
        },
        (None, Some(Ok(name))) => RequestedId::Given {
            name,
            field: "model.name",
        },
    }
}
