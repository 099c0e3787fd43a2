//! What all dialects of model servers have in common: the events of an answer, and why there is none.
//!
//! A dialect is a pure encoder and a pure incremental decoder; neither knows HTTP connections. Which one is spoken is
//! decided by the model's platform, here and nowhere else.

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
    /// A piece of the answer, not empty.
    Delta(AnswerDelta),
    /// What the answer has cost so far; the last one counts.
    Usage(Usage),
    /// Why the answer ended.
    Finish(FinishReason),
    /// Nothing follows.
    Done,
    /// Nothing for the caller, but that the server is at work.
    Alive,
}

/// A piece of an answer, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerDelta {
    /// Of its text.
    Text(Text),
    /// Of what the model thinks before it answers.
    Reasoning(Text),
    /// Signs the reasoning before it; comes whole.
    Signature(Signature),
    /// Of a call that the model asks for.
    ToolCall(ToolCallDelta),
}

/// A piece of a call that the model asks for. Id and name come with the call's first piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Tells the calls of one answer apart, from 0.
    pub index: i32,
    /// The call's id. Empty: told before.
    pub id: String,
    /// The tool's name. Empty: told before.
    pub name: String,
    /// The next piece of the arguments.
    pub arguments: Text,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// What the model thought before it answered.
    pub thoughts: Vec<Thought>,
    /// Its text.
    pub text: Text,
    /// The calls that it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: FinishReason,
    /// What it cost. `None`: the server told nothing.
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done, or a stop text was reached.
    Stop,
    /// The limit of tokens was reached.
    Length,
    /// The model asks for tools to be called.
    ToolCalls,
    /// The server's content filter ended it.
    ContentFilter,
    /// Anything else that the server said.
    Other,
}

/// Tokens, as the server counted them. `None`: not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the input.
    pub input: Option<i32>,
    /// Of the answer.
    pub output: Option<i32>,
    /// Of the input: what the server had cached.
    pub cached_input: Option<i32>,
    /// Of the answer: what was spent on reasoning.
    pub reasoning: Option<i32>,
}

/// Why an answer, or an event of one, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// It is not spelled as the dialect has it.
    #[error("the answer is malformed")]
    Malformed,
    /// It is not UTF-8.
    #[error("the answer is not UTF-8")]
    InvalidUtf8,
    /// It is an error of the server, told within an answer that had begun well.
    #[error("the server reports an error in its answer")]
    Reported {
        /// The HTTP status that would have said the same, if one was told.
        status: Option<u16>,
        /// What its text says, for a status that blames the request.
        rejection: Rejection,
    },
}

/// Why a prompt was not put into words.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The platform cannot take it.
    #[error(transparent)]
    NotSupported(#[from] InputNotSupported),
    /// What the serializer says; for the types of the dialects it never does.
    #[error("write the call as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes the call of a prompt for a server of this platform. `family` is the machine name of the model's family.
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

/// Reads a whole answer of a server of this platform.
///
/// # Errors
///
/// [`DialectError`], which repeats nothing of the body.
pub fn whole(platform: &Platform, body: &[u8]) -> Result<Whole, DialectError> {
    let body = str::from_utf8(body).map_err(|_invalid| DialectError::InvalidUtf8)?;
    match platform {
        Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => openai::whole(body),
        Platform::Anthropic => anthropic::whole(body),
    }
}

/// Reads the data of one stream, event by event.
#[derive(Debug)]
pub enum Decoder {
    /// Of OpenAI-compatible servers, Azure OpenAI among them.
    OpenAi(openai::Decoder),
    /// Of Anthropic Messages.
    Anthropic(anthropic::Decoder),
}

impl Decoder {
    /// A decoder at the beginning of an answer of a server of this platform.
    #[must_use]
    pub fn of(platform: &Platform) -> Self {
        match platform {
            Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => Self::OpenAi(openai::Decoder::default()),
            Platform::Anthropic => Self::Anthropic(anthropic::Decoder::default()),
        }
    }

    /// The events of one `data` of the stream, in order; none for data that says nothing.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which repeats nothing of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        match self {
            Self::OpenAi(decoder) => decoder.decode(data),
            Self::Anthropic(decoder) => decoder.decode(data),
        }
    }
}

/// A count of tokens, as far as it makes sense.
fn count(tokens: Option<i64>) -> Option<i32> {
    let tokens = tokens.filter(|&tokens| tokens >= 0)?;
    Some(i32::try_from(tokens).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests;
