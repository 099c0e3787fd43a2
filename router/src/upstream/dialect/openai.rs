//! The dialect of OpenAI-compatible servers: `/v1/chat/completions` and `/v1/completions`, streamed or whole.
//!
//! Pure. The encoder serializes a fixed set of known fields; the decoder is lenient, because every server adds fields
//! of its own.

mod decode;
mod encode;
mod tool_calls;

use serde::Deserialize;

pub use self::{
    decode::{Decoder, whole},
    encode::encode,
};
use super::{DialectError, FinishReason, Rejection, Usage, count};

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<i64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<i64>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        Self {
            input: count(wire.prompt_tokens),
            output: count(wire.completion_tokens),
            cached_input: count(wire.prompt_tokens_details.and_then(|details| details.cached_tokens)),
            reasoning: count(
                wire.completion_tokens_details
                    .and_then(|details| details.reasoning_tokens),
            ),
        }
    }
}

/// Converts a finish reason. `calls_tools`: whether the answer contains tool calls, which some servers end with `stop`
/// nevertheless.
fn finish(reason: &str, calls_tools: bool) -> Result<FinishReason, DialectError> {
    match reason {
        "stop" if calls_tools => Ok(FinishReason::ToolCalls),
        "stop" => Ok(FinishReason::Stop),
        "length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" => Ok(FinishReason::ContentFilter),
        // The server aborted the answer, so the text so far is not a complete answer.
        "error" | "abort" => Err(DialectError::Reported {
            status: None,
            rejection: Rejection::read(b""),
        }),
        _ => Ok(FinishReason::Other),
    }
}

/// Fails if an error object replaces the answer.
fn reported(
    data: &str,
    object: Option<&str>,
    code: Option<&serde_json::Value>,
    error: Option<&serde_json::Value>,
) -> Result<(), DialectError> {
    if error.is_none() && object != Some("error") {
        return Ok(());
    }
    Err(DialectError::Reported {
        status: status(error, code),
        rejection: Rejection::read(data.as_bytes()),
    })
}

/// Returns the HTTP status that corresponds to the error: by its code, which is a number, a number as text, or a word;
/// otherwise by its type, which is always a word.
fn status(error: Option<&serde_json::Value>, code: Option<&serde_json::Value>) -> Option<u16> {
    let member = |name| error.and_then(|error| error.get(name));
    let codes = [member("code").or(code), member("type")];
    codes.into_iter().flatten().find_map(|code| {
        let number = code.as_u64().or_else(|| code.as_str()?.parse().ok());
        let status = number.and_then(|number| u16::try_from(number).ok());
        status
            .filter(|status| (400..600).contains(status))
            .or_else(|| word(code.as_str()?))
    })
}

/// Returns the HTTP status for a word that servers use instead of a status. Only words that show who is at fault are
/// mapped.
fn word(code: &str) -> Option<u16> {
    match code {
        "invalid_request_error" | "context_length_exceeded" | "exceed_context_size_error" | "content_filter" => {
            Some(400)
        }
        "invalid_api_key" | "authentication_error" => Some(401),
        "permission_error" => Some(403),
        "model_not_found" | "not_found_error" => Some(404),
        "rate_limit_exceeded" | "rate_limit_error" => Some(429),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
