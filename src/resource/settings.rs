//! The settings: switches that apply to the whole instance.

use crate::{names::ResourceName, pb::registry};

/// Switches that apply to the whole instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether families and features in beta may be newly assigned.
    pub beta_enabled: bool,
    /// Whether self-hosted inference is switched off for all features.
    pub inference_paused: bool,
}

impl Settings {
    /// Reads the settings from a message. Output-only fields are ignored; the other fields have no invalid values.
    #[must_use]
    pub fn read(message: &registry::Settings) -> Self {
        let registry::Settings {
            name: _,
            beta_enabled,
            inference_paused,
            etag: _,
            revision: _,
            update_time: _,
        } = message;
        Self {
            beta_enabled: beta_enabled.unwrap_or(false),
            inference_paused: inference_paused.unwrap_or(false),
        }
    }

    /// Converts the settings to a message with all values, including defaults. The registry returns this message to
    /// callers and merges writes into it.
    #[must_use]
    pub fn to_message(self) -> registry::Settings {
        let Self {
            beta_enabled,
            inference_paused,
        } = self;
        registry::Settings {
            name: ResourceName::SETTINGS.to_owned(),
            beta_enabled: Some(beta_enabled),
            inference_paused: Some(inference_paused),
            etag: String::new(),
            revision: 0,
            update_time: None,
        }
    }

    /// Converts the settings to the message that is stored, streamed and hashed. It contains only values that differ
    /// from the default.
    #[must_use]
    pub fn to_stored(self) -> registry::Settings {
        let full = self.to_message();
        registry::Settings {
            beta_enabled: full.beta_enabled.filter(|&is_set| is_set),
            inference_paused: full.inference_paused.filter(|&is_set| is_set),
            ..full
        }
    }
}
