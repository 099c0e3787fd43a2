//! Features in the contract.

use switchboard::{
    names::{FeatureName, ModelName},
    pb::registry,
    reason::FieldReason,
    resource::feature::{Feature, Provider},
    violation::Violations,
};

use super::{name, page::Page, stage, timestamp};
use crate::{
    domain::{view::FeatureView, write::UpdateFeature},
    merge::Edit,
};

/// Reads a request to change a feature.
#[must_use]
pub fn update(request: registry::UpdateFeatureRequest) -> UpdateFeature {
    let mut violations = Violations::new();
    let has_body = request.feature.is_some();
    let edit = Edit::new(
        request.feature.unwrap_or_default(),
        request.update_mask.as_ref(),
        &mut violations,
    );
    let (name, etag) = if has_body {
        edit.check_not_empty(&mut violations);
        let name = name(&edit.given().name, "feature.name", FeatureName::parse, &mut violations);
        (name, super::etag(edit.given().etag.clone()))
    } else {
        violations.push("feature", FieldReason::FieldRequired, "must be given");
        (None, None)
    };
    UpdateFeature {
        name,
        etag,
        edit,
        violations,
    }
}

/// Reads a request for one feature.
///
/// # Errors
///
/// A violation if the name is invalid.
pub fn get(request: &registry::GetFeatureRequest) -> Result<FeatureName, Violations> {
    let mut violations = Violations::new();
    name(&request.name, "name", FeatureName::parse, &mut violations).ok_or(violations)
}

/// A request for a page of features.
#[derive(Debug)]
pub struct FeatureListing {
    /// Which page.
    pub page: Page,
    /// Only features with this provider. `None`: all.
    provider: Option<Provider>,
    /// Only features that name this model. `None`: all.
    model: Option<ModelName>,
}

impl FeatureListing {
    /// Whether the request asks for this feature.
    #[must_use]
    pub fn has(&self, feature: &Feature) -> bool {
        let provider = feature.spec.setting.provider();
        self.provider.is_none_or(|wanted| provider == wanted)
            && self
                .model
                .as_ref()
                .is_none_or(|wanted| feature.references().any(|model| model == wanted))
    }
}

/// Reads a request for a page of features.
///
/// # Errors
///
/// Violations for a bad page, an unknown provider, and a malformed name of a model.
pub fn list(request: &registry::ListFeaturesRequest) -> Result<FeatureListing, Violations> {
    let mut violations = Violations::new();
    let page = Page::parse("ListFeatures", request.page_size, &request.page_token);
    let provider = Provider::from_number(request.provider);
    if provider.is_none() && request.provider != 0 {
        violations.push("provider", FieldReason::ValueUnknown, Provider::EXPECTED);
    }
    let model = Some(&request.model).filter(|model| !model.is_empty());
    let model = model.and_then(|model| name(model, "model", ModelName::parse, &mut violations));
    match page {
        Ok(page) => violations.or(FeatureListing { page, provider, model }),
        Err(found) => {
            violations.append(found);
            Err(violations)
        }
    }
}

/// Returns a feature as answers contain it.
#[must_use]
pub fn answer(view: &FeatureView) -> registry::Feature {
    let (facts, feature, record) = (view.facts, &view.feature.value, view.feature.record);
    let changed = Some(record).filter(|record| !record.is_as_created());
    registry::Feature {
        etag: view.etag.to_string(),
        display_name: facts.display_name.clone(),
        group: facts.group.clone(),
        release_stage: stage(facts.stage).into(),
        compatible_families: facts.families.clone(),
        parent: facts.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        unit_primitives: facts.unit_primitives.clone(),
        assignable: view.is_assignable,
        revision: changed.map_or(0, |record| record.revision.get()),
        update_time: changed.map(|record| timestamp(record.update_time)),
        kept_without_beta: view.is_kept_without_beta,
        ..feature.to_message()
    }
}
