//! What all dialects of model servers have in common: the events of an answer, and why there is none.
//!
//! A dialect is a pure encoder and a pure incremental decoder; neither knows HTTP connections.

pub mod openai;

use crate::prompt::{Text, ToolCall};

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of the answer, not empty.
    Delta(Delta),
    /// What the answer has cost so far; the last one counts.
    Usage(Usage),
    /// Why the answer ended.
    Finish(FinishReason),
    /// Nothing follows.
    Done,
}

/// A piece of an answer, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// Of its text.
    Text(Text),
    /// Of what the model thinks before it answers.
    Reasoning(Text),
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
    pub reasoning: Text,
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

/// What a server's refusal is about, as far as its text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Input and answer together do not fit the model's context.
    pub is_too_long: bool,
    /// The part of the request that is blamed.
    pub blamed: Blamed,
    /// It names our asking for usage, which old servers do not know.
    pub names_usage: bool,
}

/// The part of a request that a server blames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// The messages or the text.
    Input,
    /// The limit of tokens of the answer.
    MaxOutputTokens,
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
