//! Metrics of the configuration in use, and the facts that calls add to their access log lines.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use switchboard::service::{call::notes::Notes, metrics::read_gauge};

use crate::{
    call::{CallError, CallFailure, Selected},
    current::Current,
    upstream::dialect::{FinishReason, Usage},
};

/// Registers the metrics of the configuration in use.
pub fn register_current(current: &Arc<Current>, registry: &mut Registry) {
    let shown = Arc::clone(current);
    read_gauge(
        registry,
        "config_revision",
        "Revision of the configuration in use",
        move || shown.load().map(|catalog| number(catalog.cursor.revision.get())),
    );
    let shown = Arc::clone(current);
    read_gauge(
        registry,
        "config_age_seconds",
        "Seconds since the last message from the registry",
        move || shown.age().map(|age| age.as_secs_f64()),
    );
    let shown = Arc::clone(current);
    read_gauge(
        registry,
        "config_held_items",
        "Number of resources whose newest version is not in use",
        move || i64::try_from(shown.held()).ok().map(number),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
const fn number(number: i64) -> f64 {
    number as f64
}

/// Adds the feature, the selected model and server, and the number of attempts to the access line.
pub fn note_selected(notes: &Notes, selected: &Selected) {
    notes.add(|facts| {
        facts.feature = Some(selected.feature.to_string());
        facts.model = Some(selected.model.name.to_string());
        facts.endpoint = Some(selected.server().origin().to_owned());
        facts.attempts = Some(selected.attempts);
    });
}

/// Adds the finish reason and the token counts of a completed answer to the access line.
pub fn note_completion(notes: &Notes, finish: FinishReason, usage: Option<Usage>) {
    let count = |count: Option<i32>| count.and_then(|count| u64::try_from(count).ok());
    notes.add(|facts| {
        facts.finish_reason = Some(match finish {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
            FinishReason::Other => "other",
        });
        facts.input_tokens = usage.and_then(|usage| count(usage.input));
        facts.output_tokens = usage.and_then(|usage| count(usage.output));
    });
}

/// Adds the feature, the model, the number of attempts, and what went wrong at which server to the access line of a
/// failed call.
pub fn note_failure(notes: &Notes, failure: &CallFailure) {
    let context = &failure.context;
    notes.add(|facts| {
        facts.feature = context.feature.map(ToString::to_string);
        facts.model = context.model.as_ref().map(ToString::to_string);
        facts.attempts = Some(context.attempts);
        if let CallError::Upstream(error) = &failure.error {
            facts.endpoint = error.server.as_ref().map(|server| server.origin().to_owned());
            facts.error = Some(error.to_string());
        }
    });
}
