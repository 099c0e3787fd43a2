//! What the API dialects of the model servers have in common: the events of an answer, and the errors of decoding and
//! encoding.
//!
//! A dialect is a pure encoder and a pure incremental decoder. Neither knows about HTTP connections. The model's
//! platform determines the dialect, and only this module maps one to the other.

pub mod anthropic;
mod finish;
pub(super) mod lenient;
mod oddities;
pub mod openai;
mod post;
mod rejection;

use std::borrow::Cow;

pub use self::{
    oddities::Oddities,
    post::{Post, ReplyShape},
    rejection::{Blamed, Rejection},
};
use switchboard::resource::model::Platform;

use self::lenient::{Member, Number};
use super::text::{escape, without_lone_surrogates};
use crate::prompt::{Form, InputNotSupported, Prompt, Signature, Text, Thought, ToolCall};

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of the answer. Never empty.
    Delta(AnswerDelta),
    /// The usage so far. The last one of an answer is the final count.
    Usage(Usage),
    /// Why the answer ended.
    Finish(FinishReason),
    /// The end of the stream. No event follows.
    Done,
    /// A sign that the server is still working, with no content for the caller.
    Alive,
}

/// A piece of an answer. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerDelta {
    /// A piece of the text.
    Text(Text),
    /// A piece of the reasoning that precedes the answer.
    Reasoning(Text),
    /// The signature of the preceding reasoning. It always arrives in one piece.
    Signature(Signature),
    /// A piece of a tool call that the model requests.
    ToolCall(ToolCallDelta),
}

/// A piece of a tool call that the model requests. The first piece of a call has its id, and normally its name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Distinguishes the tool calls of one answer, counted from 0.
    pub index: i32,
    /// The call's id. Empty in all pieces but the first.
    pub id: String,
    /// The tool's name. Empty in all pieces after the one that gave it.
    pub name: String,
    /// The next piece of the arguments.
    pub arguments: Text,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The model's reasoning before the answer.
    pub thoughts: Vec<Thought>,
    /// The text of the answer.
    pub text: Text,
    /// The tool calls that the model requests.
    pub tool_calls: Vec<ToolCall>,
    /// Why the answer ended.
    pub finish: FinishReason,
    /// The usage. `None`: the server reported none.
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model finished, or generated a stop text.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model requests tool calls.
    ToolCalls,
    /// The server's content filter ended the answer.
    ContentFilter,
    /// Any other reason that the server gave.
    Other,
}

/// Numbers of tokens as counted by the server. `None`: the server did not report the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the input.
    pub input: Option<i32>,
    /// Tokens of the answer.
    pub output: Option<i32>,
    /// Tokens of the input that the server had cached.
    pub cached_input: Option<i32>,
    /// Tokens of the answer that were spent on reasoning.
    pub reasoning: Option<i32>,
}

/// Why a response body or a stream event could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// The data does not follow the dialect.
    #[error("the answer is malformed")]
    Malformed,
    /// The data is not valid UTF-8.
    #[error("the answer is not valid UTF-8")]
    InvalidUtf8,
    /// The data is an error that the server reported in place of an answer or within one.
    #[error("the server reported an error in its answer")]
    Reported {
        /// The HTTP status that corresponds to the error. `None`: the error names none.
        status: Option<u16>,
        /// What the error's text is about. Used if the status blames the request.
        rejection: Rejection,
    },
}

impl DialectError {
    /// The server gave up in the middle of its answer, and says no more than that.
    pub(super) fn gave_up() -> Self {
        Self::Reported {
            status: None,
            rejection: Rejection::read(b""),
        }
    }
}

