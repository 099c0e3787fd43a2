//! Changes the instance's settings.

use switchboard::{
    names::{CredentialId, ResourceName},
    pb::registry,
    resource::settings::Settings,
    violation::Violations,
};

use super::{Write, WriteEffect, WriteError, check_etag};
use crate::{
    domain::{
        state::{Change, State},
        view::SettingsView,
    },
    merge::Edit,
};

/// Changes the instance's settings.
#[derive(Debug)]
pub struct UpdateSettings {
    /// Etag that the settings must have. `None`: not checked.
    pub etag: Option<String>,
    /// The fields to change.
    pub edit: Edit<registry::Settings>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

impl Write for UpdateSettings {
    type Name = ();
    type View = SettingsView;

    fn judge(&self, state: &State, _fresh: CredentialId) -> Result<WriteEffect<()>, WriteError> {
        check_etag(
            state,
            ResourceName::Settings,
            state.settings.record,
            self.etag.as_deref(),
        )?;
        if !self.violations.is_empty() {
            return Err(WriteError::Invalid(self.violations.clone()));
        }
        let stored = state.settings.value;
        let settings = Settings::read(&self.edit.over(&stored.to_message()).0);
        Ok(WriteEffect {
            name: (),
            change: (settings != stored).then_some(Change::Settings(settings)),
        })
    }

    fn view(state: &State, (): &()) -> Option<SettingsView> {
        Some(state.settings())
    }
}
