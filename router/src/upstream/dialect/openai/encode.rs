//! Encodes a prompt as the JSON body of a request.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use switchboard::resource::model::Platform;

use crate::prompt::{Form, Message, Options, Prompt, ReasoningEffort, ResponseFormat, Text, Tool, ToolChoice};

const CHAT_PATH: &str = "/v1/chat/completions";
const COMPLETIONS_PATH: &str = "/v1/completions";

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    form: WireForm<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<WireChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<WireFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireForm<'a> {
    Chat {
        messages: Vec<WireMessage<'a>>,
    },
    Completion {
        prompt: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        suffix: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireChoice<'a> {
    Mode(&'static str),
    Only {
        r#type: &'static str,
        function: NamedFunction<'a>,
    },
}

#[derive(Serialize)]
struct NamedFunction<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: NamedSchema<'a> },
}

#[derive(Serialize)]
struct NamedSchema<'a> {
    name: &'a str,
    schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Encodes a prompt: returns the path, and all JSON members except the model's name and the reply shape.
///
/// `family` is the machine name of the model's family, `platform` one of those that use this dialect.
///
/// # Errors
///
/// The error of the serializer, which never fails for these types.
pub fn encode(
    prompt: &Prompt<'_>,
    family: &str,
    platform: &Platform,
) -> Result<(&'static str, Vec<u8>), serde_json::Error> {
    let Options {
        max_output_tokens,
        temperature,
        top_p,
        ref stop,
        seed,
        presence_penalty,
        frequency_penalty,
        top_k,
        reasoning_effort,
    } = prompt.options;
    let (path, form, is_chat) = match &prompt.form {
        Form::Chat(messages) => {
            let messages = messages.iter().map(message).collect();
            (CHAT_PATH, WireForm::Chat { messages }, true)
        }
        Form::Completion { prompt, suffix } => {
            let form = WireForm::Completion {
                prompt: prompt.expose(),
                suffix: suffix.map(Text::expose),
            };
            (COMPLETIONS_PATH, form, false)
        }
    };
    let (max_tokens, max_completion_tokens) = if family == "gpt" {
        (None, max_output_tokens)
    } else {
        (max_output_tokens, None)
    };
    let has_tools = !prompt.tools.list.is_empty();
    let json = serde_json::to_vec(&Body {
        form,
        tools: prompt.tools.list.iter().map(tool).collect(),
        tool_choice: has_tools.then(|| choice(&prompt.tools.choice)).flatten(),
        parallel_tool_calls: prompt.tools.parallel.filter(|_| has_tools),
        response_format: prompt.response_format.map(response_format),
        max_tokens,
        max_completion_tokens,
        temperature,
        top_p,
        // Not part of OpenAI's API but an extension of other servers. Azure rejects it.
        top_k: top_k.filter(|_| *platform == Platform::OpenAiCompatible),
        seed,
        presence_penalty,
        frequency_penalty,
        // A completion continues the given text, so there is no room for reasoning.
        reasoning_effort: reasoning_effort.filter(|_| is_chat).map(effort),
        stop: stop.iter().map(Text::expose).collect(),
    })?;
    Ok((path, json))
}

fn message(message: &Message) -> WireMessage<'_> {
    match message {
        Message::System(text) => said("system", text),
        Message::User(text) => said("user", text),
        Message::Assistant(turn) => WireMessage {
            role: "assistant",
            // Next to tool calls, servers expect `null` rather than an empty text.
            content: (!turn.text.is_empty() || turn.tool_calls.is_empty()).then(|| Cow::Borrowed(turn.text.expose())),
            tool_calls: turn
                .tool_calls
                .iter()
                .map(|call| WireCall {
                    id: &call.id,
                    r#type: "function",
                    function: CalledFunction {
                        name: &call.name,
                        arguments: call.arguments.expose(),
                    },
                })
                .collect(),
            tool_call_id: None,
        },
        Message::Tool(result) => WireMessage {
            role: "tool",
            content: Some(if result.is_error {
                // The dialect has no field for a failed call, but the model should know.
                Cow::Owned(format!("The call failed:\n{}", result.content.expose()))
            } else {
                Cow::Borrowed(result.content.expose())
            }),
            tool_calls: Vec::new(),
            tool_call_id: Some(&result.tool_call_id),
        },
    }
}

fn said<'a>(role: &'static str, text: &'a Text) -> WireMessage<'a> {
    WireMessage {
        role,
        content: Some(Cow::Borrowed(text.expose())),
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

fn tool(tool: &Tool) -> WireTool<'_> {
    WireTool {
        r#type: "function",
        function: Function {
            name: &tool.name,
            description: tool.description.expose(),
            parameters: tool.parameters.as_ref().map(|schema| schema.expose()),
            strict: tool.strict,
        },
    }
}

/// Returns the tool choice. `None`: the default of the servers.
fn choice(choice: &ToolChoice) -> Option<WireChoice<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(WireChoice::Mode("none")),
        ToolChoice::Required => Some(WireChoice::Mode("required")),
        ToolChoice::Only(name) => Some(WireChoice::Only {
            r#type: "function",
            function: NamedFunction { name },
        }),
    }
}

fn response_format(format: &ResponseFormat) -> WireFormat<'_> {
    match format {
        ResponseFormat::JsonObject => WireFormat::JsonObject,
        ResponseFormat::JsonSchema { name, schema, strict } => WireFormat::JsonSchema {
            json_schema: NamedSchema {
                name,
                schema: schema.expose(),
                strict: *strict,
            },
        },
    }
}

const fn effort(effort: ReasoningEffort) -> &'static str {
    match effort {
        ReasoningEffort::None => "none",
        ReasoningEffort::Low => "low",
        ReasoningEffort::Medium => "medium",
        ReasoningEffort::High => "high",
    }
}
