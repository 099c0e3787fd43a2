//! The dialect of OpenAI-compatible servers: `/v1/chat/completions` and `/v1/completions`, streamed or whole.
//!
//! Pure. Our JSON is built by a serializer from known fields only; theirs is read leniently, since every server adds to it.

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

/// What a finish reason means. `calls_tools`: the answer holds calls, which some servers end with `stop` all the same.
fn finish(reason: &str, calls_tools: bool) -> Result<FinishReason, DialectError> {
    match reason {
        "stop" if calls_tools => Ok(FinishReason::ToolCalls),
        "stop" => Ok(FinishReason::Stop),
        "length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" => Ok(FinishReason::ContentFilter),
        // The server gave up: what came before is no whole answer.
        "error" | "abort" => Err(DialectError::Reported {
            status: None,
            rejection: Rejection::read(b""),
        }),
        _ => Ok(FinishReason::Other),
    }
}

/// The error that stands in the place of an answer, if there is one.
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

/// The HTTP status that would have said the same: by the error's code, which is a number, a number as text, or a word; else
/// by its type, which is always a word.
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

/// Of the words that servers have instead of a status only those that say whose fault it is.
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
