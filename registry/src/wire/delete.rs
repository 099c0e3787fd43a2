//! Deleting models in the contract.

use switchboard::{names::ModelName, pb::registry, violation::Violations};

use super::name;
use crate::domain::{
    view::WriteView as _,
    write::{DeleteModel, DeletedView},
};

/// Reads a request to delete a model.
#[must_use]
pub fn delete(request: registry::DeleteModelRequest) -> DeleteModel {
    let mut violations = Violations::new();
    let parsed = name(&request.name, "name", ModelName::parse, &mut violations);
    let heir = Some(request.reassign_to).filter(|text| !text.is_empty());
    DeleteModel {
        name: parsed,
        etag: super::etag(request.etag),
        reassign_to: heir.and_then(|text| name(&text, "reassign_to", ModelName::parse, &mut violations)),
        violations,
    }
}

/// Returns the answer to a delete.
#[must_use]
pub fn answer(view: &DeletedView) -> registry::DeleteModelResponse {
    registry::DeleteModelResponse {
        revision: view.revision().get(),
        reassigned_features: view.reassigned.iter().map(ToString::to_string).collect(),
    }
}
