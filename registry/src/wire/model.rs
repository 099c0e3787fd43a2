//! Models and families on the wire.

pub(super) mod part;
pub(super) mod patch;

use switchboard::{
    catalogue::{Catalogue, Family},
    names::ModelName,
    pb::registry,
    reason::FieldReason,
    violation::Violations,
};

use self::{
    part::{endpoints, infill_mode_number, labels, limits, platform_number, platform_options, tls},
    patch::{bad_patch, has_any_field, patch},
};
use super::{
    mask::{Fields, Mask},
    name, name_flaw, stage, timestamp,
};
use crate::domain::{
    state::State,
    view::ModelView,
    write::{CreateModel, RequestedId, UpdateModel},
};

/// What a mask may name.
pub const FIELDS: Fields = Fields {
    settable: &[
        "display_name",
        "family",
        "platform",
        "endpoints",
        "endpoint",
        "identifier",
        "api_token",
        "limits",
        "limits.max_concurrency",
        "limits.max_queue",
        "limits.queue_timeout",
        "limits.connect_timeout",
        "limits.first_token_timeout",
        "limits.idle_timeout",
        "limits.total_timeout",
        "limits.max_output_tokens",
        "limits.context_tokens",
        "infill_mode",
        "tls",
        "tls.ca_pem",
        "tls.server_name",
        "disabled",
        "labels",
        "platform_options",
        "platform_options.api_version",
        "platform_options.region",
        "platform_options.project",
    ],
    fixed: &[
        "name",
        "etag",
        "api_token_set",
        "api_token_dropped",
        "api_token_update_time",
        "features",
        "release_stage",
        "health",
        "revision",
        "create_time",
        "update_time",
        "kept_without_beta",
    ],
};

/// Reads a request to register a model.
#[must_use]
pub fn create(request: registry::CreateModelRequest) -> CreateModel {
    let mut violations = Violations::new();
    let model = body(request.model, &mut violations);
    let id = requested_id(
        &request.model_id,
        model.as_ref().map_or("", |model| &model.name),
        &mut violations,
    );
    let patch = model.map_or_else(bad_patch, |model| patch(model, &Mask::Present, &mut violations));
    CreateModel { id, patch, violations }
}

/// Reads a request to change a model.
#[must_use]
pub fn update(request: registry::UpdateModelRequest) -> UpdateModel {
    let mut violations = Violations::new();
    let mask = Mask::parse(request.update_mask.as_ref(), FIELDS, &mut violations);
    let Some(model) = body(request.model, &mut violations) else {
        return UpdateModel {
            name: None,
            etag: None,
            patch: bad_patch(),
            violations,
        };
    };
    mask.check_not_empty(has_any_field(&model), &mut violations);
    UpdateModel {
        name: name(&model.name, "model.name", ModelName::parse, &mut violations),
        etag: super::etag(model.etag.clone()),
        patch: patch(model, &mask, &mut violations),
        violations,
    }
}

/// Reads a request for one model.
///
/// # Errors
///
/// A violation when the name is bad.
pub fn get(request: &registry::GetModelRequest) -> Result<ModelName, Violations> {
    let mut violations = Violations::new();
    name(&request.name, "name", ModelName::parse, &mut violations).ok_or(violations)
}

/// A model as it is answered.
#[must_use]
pub fn answer(view: &ModelView) -> registry::Model {
    let (model, record) = (&view.model.value, &view.model.record);
    let features = view.features.iter().map(ToString::to_string).collect();
    registry::Model {
        name: model.name.to_string(),
        display_name: Some(model.display_name.as_str().to_owned()),
        family: Some(model.family.machine_name.clone()),
        platform: Some(platform_number(model.platform)),
        endpoints: endpoints(model).collect(),
        endpoint: None,
        identifier: model
            .identifier
            .as_ref()
            .map(|identifier| identifier.as_str().to_owned()),
        api_token: None,
        limits: limits(&model.limits),
        infill_mode: Some(infill_mode_number(model.infill_mode)),
        tls: tls(&model.tls),
        disabled: Some(model.disabled),
        labels: labels(model),
        platform_options: platform_options(model),
        etag: view.etag.to_string(),
        api_token_set: view.is_token_set,
        api_token_dropped: view.is_token_dropped,
        api_token_update_time: view.token_update_time.map(timestamp),
        features,
        release_stage: stage(model.family.stage).into(),
        // Told by the fleet, to those who read.
        health: Vec::new(),
        revision: record.revision.get(),
        create_time: Some(timestamp(record.create_time)),
        update_time: Some(timestamp(record.update_time)),
        kept_without_beta: view.is_kept_without_beta,
    }
}

/// A family as it is answered.
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
            let flaw = name_flaw(id, error);
            violations.push("model_id", flaw.reason, flaw.description);
        })
    });
    let from_name = (!whole.is_empty()).then(|| name(whole, "model.name", ModelName::parse, violations).ok_or(()));
    match (from_id, from_name) {
        (None, None) => RequestedId::Derived,
        (Some(Ok(one)), Some(Ok(other))) if one != other => {
            violations.push(
                "model.name",
                FieldReason::ValueMalformed,
                "must be the name that goes with `model_id`, or be left out",
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