/// Why a prompt could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The platform does not support the input.
    #[error(transparent)]
    NotSupported(#[from] InputNotSupported),
    /// The serializer failed. It never does for the types of the dialects.
    #[error("could not encode the call as JSON")]
    Json(#[from] serde_json::Error),
}

/// Encodes a prompt as a request for a server of this platform. `family` is the machine name of the model's family.
///
/// # Errors
///
/// [`EncodeError`].
pub fn encode(platform: &Platform, prompt: &Prompt<'_>, family: &str) -> Result<Post, EncodeError> {
    let (path, json) = match platform {
        Platform::AzureOpenAi { .. } if matches!(prompt.form, Form::Completion { .. }) => {
            let platform = "Azure OpenAI";
            return Err(InputNotSupported::CompletionOnPlatform { platform }.into());
        }
        Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => openai::encode(prompt, family, platform)?,
        Platform::Anthropic => anthropic::encode(prompt)?,
    };
    Ok(Post::new(platform, path, json))
}

/// Decodes a complete answer from a server of this platform.
///
/// # Errors
///
/// [`DialectError`], which contains no text of the body.
pub fn whole(platform: &Platform, body: &[u8], oddities: &mut Oddities) -> Result<Whole, DialectError> {
    let text = escape(body);
    let decode = |body: &str, oddities: &mut Oddities| match platform {
        Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => openai::whole(body, oddities),
        Platform::Anthropic => anthropic::whole(body, oddities),
    };
    with_lossy_text(&text, |text| decode(text, oddities)).map_err(|error| match (error, text) {
        (DialectError::Malformed, Cow::Owned(_escaped)) => DialectError::InvalidUtf8,
        (error, _) => error,
    })
}

/// Decodes text, and if it is malformed as it is, once more with each lone surrogate replaced by U+FFFD: outside of a text
/// that is relayed, a JSON reader refuses a lone surrogate.
fn with_lossy_text<T>(text: &str, mut decode: impl FnMut(&str) -> Result<T, DialectError>) -> Result<T, DialectError> {
    match decode(text) {
        Err(DialectError::Malformed) => match without_lone_surrogates(text) {
            Some(lossy) => decode(&lossy),
            None => Err(DialectError::Malformed),
        },
        decoded => decoded,
    }
}

/// Decodes the data of one stream, event by event.
#[derive(Debug)]
pub enum Decoder {
    /// Decoder for OpenAI-compatible servers, including Azure OpenAI.
    OpenAi(openai::Decoder),
    /// Decoder for Anthropic Messages.
    Anthropic(anthropic::Decoder),
}

impl Decoder {
    /// Creates a decoder for a new answer from a server of this platform.
    #[must_use]
    pub fn of(platform: &Platform) -> Self {
        match platform {
            Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => Self::OpenAi(openai::Decoder::default()),
            Platform::Anthropic => Self::Anthropic(anthropic::Decoder::default()),
        }
    }

    /// Decodes one `data` of the stream into events, in order. Data without content gives no events.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which contains no text of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        if is_end_mark(data) {
            let mut events = self.end();
            events.push(Event::Done);
            return Ok(events);
        }
        with_lossy_text(data, |data| match self {
            Self::OpenAi(decoder) => decoder.decode(data),
            Self::Anthropic(decoder) => decoder.decode(data),
        })
    }

    /// Ends the answer's texts. Returns U+FFFD for each half of a character that nothing has completed.
    #[must_use]
    pub fn end(&mut self) -> Vec<Event> {
        match self {
            Self::OpenAi(decoder) => decoder.end(),
            Self::Anthropic(decoder) => decoder.end(),
        }
    }

    /// Returns what was unexpected so far, and was passed over. The caller empties it.
    pub const fn oddities(&mut self) -> &mut Oddities {
        match self {
            Self::OpenAi(decoder) => decoder.oddities(),
            Self::Anthropic(decoder) => decoder.oddities(),
        }
    }
}

/// Whether the data marks the end of a stream. It is OpenAI's mark; gateways in front of other servers send it too, and
/// some write it as a JSON string.
fn is_end_mark(data: &str) -> bool {
    data.trim_ascii().trim_matches('"').eq_ignore_ascii_case("[DONE]")
}

/// Converts a token count: a negative one counts as not reported, and one that is too large is limited to `i32::MAX`.
fn count(tokens: Member<Number>) -> Option<i32> {
    let tokens = tokens.given().map(|tokens| tokens.0).filter(|&tokens| tokens >= 0)?;
    Some(i32::try_from(tokens).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests;
