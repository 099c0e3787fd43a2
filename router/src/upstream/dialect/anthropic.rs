//! The dialect of Anthropic Messages: `/v1/messages`, streamed or whole.
//!
//! Pure. What the API insists on is seen to here, since our callers cannot know it: system texts stand apart, roles
//! alternate, no text is empty, and a thought goes back with its signature or not at all.

mod decode;
mod encode;

use serde::Deserialize;

pub use self::{
    decode::{Decoder, whole},
    encode::encode,
};
use super::{DialectError, FinishReason, Rejection, Usage, count};

/// Begins the signature of a thought that the server shows to nobody. No signature of its own has a colon in it.
const REDACTED: &str = "redacted:";

/// Counts of tokens, as far as they were told. Those of a stream come in pieces.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct WireUsage {
    input_tokens: Option<i64>,
    cache_creation_input_tokens: Option<i64>,
    cache_read_input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

impl WireUsage {
    /// What is told later counts.
    const fn update(&mut self, later: Self) {
        const fn newer(now: &mut Option<i64>, later: Option<i64>) {
            if later.is_some() {
                *now = later;
            }
        }
        newer(&mut self.input_tokens, later.input_tokens);
        newer(&mut self.cache_creation_input_tokens, later.cache_creation_input_tokens);
        newer(&mut self.cache_read_input_tokens, later.cache_read_input_tokens);
        newer(&mut self.output_tokens, later.output_tokens);
    }
}

/// The API counts what was cached, and what it caches now, apart from the input; callers know it as a part of that.
impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let cached = count(wire.cache_read_input_tokens);
        let beside = [count(wire.cache_creation_input_tokens), cached];
        let input = count(wire.input_tokens);
        Self {
            input: input.map(|input| beside.into_iter().flatten().fold(input, i32::saturating_add)),
            output: count(wire.output_tokens),
            cached_input: cached,
            reasoning: None,
        }
    }
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// The error that stands in the place of an answer, or ends one.
fn reported(data: &str, error: Option<&serde_json::Value>) -> DialectError {
    let kind = error.and_then(|error| error.get("type")?.as_str());
    let status = kind.and_then(|kind| match kind {
        "invalid_request_error" => Some(400),
        "authentication_error" => Some(401),
        "billing_error" => Some(402),
        "permission_error" => Some(403),
        "not_found_error" => Some(404),
        "request_too_large" => Some(413),
        "rate_limit_error" => Some(429),
        "api_error" => Some(500),
        "timeout_error" => Some(504),
        "overloaded_error" => Some(529),
        _ => None,
    });
    DialectError::Reported {
        status,
        rejection: Rejection::read(data.as_bytes()),
    }
}

#[cfg(test)]
mod tests;
