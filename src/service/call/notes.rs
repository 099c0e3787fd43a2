//! What a handler tells of its call beside the outcome.

use std::sync::Arc;

use parking_lot::Mutex;

/// What a handler knows of its call, for the access line and the span. All of it is bounded, and nothing of
/// it is a prompt or an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The feature that was asked for.
    pub feature: Option<String>,
    /// The model that was selected.
    pub model: Option<String>,
    /// How many times a model server was called.
    pub attempts: Option<u32>,
    /// Why the answer ended.
    pub finish_reason: Option<&'static str>,
    /// Tokens of the prompt, as the model server counted them.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, as the model server counted them.
    pub output_tokens: Option<u64>,
}

/// Where a handler leaves what it knows of its call. A clone is the same place.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Facts>>);

impl Notes {
    /// Those of the call that `request` belongs to.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Adds to what is known.
    pub fn add(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.0.lock());
    }

    pub(super) fn take(&self) -> Facts {
        std::mem::take(&mut self.0.lock())
    }
}
