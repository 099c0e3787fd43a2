//! Encodes a prompt as the JSON body of a request.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::REDACTED;
use crate::{
    prompt::{
        Form, InputNotSupported, Message, Options, Prompt, ReasoningEffort, Text, Thought, Tool, ToolChoice, Tools,
        Turn,
    },
    upstream::dialect::EncodeError,
};

const PATH: &str = "/v1/messages";
/// Limit on the answer's tokens if neither the caller nor the model nor the family sets one. The API requires a limit.
const MAX_TOKENS: i32 = 4096;

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "String::is_empty")]
    system: String,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<WireChoice<'a>>,
    max_tokens: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
}

#[derive(Serialize)]
struct Thinking {
    r#type: &'static str,
}

#[derive(Serialize)]
struct OutputConfig {
    effort: &'static str,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    RedactedThinking {
        data: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
struct WireTool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: Cow<'a, RawValue>,
}

#[derive(Serialize)]
struct WireChoice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

/// Encodes a prompt: returns the path, and all JSON members except the model's name and the reply shape.
///
/// # Errors
///
/// [`EncodeError::NotSupported`] for a response format and for a text to complete, which the API does not support.
pub fn encode(prompt: &Prompt<'_>) -> Result<(&'static str, Vec<u8>), EncodeError> {
    let platform = "Anthropic";
    let Form::Chat(chat) = &prompt.form else {
        return Err(InputNotSupported::CompletionOnPlatform { platform }.into());
    };
    if prompt.response_format.is_some() {
        return Err(InputNotSupported::ResponseFormatOnPlatform { platform }.into());
    }
    let (system, messages) = conversation(chat)?;
    // Only the caller's own sampling options are sent: the newest models reject any temperature, so a family's default
    // must not be sent either.
    let Options {
        temperature,
        top_p,
        top_k,
        reasoning_effort,
        ..
    } = *prompt.asked;
    let is_forced = matches!(prompt.tools.choice, ToolChoice::Required | ToolChoice::Only(_));
    // The API does not allow thinking together with a forced tool call, nor sampling options together with thinking.
    let effort = reasoning_effort.and_then(effort).filter(|_| !is_forced);
    let is_thinking = effort.is_some();
    let json = serde_json::to_vec(&Body {
        system,
        messages,
        tools: prompt.tools.list.iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: choice(prompt.tools),
        max_tokens: prompt.options.max_output_tokens.unwrap_or(MAX_TOKENS),
        // Other APIs allow up to 2.
        temperature: temperature.filter(|_| !is_thinking).map(|value| value.min(1.0)),
        // Newer models reject both together and recommend to use the temperature.
        top_p: top_p.filter(|_| !is_thinking && temperature.is_none()),
        top_k: top_k.filter(|_| !is_thinking),
        stop_sequences: prompt.options.stop.iter().filter_map(words).collect(),
        thinking: is_thinking.then_some(Thinking { r#type: "adaptive" }),
        output_config: effort.map(|effort| OutputConfig { effort }),
    })?;
    Ok((PATH, json))
}

/// Returns all system texts as one, and the other messages merged so that roles alternate.
fn conversation(chat: &[Message]) -> Result<(String, Vec<WireMessage<'_>>), serde_json::Error> {
    let mut system = String::new();
    let mut messages: Vec<WireMessage<'_>> = Vec::new();
    for message in chat {
        let (role, content) = match message {
            Message::System(text) => {
                if let Some(text) = words(text) {
                    if !system.is_empty() {
                        system.push_str("\n\n");
                    }
                    system.push_str(text);
                }
                continue;
            }
            Message::User(text) => ("user", said(text).into_iter().collect()),
            Message::Assistant(turn) => ("assistant", blocks(turn)?),
            Message::Tool(result) => {
                let result = Block::ToolResult {
                    tool_use_id: &result.tool_call_id,
                    content: result.content.expose(),
                    is_error: result.is_error,
                };
                ("user", vec![result])
            }
        };
        match messages.last_mut().filter(|last| last.role == role) {
            Some(last) => last.content.extend(content),
            None if content.is_empty() => {}
            None => messages.push(WireMessage { role, content }),
        }
    }
    Ok((system, messages))
}

/// Returns the text unless it is blank: the API rejects texts that consist of white space only.
fn words(text: &Text) -> Option<&str> {
    Some(text.expose()).filter(|text| !text.trim_ascii().is_empty())
}

fn said(text: &Text) -> Option<Block<'_>> {
    words(text).map(|text| Block::Text { text })
}

fn blocks(turn: &Turn) -> Result<Vec<Block<'_>>, serde_json::Error> {
    let mut blocks: Vec<Block<'_>> = turn.thoughts.iter().filter_map(thought).collect();
    blocks.extend(said(&turn.text));
    for call in &turn.tool_calls {
        blocks.push(Block::ToolUse {
            id: &call.id,
            name: &call.name,
            input: input(call.arguments.expose())?,
        });
    }
    Ok(blocks)
}

/// Returns the block for a thought. `None`: the thought comes from another server's model, and this API would reject
/// it.
fn thought(thought: &Thought) -> Option<Block<'_>> {
    let signature = str::from_utf8(thought.signature.as_ref()?.expose()).ok()?;
    Some(match signature.strip_prefix(REDACTED) {
        Some(data) => Block::RedactedThinking { data },
        None => Block::Thinking {
            thinking: thought.text.expose(),
            signature,
        },
    })
}

/// Returns tool arguments as a JSON object, the only form that the API accepts. Arguments that the model wrote in
/// another form are wrapped in an object, so that the model sees its own text again.
fn input(arguments: &str) -> Result<Cow<'_, RawValue>, serde_json::Error> {
    if arguments.trim_ascii().is_empty() {
        return to_raw_value(&json!({})).map(Cow::Owned);
    }
    match serde_json::from_str::<&RawValue>(arguments) {
        Ok(object) if object.get().starts_with('{') => Ok(Cow::Borrowed(object)),
        Ok(_) | Err(_) => to_raw_value(&json!({"malformed_arguments": arguments})).map(Cow::Owned),
    }
}

fn tool(tool: &Tool) -> Result<WireTool<'_>, serde_json::Error> {
    Ok(WireTool {
        name: &tool.name,
        description: tool.description.expose(),
        input_schema: match &tool.parameters {
            Some(schema) => Cow::Borrowed(schema.expose()),
            None => Cow::Owned(to_raw_value(&json!({"type": "object"}))?),
        },
    })
}

/// Returns the tool choice. `None`: the default of the API.
fn choice(tools: &Tools) -> Option<WireChoice<'_>> {
    if tools.list.is_empty() {
        return None;
    }
    let disable_parallel_tool_use = (tools.parallel == Some(false)).then_some(true);
    let (r#type, name) = match &tools.choice {
        ToolChoice::Auto => {
            disable_parallel_tool_use?;
            ("auto", None)
        }
        ToolChoice::None => {
            return Some(WireChoice {
                r#type: "none",
                name: None,
                disable_parallel_tool_use: None,
            });
        }
        ToolChoice::Required => ("any", None),
        ToolChoice::Only(name) => ("tool", Some(name.as_str())),
    };
    Some(WireChoice {
        r#type,
        name,
        disable_parallel_tool_use,
    })
}

/// Returns the effort. `None`: no effort is sent, because models do not think unless they are asked to.
const fn effort(effort: ReasoningEffort) -> Option<&'static str> {
    match effort {
        ReasoningEffort::None => None,
        ReasoningEffort::Low => Some("low"),
        ReasoningEffort::Medium => Some("medium"),
        ReasoningEffort::High => Some("high"),
    }
}
