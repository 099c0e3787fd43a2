//! Switches that hold for the whole instance.

/// Switches that hold for the whole instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether families and features in beta may be newly assigned.
    pub beta_enabled: bool,
    /// Whether self-hosted inference is off everywhere.
    pub inference_paused: bool,
}
