//! The dialect of OpenAI-compatible servers: `/v1/chat/completions` and `/v1/completions`, streamed.
//!
//! Pure. Our JSON is built by a serializer from known fields only; theirs is read leniently, since every server adds to it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Blamed, Delta, DialectError, Event, FinishReason, Rejection, Usage};
use crate::prompt::{Form, Message, Options, Prompt, Role, Text};

const CHAT_PATH: &str = "/v1/chat/completions";
const COMPLETIONS_PATH: &str = "/v1/completions";

/// A call as it is posted. Cheap to clone.
#[derive(Clone)]
pub struct Post {
    /// The path, beginning with `/v1`.
    pub path: &'static str,
    /// The JSON.
    pub body: Bytes,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<WireMessage<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<&'a str>,
    stream_options: StreamOptions,
    // Last, so that nothing before them can stand in for them.
    model: &'a str,
    stream: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// Writes the call of a prompt. `identifier` is the server's name of the model, `family` its family's machine name.
///
/// # Errors
///
/// What the serializer says; for these types it never does.
pub fn encode(prompt: &Prompt, identifier: &str, family: &str) -> Result<Post, serde_json::Error> {
    let Options {
        max_output_tokens,
        temperature,
        top_p,
        ref stop,
        seed,
        presence_penalty,
        frequency_penalty,
        top_k,
    } = prompt.options;
    let (path, messages, text) = match &prompt.form {
        Form::Chat(messages) => (CHAT_PATH, Some(messages.iter().map(wire_message).collect()), None),
        Form::Completion(text) => (COMPLETIONS_PATH, None, Some(text.expose())),
    };
    let (max_tokens, max_completion_tokens) = if family == "gpt" {
        (None, max_output_tokens)
    } else {
        (max_output_tokens, None)
    };
    let body = Body {
        messages,
        prompt: text,
        max_tokens,
        max_completion_tokens,
        temperature,
        top_p,
        top_k,
        seed,
        presence_penalty,
        frequency_penalty,
        stop: stop.iter().map(Text::expose).collect(),
        stream_options: StreamOptions { include_usage: true },
        model: identifier,
        stream: true,
    };
    Ok(Post {
        path,
        body: serde_json::to_vec(&body)?.into(),
    })
}

fn wire_message(message: &Message) -> WireMessage<'_> {
    WireMessage {
        role: match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        content: message.text.expose(),
    }
}

/// The events of one `data` of the stream, in order; none for a chunk that says nothing.
///
/// # Errors
///
/// [`DialectError`], which repeats nothing of the data.
pub fn decode(data: &str) -> Result<Vec<Event>, DialectError> {
    if data.trim_ascii() == "[DONE]" {
        return Ok(vec![Event::Done]);
    }
    let chunk: Chunk = serde_json::from_str(data).map_err(|_malformed| DialectError::Malformed)?;
    if chunk.error.is_some() || chunk.object.as_deref() == Some("error") {
        let code = chunk.error.as_ref().and_then(|error| error.get("code"));
        return Err(DialectError::Reported {
            status: status(code.or(chunk.code.as_ref())),
            rejection: rejection(data.as_bytes()),
        });
    }
    let mut events = Vec::new();
    for choice in chunk.choices.unwrap_or_default() {
        if choice.index.unwrap_or(0) == 0 {
            choice.events(&mut events);
        }
    }
    if let Some(usage) = chunk.usage {
        events.push(Event::Usage(usage.into()));
    }
    Ok(events)
}

#[derive(Deserialize)]
struct Chunk {
    object: Option<String>,
    code: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u64>,
    delta: Option<WireDelta>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireDelta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<i64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<i64>,
}

impl Choice {
    fn events(self, events: &mut Vec<Event>) {
        let told = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Text::from);
        let delta = self.delta.map(|delta| {
            // Servers that are changing from one name to the other send the same text under both.
            let reasoning = told(delta.reasoning_content).or_else(|| told(delta.reasoning));
            (reasoning, told(delta.content))
        });
        let (reasoning, content) = delta.unwrap_or_default();
        events.extend(reasoning.map(|text| Event::Delta(Delta::Reasoning(text))));
        events.extend(
            content
                .or_else(|| told(self.text))
                .map(|text| Event::Delta(Delta::Text(text))),
        );
        let finish = self.finish_reason.filter(|reason| !reason.is_empty());
        events.extend(finish.map(|reason| {
            Event::Finish(match reason.as_str() {
                "stop" => FinishReason::Stop,
                "length" => FinishReason::Length,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Other,
            })
        }));
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let count = |tokens: Option<i64>| {
            tokens
                .filter(|&tokens| tokens >= 0)
                .map(|tokens| i32::try_from(tokens).unwrap_or(i32::MAX))
        };
        Self {
            input: count(wire.prompt_tokens),
            output: count(wire.completion_tokens),
            cached_input: count(wire.prompt_tokens_details.and_then(|details| details.cached_tokens)),
            reasoning: count(
                wire.completion_tokens_details
                    .and_then(|details| details.reasoning_tokens),
            ),
        }
    }
}

/// The HTTP status in an error object's `code`, which is a number, a number as text, or a word.
fn status(code: Option<&serde_json::Value>) -> Option<u16> {
    let code = code?;
    let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
}

/// What the text of a refusal is about. Servers have no common code for it, so this goes by their words.
#[must_use]
pub fn rejection(body: &[u8]) -> Rejection {
    const TOO_LONG: [&str; 7] = [
        "context_length_exceeded",
        "exceed_context_size",
        "context length",
        "context size",
        "context window",
        "maximum model length",
        "max_model_len",
    ];
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    let names_limit = body.contains("max_tokens") || body.contains("max_completion_tokens");
    let is_too_long = TOO_LONG.iter().any(|words| body.contains(words));
    let blames_limit = names_limit && (!is_too_long || body.contains("too large"));
    Rejection {
        is_too_long,
        blamed: if blames_limit {
            Blamed::MaxOutputTokens
        } else {
            Blamed::Input
        },
    }
}

#[cfg(test)]
mod tests;
