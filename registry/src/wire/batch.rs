//! Batches of features in the contract.

use switchboard::{pb::registry, reason::FieldReason, violation::Violations};

use super::feature;
use crate::domain::{
    view::WriteView as _,
    write::{BatchUpdateFeatures, BatchView},
};

/// Reads a request to change several features.
#[must_use]
pub fn update(request: registry::BatchUpdateFeaturesRequest) -> BatchUpdateFeatures {
    const FIELD: &str = "requests";
    let mut violations = Violations::new();
    let count = request.requests.len();
    if count == 0 {
        violations.push(FIELD, FieldReason::FieldRequired, "must have at least one update");
    }
    if count > BatchUpdateFeatures::COUNT_MAX {
        violations.push(
            FIELD,
            FieldReason::ValueOutOfRange,
            format!(
                "has {count} updates; at most {} can be made at once",
                BatchUpdateFeatures::COUNT_MAX
            ),
        );
    }
    // Too many updates are one violation. The updates beyond the maximum are not checked.
    let requests = request.requests.into_iter().take(BatchUpdateFeatures::COUNT_MAX);
    let mut updates = Vec::with_capacity(requests.len());
    for (index, request) in requests.enumerate() {
        for (field, is_given) in [
            ("request_id", !request.request_id.is_empty()),
            ("validate_only", request.validate_only),
        ] {
            if is_given {
                violations.push(
                    format!("{FIELD}[{index}].{field}"),
                    FieldReason::FieldUnknown,
                    "must be left out here; the batch itself has this field",
                );
            }
        }
        updates.push(feature::update(request));
    }
    BatchUpdateFeatures { updates, violations }
}

/// Returns the answer to a batch.
#[must_use]
pub fn answer(view: &BatchView) -> registry::BatchUpdateFeaturesResponse {
    registry::BatchUpdateFeaturesResponse {
        features: view.features.iter().map(feature::answer).collect(),
        revision: view.revision().get(),
    }
}
