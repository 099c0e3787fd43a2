//! What the API dialects of the model servers have in common: the events of an answer, and the errors of decoding and
//! encoding.
//!
//! A dialect is a pure encoder and a pure incremental decoder. Neither knows about HTTP connections. The model's
//! platform determines the dialect, and only this module maps one to the other.

pub mod anthropic;
pub mod openai;
mod post;
mod rejection;

pub use self::{
    post::{Post, ReplyShape},
    rejection::{Blamed, Rejection},
};
use switchboard::resource::model::Platform;

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
pub fn whole(platform: &Platform, body: &[u8]) -> Result<Whole, DialectError> {
    let body = str::from_utf8(body).map_err(|_invalid| DialectError::InvalidUtf8)?;
    match platform {
        Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => openai::whole(body),
        Platform::Anthropic => anthropic::whole(body),
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
        match self {
            Self::OpenAi(decoder) => decoder.decode(data),
            Self::Anthropic(decoder) => decoder.decode(data),
        }
    }
}

/// Converts a token count: a negative one counts as not reported, and one that is too large is limited to `i32::MAX`.
fn count(tokens: Option<i64>) -> Option<i32> {
    let tokens = tokens.filter(|&tokens| tokens >= 0)?;
    Some(i32::try_from(tokens).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests;
