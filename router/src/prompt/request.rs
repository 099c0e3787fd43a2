//! One call of a feature, as its caller means it.

use super::text::{JsonObject, Signature, Text};

/// One call of a feature, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The feature, as the caller named it.
    pub feature: String,
    /// What to answer.
    pub input: Input,
    /// Functions that the model may ask to be called.
    pub tools: Tools,
    /// What form the answer has. `None`: text.
    pub response_format: Option<ResponseFormat>,
    /// How to answer.
    pub options: Options,
    /// What keeps the calls of one conversation together. `None`: the caller gives nothing.
    pub affinity_key: Option<Text>,
}

/// What to answer.
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
    /// The field of a request that holds this kind of input.
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
    /// Instructions to the model.
    System(Text),
    /// Who asks.
    User(Text),
    /// The model.
    Assistant(Turn),
    /// What one tool gave.
    Tool(ToolResult),
}

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// What it thought before.
    pub thoughts: Vec<Thought>,
    /// Its text.
    pub text: Text,
    /// The calls that it asked for.
    pub tool_calls: Vec<ToolCall>,
}

/// What a model thought before it answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thought {
    /// The thought. Empty: the server keeps it to itself and gives the signature alone.
    pub text: Text,
    /// What the server wants to have back with it. `None`: it signs nothing.
    pub signature: Option<Signature>,
}

/// A thought that nobody signed.
impl From<Text> for Thought {
    fn from(text: Text) -> Self {
        Self { text, signature: None }
    }
}

/// A call that the model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Tells it apart from the other calls of the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON as the model wrote it, valid or not.
    pub arguments: Text,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The id of the call.
    pub tool_call_id: String,
    /// The result.
    pub content: Text,
    /// Whether the call failed.
    pub is_error: bool,
}

/// Code between a prefix and a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Infill {
    /// The code before the cursor.
    pub prefix: Text,
    /// The code behind the cursor.
    pub suffix: Text,
    /// Name of the file. Empty: not told.
    pub file_name: Text,
    /// Language of the file. Empty: not told.
    pub language: Text,
    /// What to write. Empty: what is missing at the cursor.
    pub instruction: Text,
    /// Pieces of other files.
    pub context: Vec<Snippet>,
}

/// A piece of another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Name of the file.
    pub name: Text,
    /// The piece.
    pub content: Text,
}

/// Functions that the model may ask to be called. Without any the rest has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tools {
    /// The functions, each name once.
    pub list: Vec<Tool>,
    /// Whether and which of them are called.
    pub choice: ToolChoice,
    /// Whether several calls may be asked for at once. `None`: the server decides.
    pub parallel: Option<bool>,
}

/// A function that the model may ask to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Text,
    /// JSON Schema of its arguments. `None`: it takes none.
    pub parameters: Option<JsonObject>,
    /// Whether the arguments must follow the schema to the letter.
    pub strict: Option<bool>,
}

/// Whether and which tools are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None is called.
    None,
    /// One at least is called.
    Required,
    /// This one is called.
    Only(String),
}

/// What form an answer has, other than text.
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
        /// Whether it must be followed to the letter.
        strict: Option<bool>,
    },
}

/// How to answer. What is `None` or empty is left to the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// The most tokens that the answer may have.
    pub max_output_tokens: Option<i32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, above 0, up to 1.
    pub top_p: Option<f64>,
    /// Texts at which the answer ends.
    pub stop: Vec<Text>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// Lowers the chance of tokens that have appeared, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Lowers the chance of tokens by how often they have appeared, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Samples from this many of the likeliest tokens.
    pub top_k: Option<i32>,
    /// How much a reasoning model thinks before it answers.
    pub reasoning_effort: Option<ReasoningEffort>,
}

/// How much a reasoning model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}
