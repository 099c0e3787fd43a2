//! Converts between the contract's checks of models and their domain types.

use std::time::Duration;

use switchboard::{
    names::{CheckId, ModelName, RouterId},
    pb::registry,
    reason::FieldReason,
    stream::{CheckRequest, CheckTarget},
    violation::Violations,
};
use tokio::time::Instant;

use super::{model, name};
use crate::{
    check::{CHECK_MAX, CheckSubject, Checked, Routers, Wanted},
    fleet::check::{CheckOrder, CheckedModel},
};

/// Reads a request to check a model. Returns the request and the time limit of the check. `allowed` is the time that
/// the call may take; `None` stands for the default.
///
/// # Errors
///
/// All violations, except those in the fields of the model.
pub fn wanted(
    request: registry::CheckModelRequest,
    allowed: Option<Duration>,
) -> Result<(Wanted, Duration), Violations> {
    let mut violations = Violations::new();
    let router = (!request.router.is_empty()).then(|| RouterId::parse(&request.router));
    if let Some(Err(error)) = &router {
        violations.push("router", FieldReason::ValueMalformed, error.to_string());
    }
    let routers = match router.and_then(Result::ok) {
        Some(_) if request.all_routers => {
            violations.push(
                "all_routers",
                FieldReason::ValueMalformed,
                "must be left out if `router` is given",
            );
            Routers::All
        }
        None if request.all_routers => Routers::All,
        Some(router) => Routers::One(router),
        None => Routers::Any,
    };
    let is_registered = !request.name.is_empty();
    let name = is_registered.then(|| name(&request.name, "name", ModelName::parse, &mut violations));
    if request.update_mask.is_some() && (request.model.is_none() || !is_registered) {
        violations.push(
            "update_mask",
            FieldReason::ValueMalformed,
            "must be left out unless `name` and `model` are both given",
        );
    }
    if !is_registered && request.model.is_none() {
        violations.push("name", FieldReason::FieldRequired, "must be given if `model` is not");
    }
    if let (Some(Some(name)), Some(model)) = (&name, &request.model)
        && !model.name.is_empty()
        && model.name != name.to_string()
    {
        violations.push(
            "model.name",
            FieldReason::ValueMalformed,
            "must equal `name`, or be left out",
        );
    }
    let subject = match (name.flatten(), request.model) {
        (Some(name), None) => Some(CheckSubject::Registered(name)),
        (Some(name), Some(model)) => Some(edited(&name, model, request.update_mask)),
        (None, Some(model)) if !is_registered => Some(new(model)),
        (None, _) => None,
    };
    let allowed = allowed.unwrap_or(CHECK_MAX);
    violations
        .or(subject)
        .and_then(|subject| subject.ok_or_else(Violations::new))
        .map(|subject| (Wanted { subject, routers }, allowed))
}

fn edited(name: &ModelName, model: registry::Model, update_mask: Option<prost_types::FieldMask>) -> CheckSubject {
    CheckSubject::Edited(model::update(registry::UpdateModelRequest {
        model: Some(registry::Model {
            name: name.to_string(),
            ..model
        }),
        update_mask,
        ..Default::default()
    }))
}

/// Reads a model that is only checked. It needs no display name: a random one is made up, which no other model has.
fn new(mut model: registry::Model) -> CheckSubject {
    let is_named = !model.name.is_empty() || model.display_name.is_some();
    model
        .display_name
        .get_or_insert_with(|| format!("Unsaved {}", CheckId::random()));
    let write = model::create(registry::CreateModelRequest {
        model: Some(model),
        ..Default::default()
    });
    CheckSubject::New { write, is_named }
}

/// Returns the answer to a check.
#[must_use]
pub fn answer(checks: &[Checked]) -> registry::CheckModelResponse {
    registry::CheckModelResponse {
        checks: checks
            .iter()
            .map(|Checked { router, check }| check.to_wire(router.to_string()))
            .collect(),
    }
}

/// Converts an order into the request to the router. The remaining time is counted from now.
impl From<&CheckOrder> for CheckRequest {
    fn from(order: &CheckOrder) -> Self {
        let target = match &order.target {
            CheckedModel::Registered(name) => CheckTarget::Registered(name.clone()),
            CheckedModel::Unsaved(unsaved) => {
                let mut model = unsaved.model.to_stored();
                model.api_token_dropped = unsaved.is_token_dropped;
                if !unsaved.is_named {
                    model.name.clear();
                }
                CheckTarget::Unsaved(Box::new(model))
            }
        };
        Self {
            id: order.id,
            target,
            credential: order.credential,
            timeout: order.until.saturating_duration_since(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests;
