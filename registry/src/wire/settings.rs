//! The settings on the wire.

use switchboard::{names::ResourceName, pb::registry, reason::FieldReason, violation::Violations};

use super::{
    mask::{Fields, Mask},
    timestamp,
};
use crate::domain::{
    view::SettingsView,
    write::{Edit, UpdateSettings},
};

/// What a mask may name.
pub const FIELDS: Fields = Fields {
    settable: &["beta_enabled", "inference_paused"],
    fixed: &["name", "etag", "revision", "update_time"],
};

/// Reads a request to change the settings.
#[must_use]
pub fn update(request: registry::UpdateSettingsRequest) -> UpdateSettings {
    let mut violations = Violations::new();
    let mask = Mask::parse(request.update_mask.as_ref(), FIELDS, &mut violations);
    let Some(settings) = request.settings else {
        violations.push("settings", FieldReason::FieldRequired, "must be given");
        return UpdateSettings {
            etag: None,
            beta_enabled: Edit::Bad,
            inference_paused: Edit::Bad,
            violations,
        };
    };
    if !matches!(settings.name.as_str(), "" | ResourceName::SETTINGS) {
        violations.push(
            "settings.name",
            FieldReason::ValueMalformed,
            "must be `settings`, or be left out",
        );
    }
    let is_any_present = settings.beta_enabled.is_some() || settings.inference_paused.is_some();
    mask.check_not_empty(is_any_present, &mut violations);
    UpdateSettings {
        etag: super::etag(settings.etag),
        beta_enabled: mask.edit("beta_enabled", settings.beta_enabled),
        inference_paused: mask.edit("inference_paused", settings.inference_paused),
        violations,
    }
}

/// The settings as they are answered.
#[must_use]
pub fn answer(view: &SettingsView) -> registry::Settings {
    let record = view.settings.record;
    let changed = Some(record).filter(|record| !record.is_as_created());
    registry::Settings {
        name: ResourceName::SETTINGS.to_owned(),
        beta_enabled: Some(view.settings.value.beta_enabled),
        inference_paused: Some(view.settings.value.inference_paused),
        etag: view.etag.to_string(),
        revision: changed.map_or(0, |record| record.revision.get()),
        update_time: changed.map(|record| timestamp(record.update_time)),
    }
}
