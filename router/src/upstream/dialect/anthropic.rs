//! The dialect of Anthropic Messages: `/v1/messages`, streamed or whole.
//!
//! Pure. This module enforces the rules of the API, because the router's callers cannot know them: system texts are
//! separate from the messages, roles alternate, no text is empty, and a thought is sent back with its signature or not
//! at all.

mod decode;
mod encode;

pub use self::{
    decode::{Decoder, whole},
    encode::encode,
};
use serde_json::value::RawValue;

use super::{
    DialectError, Rejection, Usage, count,
    lenient::{Member, Number, Word, object},
};

/// Prefix of the signature of a thought whose text the server does not reveal. The API's own signatures contain no
/// colon.
const REDACTED: &str = "redacted:";

object! {
    struct WireError<'de> {
        kind as "type": Word,
    }
}

object! {
    struct WireUsage<'de> {
        input_tokens: Number,
        cache_creation_input_tokens: Number,
        cache_read_input_tokens: Number,
        output_tokens: Number,
    }
}

/// Numbers of tokens, as far as the server has reported them. A stream reports them in parts.
#[derive(Debug, Clone, Copy, Default)]
struct TokenCounts {
    input: Member<Number>,
    cache_creation_input: Member<Number>,
    cache_read_input: Member<Number>,
    output: Member<Number>,
}

impl TokenCounts {
    /// Replaces the numbers that `later` reports.
    fn update(&mut self, later: &WireUsage<'_>) {
        for (count, later) in [
            (&mut self.input, later.input_tokens),
            (&mut self.cache_creation_input, later.cache_creation_input_tokens),
            (&mut self.cache_read_input, later.cache_read_input_tokens),
            (&mut self.output, later.output_tokens),
        ] {
            if matches!(later, Member::Given(_)) {
                *count = later;
            }
        }
    }
}

/// The API counts the cached input and the input that it caches now separately from the other input. Callers expect the
/// input to include both.
impl From<TokenCounts> for Usage {
    fn from(wire: TokenCounts) -> Self {
        let cached = count(wire.cache_read_input);
        let beside = [count(wire.cache_creation_input), cached];
        let input = count(wire.input);
        Self {
            input: input.map(|input| beside.into_iter().flatten().fold(input, i32::saturating_add)),
            output: count(wire.output),
            cached_input: cached,
            reasoning: None,
        }
    }
}

/// Builds the error from an error object that replaces an answer or ends one.
fn reported(data: &str, error: Option<&RawValue>) -> DialectError {
    let error = error.and_then(|error| serde_json::from_str::<Member<WireError<'_>>>(error.get()).ok());
    let kind = error.and_then(|error| error.given()?.kind.given());
    let status = kind.and_then(|kind| match kind.0.as_str() {
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
