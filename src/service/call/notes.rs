//! Notes: the facts that a handler reports about its call, in addition to the outcome.

use std::sync::Arc;

use parking_lot::Mutex;

/// Facts about a call, for the access log line and the span. All values are bounded, and none is a prompt or an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The feature that the caller asked for.
    pub feature: Option<String>,
    /// The selected model.
    pub model: Option<String>,
    /// The model server that was called last: scheme, host and port.
    pub endpoint: Option<String>,
    /// What went wrong at the model server, in words that name the server and the cause.
    pub error: Option<String>,
    /// The number of attempts at model servers.
    pub attempts: Option<u32>,
    /// Why the answer ended.
    pub finish_reason: Option<&'static str>,
    /// The number of tokens of the prompt, as the model server counted them.
    pub input_tokens: Option<u64>,
    /// The number of tokens of the answer, as the model server counted them.
    pub output_tokens: Option<u64>,
}

/// A shared place in which a handler stores facts about its call. Clones refer to the same facts.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Facts>>);

impl Notes {
    /// Returns the notes of the call that `request` belongs to.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Changes the facts with `note`.
    pub fn add(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.0.lock());
    }

    pub(super) fn take(&self) -> Facts {
        std::mem::take(&mut self.0.lock())
    }
}
