//! The dialect of OpenAI-compatible servers: `/v1/chat/completions` and `/v1/completions`, streamed or whole.
//!
//! Pure. Our JSON is built by a serializer from known fields only; theirs is read leniently, since every server adds to it.

mod decode;
mod encode;
mod tool_calls;

use serde::Deserialize;

pub use self::{
    decode::{Decoder, whole},
    encode::{Post, Reply, encode},
};
use super::{Blamed, DialectError, FinishReason, Rejection, Usage};

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
        let count = |tokens: Option<i64>| {
            tokens
                .filter(|&tokens| tokens >= 0)
                .map(|tokens| i32::try_from(tokens).unwrap_or(i32::MAX))
        };
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
            rejection: rejection(b""),
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
        status: status(error.and_then(|error| error.get("code")).or(code)),
        rejection: rejection(data.as_bytes()),
    })
}

/// The HTTP status in an error object's `code`, which is a number, a number as text, or a word.
fn status(code: Option<&serde_json::Value>) -> Option<u16> {
    let code = code?;
    let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
}

/// What the text of a refusal is about. Servers have no common code for it, so this goes by their words.
#[must_use]
pub fn rejection(body: &[u8]) -> Rejection {
    const TOO_LONG: [&str; 7] = [
        "context_length_exceeded",
        "exceed_context_size",
        "context length",
        "context size",
        "context window",
        "maximum model length",
        "max_model_len",
    ];
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    let names_limit = body.contains("max_tokens") || body.contains("max_completion_tokens");
    let is_too_long = TOO_LONG.iter().any(|words| body.contains(words));
    let blames_limit = names_limit && (!is_too_long || body.contains("too large"));
    Rejection {
        is_too_long,
        blamed: if blames_limit {
            Blamed::MaxOutputTokens
        } else {
            Blamed::Input
        },
        names_usage: body.contains("stream_options") || body.contains("include_usage"),
    }
}

#[cfg(test)]
mod tests;
