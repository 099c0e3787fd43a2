//! Changing the settings of the instance.

use switchboard::{
    names::{CredentialId, ResourceName},
    violation::Violations,
};

use super::{Edit, Verdict, Write, WriteError, check_etag};
use crate::domain::{
    settings::Settings,
    state::{Change, State},
    view::SettingsView,
};

/// Changes the settings of the instance.
#[derive(Debug)]
pub struct UpdateSettings {
    /// The etag that they must have.
    pub etag: Option<String>,
    /// `beta_enabled`. Its default is false.
    pub beta_enabled: Edit<bool>,
    /// `inference_paused`. Its default is false.
    pub inference_paused: Edit<bool>,
    /// What is wrong already.
    pub violations: Violations,
}

impl Write for UpdateSettings {
    type Name = ();
    type View = SettingsView;

    fn judge(&self, state: &State, _fresh: CredentialId) -> Result<Verdict<()>, WriteError> {
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
        let settings = Settings {
            beta_enabled: self.beta_enabled.or_default(stored.beta_enabled, false),
            inference_paused: self.inference_paused.or_default(stored.inference_paused, false),
        };
        Ok(Verdict {
            name: (),
            change: (settings != stored).then_some(Change::Settings(settings)),
        })
    }

    fn view(state: &State, (): &()) -> Option<SettingsView> {
        Some(state.settings())
    }
}
