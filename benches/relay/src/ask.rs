//! The questions and answers, which are the same for every server that is measured.
//!
//! The pace is part of the question's text, so that one model with one feature serves all measures. Each token of a
//! streamed answer is the time at which the model server sent it, so that the client can compute the delay of each
//! token.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use switchboard::pb::router::{InferRequest, infer_request::Input};
use switchboard_comparison::grpc::framed;

/// The feature of all calls.
pub(crate) const FEATURE: &str = "code_generations";
/// The path of chat completions at the model server.
pub(crate) const PATH: &str = "/v1/chat/completions";
/// Number of tokens in a streamed answer.
pub(crate) const TOKENS: usize = 100;
/// Number of events in a streamed answer: the role, the tokens, the finish reason and `[DONE]`.
pub(crate) const EVENTS: usize = TOKENS + 3;
/// Number of bytes in a token.
pub(crate) const TOKEN_BYTES: usize = 16;
/// The text of a unary answer. The whole JSON body has about 290 bytes.
pub(crate) const WHOLE_TEXT: &str = "fn add(a: i64, b: i64) -> i64 { a + b }";

const PACE_MARK: &str = "pace=";
const PACE_DIGITS: usize = 4;

/// One question, encoded for each protocol.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// As a gRPC message with its prefix.
    pub(crate) grpc: Bytes,
    /// As HTTP requests to the model server, for a unary and for a streamed answer.
    pub(crate) whole: Bytes,
    pub(crate) streamed: Bytes,
}

impl Question {
    /// Builds a question that asks for one token per `pace`; zero means as fast as possible.
    pub(crate) fn paced(pace: Duration) -> Self {
        let text = format!(
            "{PACE_MARK}{:0PACE_DIGITS$} Write a function that adds two numbers, and explain it in a sentence.",
            pace.as_millis()
        );
        let request = InferRequest {
            feature: FEATURE.to_owned(),
            input: Some(Input::Prompt(text.clone())),
            ..Default::default()
        };
        Self {
            grpc: framed(&request.encode_to_vec()),
            whole: http(&text, false),
            streamed: http(&text, true),
        }
    }
}

/// Builds the body of a chat request as a client of the model server sends it.
pub(crate) fn chat(text: &str, is_streamed: bool) -> Vec<u8> {
    let body = json!({
        "model": "bench", "stream": is_streamed, "messages": [{"role": "user", "content": text}],
    });
    body.to_string().into_bytes()
}

/// Parses a request: whether it asks for a stream, and the pace.
pub(crate) fn asked(body: &[u8]) -> Result<(bool, Duration)> {
    let is_streamed = position(body, b"\"stream\":true").is_some();
    let mark = position(body, PACE_MARK.as_bytes()).context("the question has no pace")?;
    let begin = mark + PACE_MARK.len();
    let digits = body.get(begin..begin + PACE_DIGITS).context("the pace is truncated")?;
    Ok((is_streamed, Duration::from_millis(str::from_utf8(digits)?.parse()?)))
}

/// Returns the time that a token contains: nanoseconds of the machine's monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Returns the times in a piece of an answer, which may have several tokens.
pub(crate) fn stamps(text: &[u8]) -> impl Iterator<Item = Result<u64>> {
    text.chunks(TOKEN_BYTES)
        .map(|token| Ok(u64::from_str_radix(str::from_utf8(token)?, 16)?))
}

/// Returns the position of `what` in `bytes`.
pub(crate) fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn http(text: &str, is_streamed: bool) -> Bytes {
    let body = chat(text, is_streamed);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_server_reads_mode_and_pace_of_a_question() {
        let question = Question::paced(Duration::from_millis(10));
        assert_eq!(asked(&question.streamed).unwrap(), (true, Duration::from_millis(10)));
        assert_eq!(asked(&question.whole).unwrap(), (false, Duration::from_millis(10)));
        asked(b"{}").unwrap_err();
    }

    #[test]
    fn a_piece_of_two_tokens_has_two_times() {
        let text = format!("{:016x}{:016x}", 1, u64::MAX);
        let times: Vec<u64> = stamps(text.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(times, [1, u64::MAX]);
    }
}
