//! The dialect of OpenAI-compatible servers: `/v1/chat/completions` and `/v1/completions`, streamed or whole.
//!
//! Pure. The encoder serializes a fixed set of known fields; the decoder is lenient, because every server adds fields
//! of its own.

mod decode;
mod encode;
mod tool_calls;

pub use self::{
    decode::{Decoder, whole},
    encode::encode,
};
use serde_json::{Value, value::RawValue};

use super::{
    DialectError, Rejection, Usage, count,
    lenient::{Member, Number, Raw, Word, object},
};

object! {
    struct WireUsage<'de> {
        prompt_tokens: Number,
        completion_tokens: Number,
        prompt_tokens_details: InputDetails<'de>,
        completion_tokens_details: OutputDetails<'de>,
    }
}

object! {
    struct InputDetails<'de> {
        cached_tokens: Number,
    }
}

object! {
    struct OutputDetails<'de> {
        reasoning_tokens: Number,
    }
}

impl From<WireUsage<'_>> for Usage {
    fn from(wire: WireUsage<'_>) -> Self {
        let input = wire.prompt_tokens_details.given();
        let output = wire.completion_tokens_details.given();
        Self {
            input: count(wire.prompt_tokens),
            output: count(wire.completion_tokens),
            cached_input: input.and_then(|details| count(details.cached_tokens)),
            reasoning: output.and_then(|details| count(details.reasoning_tokens)),
        }
    }
}

/// Fails if an error replaces the answer, or a part of it.
fn reported(
    data: &str,
    object: &Member<Word>,
    code: &Member<Raw<'_>>,
    error: &Member<Raw<'_>>,
) -> Result<(), DialectError> {
    let error = error.as_given().filter(|error| says_something(error));
    let is_error = object.as_given().is_some_and(|object| object.0 == "error");
    if error.is_none() && !is_error {
        return Ok(());
    }
    let value = |raw: &Raw<'_>| serde_json::from_str::<Value>(raw.get()).ok();
    Err(DialectError::Reported {
        status: status(error.and_then(value).as_ref(), code.as_given().and_then(value).as_ref()),
        rejection: Rejection::read(data.as_bytes()),
    })
}

/// Whether a member `error` reports an error. Some servers send it empty in each event.
fn says_something(error: &RawValue) -> bool {
    let text: String = error.get().chars().filter(|c| !c.is_whitespace()).take(8).collect();
    !matches!(text.as_str(), "false" | "0" | "\"\"" | "{}" | "[]")
}

/// Returns the HTTP status that corresponds to the error: by its code, which is a number, a number as text, or a word;
/// otherwise by its type, which is always a word.
fn status(error: Option<&Value>, code: Option<&Value>) -> Option<u16> {
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
