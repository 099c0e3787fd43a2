//! What the router shows beside its calls to models: the configuration in use as metrics, and what access lines say.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use switchboard::service::{call::notes::Notes, metrics::read_gauge};

use crate::{
    call::{CallFailure, Selected},
    current::Current,
    upstream::dialect::{FinishReason, Usage},
};

/// Shows the configuration in use.
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
        "How long ago the registry was heard last",
        move || shown.age().map(|age| age.as_secs_f64()),
    );
    let shown = Arc::clone(current);
    read_gauge(
        registry,
        "config_held_items",
        "Resources whose newest version is not in use",
        move || i64::try_from(shown.held()).ok().map(number),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
const fn number(number: i64) -> f64 {
    number as f64
}

/// Who answers, for the access line.
pub fn note_selected(notes: &Notes, selected: &Selected) {
    notes.add(|facts| {
        facts.feature = Some(selected.feature.to_string());
        facts.model = Some(selected.model.name.to_string());
        facts.attempts = Some(selected.attempts);
    });
}

/// How an answer ended well, for the access line.
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

/// What a call was about that failed, for the access line.
pub fn note_failure(notes: &Notes, failure: &CallFailure) {
    let context = &failure.context;
    notes.add(|facts| {
        facts.feature = context.feature.map(ToString::to_string);
        facts.model = context.model.as_ref().map(ToString::to_string);
        facts.attempts = Some(context.attempts);
    });
}
