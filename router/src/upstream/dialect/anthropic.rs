//! The dialect of Anthropic Messages: `/v1/messages`, streamed or whole.
//!
//! Pure. This module enforces the rules of the API, because the router's callers cannot know them: system texts are
//! separate from the messages, roles alternate, no text is empty, and a thought is sent back with its signature or not
//! at all.

mod decode;
mod encode;

use serde::Deserialize;

pub use self::{
    decode::{Decoder, whole},
    encode::encode,
};
use super::{DialectError, FinishReason, Rejection, Usage, count};

/// Prefix of the signature of a thought whose text the server does not reveal. The API's own signatures contain no
/// colon.
const REDACTED: &str = "redacted:";

/// Numbers of tokens, as far as the server has reported them. A stream reports them in parts.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct WireUsage {
    input_tokens: Option<i64>,
    cache_creation_input_tokens: Option<i64>,
    cache_read_input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

impl WireUsage {
    /// Replaces the numbers that `later` reports.
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

/// The API counts the cached input and the input that it caches now separately from the other input. Callers expect the
/// input to include both.
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

/// Builds the error from an error object that replaces an answer or ends one.
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
