//! The types of an inference request.

use super::text::{JsonObject, Signature, Text};

/// A validated inference request for a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The feature, as named by the caller.
    pub feature: String,
    /// The input to answer.
    pub input: Input,
    /// Functions that the model may request to call.
    pub tools: Tools,
    /// The required format of the answer. `None`: plain text.
    pub response_format: Option<ResponseFormat>,
    /// Options of the answer.
    pub options: Options,
    /// The key that keeps the calls of one conversation together. `None`: the caller set none.
    pub affinity_key: Option<Text>,
}

/// The input to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A conversation, oldest message first.
    Chat(Vec<Message>),
    /// Code between a prefix and a suffix.
    Infill(Infill),
    /// Plain text.
    Prompt(Text),
}

impl Input {
    /// Returns the field of the request that contains this kind of input.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat.messages",
            Self::Infill(_) => "infill.prefix",
            Self::Prompt(_) => "prompt",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Instructions for the model.
    System(Text),
    /// A message of the user.
    User(Text),
    /// An earlier answer of the model.
    Assistant(Turn),
    /// The result of one tool call.
    Tool(ToolResult),
}

/// An earlier answer of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// The model's reasoning before the answer.
    pub thoughts: Vec<Thought>,
    /// The text of the answer.
    pub text: Text,
    /// The tool calls that the model requested.
    pub tool_calls: Vec<ToolCall>,
}

/// A piece of a model's reasoning before its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// The text. Empty if the server does not reveal it and sends only the signature.
    pub text: Text,
    /// The signature that the server requires together with the thought. `None`: the server signs no thoughts.
    pub signature: Option<Signature>,
}

/// Creates a thought without a signature.
impl From<Text> for Thought {
    fn from(text: Text) -> Self {
        Self { text, signature: None }
    }
}

/// A tool call that the model requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Distinguishes the call from the other calls of the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as JSON, as the model wrote it. May be invalid.
    pub arguments: Text,
}

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The id of the tool call.
    pub tool_call_id: String,
    /// The output of the tool.
    pub content: Text,
    /// Whether the call failed.
    pub is_error: bool,
}

/// Code between a prefix and a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Infill {
    /// The code before the cursor.
    pub prefix: Text,
    /// The code after the cursor.
    pub suffix: Text,
    /// Name of the file. Empty: not given.
    pub file_name: Text,
    /// Language of the file. Empty: not given.
    pub language: Text,
    /// What to write. Empty: the code that is missing at the cursor.
    pub instruction: Text,
    /// Snippets of other files.
    pub context: Vec<Snippet>,
}

/// A snippet of another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Name of the file.
    pub name: Text,
    /// The code of the snippet.
    pub content: Text,
}

/// Functions that the model may request to call. If `list` is empty, the other fields have no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tools {
    /// The functions. No name occurs twice.
    pub list: Vec<Tool>,
    /// Whether the model must call a function, and which.
    pub choice: ToolChoice,
    /// Whether the model may request several calls at once. `None`: the server decides.
    pub parallel: Option<bool>,
}

/// A function that the model may request to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// A description of the function for the model.
    pub description: Text,
    /// JSON Schema of the arguments. `None`: the function has no arguments.
    pub parameters: Option<JsonObject>,
    /// Whether the arguments must match the schema exactly. `None`: the server decides.
    pub strict: Option<bool>,
}

/// Whether the model must call a tool, and which.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// The model calls no tool.
    None,
    /// The model calls at least one tool.
    Required,
    /// The model calls this tool.
    Only(String),
}

/// The format of an answer that is not plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseFormat {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema's name.
        name: String,
        /// The schema.
        schema: JsonObject,
        /// Whether the answer must match the schema exactly. `None`: the server decides.
        strict: Option<bool>,
    },
}

/// Options of the answer. Options that are `None` or empty are left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Maximum number of tokens of the answer.
    pub max_output_tokens: Option<i32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, above 0, up to 1.
    pub top_p: Option<f64>,
    /// Stop texts, at which the answer ends.
    pub stop: Vec<Text>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// Lowers the chance of tokens that have appeared, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Lowers the chance of tokens by how often they have appeared, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Samples only from this many of the most likely tokens.
    pub top_k: Option<i32>,
    /// How much a reasoning model thinks before it answers.
    pub reasoning_effort: Option<ReasoningEffort>,
}

/// How much a reasoning model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// A little.
    Low,
    /// A medium amount.
    Medium,
    /// A lot.
    High,
}
