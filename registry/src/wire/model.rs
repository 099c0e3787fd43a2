//! Models and families on the wire.

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::EndpointUri,
    names::ModelName,
    pb::registry,
    reason::FieldReason,
    secret::ApiToken,
    violation::Violations,
};

use super::{
    Flaw,
    mask::{Fields, Mask},
    name, name_flaw, stage, timestamp,
};
use crate::domain::{
    model::{DisplayName, Endpoint, Endpoints, Identifier, Model, ModelPartError, Weight},
    state::State,
    view::ModelView,
    write::{CreateModel, Edit, GivenEndpoints, ModelPatch, RequestedId, UpdateModel},
};

/// What a mask may name.
pub const FIELDS: Fields = Fields {
    settable: &[
        "display_name",
        "family",
        "endpoints",
        "endpoint",
        "identifier",
        "api_token",
        "disabled",
    ],
    fixed: &[
        "name",
        "etag",
        "api_token_set",
        "api_token_dropped",
        "api_token_update_time",
        "features",
        "release_stage",
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
        endpoints: endpoints(model).collect(),
        endpoint: None,
        identifier: model
            .identifier
            .as_ref()
            .map(|identifier| identifier.as_str().to_owned()),
        api_token: None,
        disabled: Some(model.disabled),
        etag: view.etag.to_string(),
        api_token_set: view.is_token_set,
        api_token_dropped: view.is_token_dropped,
        api_token_update_time: view.token_update_time.map(timestamp),
        features,
        release_stage: stage(model.family.stage).into(),
        revision: record.revision.get(),
        create_time: Some(timestamp(record.create_time)),
        update_time: Some(timestamp(record.update_time)),
        kept_without_beta: view.is_kept_without_beta,
        ..Default::default()
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

/// The endpoints as they are answered and stored.
pub(super) fn endpoints(model: &Model) -> impl Iterator<Item = registry::Endpoint> {
    model.endpoints.as_slice().iter().map(|endpoint| registry::Endpoint {
        uri: endpoint.uri.as_str().to_owned(),
        weight: Some(endpoint.weight.get()),
    })
}

/// What the fields of a model ask for, by a mask.
pub(super) fn patch(model: registry::Model, mask: &Mask, violations: &mut Violations) -> ModelPatch {
    let token = mask.edit("api_token", model.api_token);
    // A full replacement that is silent about the token keeps it: nobody can read it and send it back.
    let token = if *mask == Mask::All && token == Edit::Clear {
        Edit::Keep
    } else {
        token
    };
    ModelPatch {
        display_name: mask
            .edit("display_name", model.display_name)
            .parsed("model.display_name", violations, |text| DisplayName::parse(&text)),
        family: mask
            .edit("family", model.family)
            .parsed("model.family", violations, |text| known_family(&text)),
        endpoints: given_endpoints(
            mask.edit("endpoints", Some(model.endpoints).filter(|list| !list.is_empty())),
            mask.edit("endpoint", model.endpoint),
            violations,
        ),
        identifier: mask
            .edit("identifier", model.identifier)
            .parsed("model.identifier", violations, |text| Identifier::parse(&text))
            .or_clear(|identifier| identifier),
        disabled: mask.edit("disabled", model.disabled),
        token: token
            .or_clear(|text| Some(text).filter(|text| !text.is_empty()))
            .parsed("model.api_token", violations, ApiToken::parse),
    }
}

fn body(model: Option<registry::Model>, violations: &mut Violations) -> Option<registry::Model> {
    if model.is_none() {
        violations.push("model", FieldReason::FieldRequired, "must be given");
    }
    model
}

/// Of a request without a body: there is nothing more to say about its fields.
const fn bad_patch() -> ModelPatch {
    ModelPatch {
        display_name: Edit::Bad,
        family: Edit::Bad,
        endpoints: Edit::Bad,
        identifier: Edit::Bad,
        disabled: Edit::Bad,
        token: Edit::Bad,
    }
}

const fn has_any_field(model: &registry::Model) -> bool {
    model.display_name.is_some()
        || model.family.is_some()
        || !model.endpoints.is_empty()
        || model.endpoint.is_some()
        || model.identifier.is_some()
        || model.api_token.is_some()
        || model.disabled.is_some()
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

fn known_family(text: &str) -> Result<&'static Family, Flaw> {
    let catalogue = Catalogue::get();
    catalogue.family(text).ok_or_else(|| {
        let known: Vec<_> = catalogue
            .families()
            .iter()
            .map(|family| family.machine_name.as_str())
            .collect();
        let description = format!("is not in the catalogue; the families are {}", known.join(", "));
        Flaw::new(FieldReason::FamilyUnknown, description)
    })
}

fn given_endpoints(
    list: Edit<Vec<registry::Endpoint>>,
    one: Edit<String>,
    violations: &mut Violations,
) -> Edit<GivenEndpoints> {
    let is_both = matches!((&list, &one), (Edit::Set(_), Edit::Set(_)));
    let list = match list {
        Edit::Set(list) => parse_endpoints(&list, violations),
        Edit::Keep => Edit::Keep,
        Edit::Clear => Edit::Clear,
        Edit::Bad => Edit::Bad,
    };
    let one = one.parsed("model.endpoint", violations, |text| EndpointUri::parse(&text));
    if is_both {
        violations.push(
            "model.endpoint",
            FieldReason::EndpointAmbiguous,
            "must not be given beside `endpoints`, of which it is the short form",
        );
        return Edit::Bad;
    }
    match (list, one) {
        (Edit::Set(list), _) => Edit::Set(GivenEndpoints::List(list)),
        (_, Edit::Set(uri)) => Edit::Set(GivenEndpoints::One(uri)),
        (Edit::Bad, _) | (_, Edit::Bad) => Edit::Bad,
        (Edit::Clear, _) | (_, Edit::Clear) => Edit::Clear,
        (Edit::Keep, Edit::Keep) => Edit::Keep,
    }
}

fn parse_endpoints(list: &[registry::Endpoint], violations: &mut Violations) -> Edit<Endpoints> {
    let before = violations.as_slice().len();
    let mut endpoints = Vec::with_capacity(list.len());
    // One entry too many is a violation; a thousand of them need no thousand violations.
    for (index, endpoint) in list.iter().enumerate().take(Endpoints::COUNT_MAX + 1) {
        let path = |part| format!("model.endpoints[{index}].{part}");
        let uri = Edit::Set(&endpoint.uri).parsed(&path("uri"), violations, |text| match text.as_str() {
            "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
            text => EndpointUri::parse(text).map_err(Flaw::from),
        });
        let weight = endpoint.weight.map_or(Edit::Keep, Edit::Set);
        let weight = weight.parsed(&path("weight"), violations, Weight::parse);
        if let Edit::Set(uri) = uri {
            let weight = if let Edit::Set(weight) = weight {
                weight
            } else {
                Weight::default()
            };
            endpoints.push(Endpoint { uri, weight });
        }
    }
    // The places in the list are those of the request only while no entry is left out.
    if violations.as_slice().len() > before {
        return Edit::Bad;
    }
    match Endpoints::new(endpoints) {
        Ok(endpoints) => Edit::Set(endpoints),
        Err(errors) => {
            for error in errors {
                let field = match error {
                    ModelPartError::EndpointRepeated { index } => format!("model.endpoints[{index}].uri"),
                    _ => "model.endpoints".to_owned(),
                };
                violations.push(field, error.reason(), error.to_string());
            }
            Edit::Bad
        }
    }
}
