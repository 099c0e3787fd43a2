//! The settings in the contract.

use switchboard::{names::ResourceName, pb::registry, reason::FieldReason, violation::Violations};

use super::timestamp;
use crate::{
    domain::{view::SettingsView, write::UpdateSettings},
    merge::Edit,
};

/// Reads a request to change the settings.
#[must_use]
pub fn update(request: registry::UpdateSettingsRequest) -> UpdateSettings {
    let mut violations = Violations::new();
    let has_body = request.settings.is_some();
    let edit = Edit::new(
        request.settings.unwrap_or_default(),
        request.update_mask.as_ref(),
        &mut violations,
    );
    if has_body {
        check_name(&edit.given().name, "settings.name", &mut violations);
        edit.check_not_empty(&mut violations);
    } else {
        violations.push("settings", FieldReason::FieldRequired, "must be given");
    }
    UpdateSettings {
        etag: super::etag(edit.given().etag.clone()),
        edit,
        violations,
    }
}

/// Checks the name of the settings, which may be left out.
pub(super) fn check_name(name: &str, field: &str, violations: &mut Violations) {
    if !matches!(name, "" | ResourceName::SETTINGS) {
        let description = "must be `settings`, or be left out";
        violations.push(field, FieldReason::ValueMalformed, description);
    }
}

/// Returns the settings as answers contain them.
#[must_use]
pub fn answer(view: &SettingsView) -> registry::Settings {
    let record = view.settings.record;
    let changed = Some(record).filter(|record| !record.is_as_created());
    registry::Settings {
        etag: view.etag.to_string(),
        revision: changed.map_or(0, |record| record.revision.get()),
        update_time: changed.map(|record| timestamp(record.update_time)),
        ..view.settings.value.to_message()
    }
}
