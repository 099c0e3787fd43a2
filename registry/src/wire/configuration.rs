//! The whole configuration in the contract: exported and applied.

use prost::Message as _;
use switchboard::{
    catalogue::Catalogue,
    names::{CredentialId, FeatureName, ModelName, Revision},
    pb::registry,
    reason::FieldReason,
    resource::{feature::Feature, settings::Settings},
    violation::Violations,
};

use super::{history, name, settings::check_name};
use crate::domain::{
    state::State,
    write::{ApplyConfig, COUNT_MAX, DiffView, GivenFeature, GivenModel},
};

/// Maximum size of a configuration in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Exports the configuration, with explicitly set fields only.
#[must_use]
pub fn export(state: &State) -> registry::ExportConfigResponse {
    let features = Catalogue::get().features().iter();
    let set = features
        .filter_map(|facts| state.features.get(&facts.name))
        .map(|feature| &feature.value)
        .filter(|feature| !feature.is_unset());
    let config = registry::Config {
        models: state.models.values().map(|model| model.value.to_stored()).collect(),
        features: set.map(Feature::to_message).collect(),
        settings: Some(state.settings.value.to_stored()),
    };
    registry::ExportConfigResponse {
        config: Some(config),
        revision: state.items.revision().get(),
        incarnation: state.items.incarnation().id.to_string(),
    }
}

/// Reads a request to apply a configuration.
#[must_use]
pub fn apply(request: registry::ApplyConfigRequest) -> ApplyConfig {
    let mut violations = Violations::new();
    let expected = Revision::new(request.expected_revision);
    if expected.is_none() {
        let description = "must not be negative";
        violations.push("expected_revision", FieldReason::ValueOutOfRange, description);
    }
    let config = match &request.config {
        None => {
            let description = "must be given: models that it does not contain are deleted";
            violations.push("config", FieldReason::FieldRequired, description);
            None
        }
        Some(config) => check_size(config, &mut violations).then_some(request.config).flatten(),
    };
    let registry::Config {
        models,
        features,
        settings,
    } = config.unwrap_or_default();
    let settings = settings.unwrap_or_default();
    check_name(&settings.name, "config.settings.name", &mut violations);
    ApplyConfig {
        models: models.into_iter().map(given_model).collect(),
        features: features.into_iter().map(given_feature).collect(),
        settings: Settings::read(&settings),
        settings_etag: super::etag(settings.etag),
        expected: expected.filter(|revision| *revision > Revision::ZERO),
        violations,
    }
}

/// Checks the size of the whole configuration. Returns false if it is too large; its parts are then not checked.
fn check_size(config: &registry::Config, violations: &mut Violations) -> bool {
    let (count, bytes) = (config.models.len() + config.features.len() + 1, config.encoded_len());
    if count > COUNT_MAX {
        let description = format!("has {count} resources; the maximum is {COUNT_MAX}");
        violations.push("config", FieldReason::ValueOutOfRange, description);
    }
    if bytes > BYTES_MAX {
        let description = format!("has {bytes} bytes; the maximum is {BYTES_MAX}");
        violations.push("config", FieldReason::ValueOutOfRange, description);
    }
    count <= COUNT_MAX && bytes <= BYTES_MAX
}

fn given_model(model: registry::Model) -> GivenModel {
    let mut violations = Violations::new();
    GivenModel {
        name: name(&model.name, "model.name", ModelName::parse, &mut violations),
        etag: super::etag(model.etag.clone()),
        model,
        violations,
        fresh: CredentialId::random(),
    }
}

fn given_feature(feature: registry::Feature) -> GivenFeature {
    let mut violations = Violations::new();
    GivenFeature {
        name: name(&feature.name, "feature.name", FeatureName::parse, &mut violations),
        etag: super::etag(feature.etag.clone()),
        feature,
        violations,
    }
}

/// Returns the answer to an applied configuration.
#[must_use]
pub fn applied(view: &DiffView) -> registry::ApplyConfigResponse {
    registry::ApplyConfigResponse {
        changes: history::changes(view),
        revision: view.revision.get(),
        base_revision: view.diff.base.get(),
        api_tokens_dropped: view.diff.tokens_dropped.iter().map(ToString::to_string).collect(),
        changes_total: super::count(view.diff.changes.len()),
    }
}
