//! Decodes answers, streamed or whole.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{AnswerDelta, DialectError, Event, FinishReason, ToolCallDelta, Whole},
    REDACTED, WireUsage, finish, reported,
};
use crate::prompt::{Signature, Text, Thought, ToolCall};

/// Maximum number of tool calls in an answer. No real answer has more, so a larger number counts as malformed.
const CALLS_MAX: i32 = 1024;
/// Maximum number of blocks that are open at the same time. No real answer has more.
const OPEN_MAX: usize = 1024;

/// Decodes the data of one stream, event by event.
#[derive(Debug, Default)]
pub struct Decoder {
    usage: WireUsage,
    /// The open blocks that need state, by the server's index.
    open: HashMap<i64, Open>,
    /// Number of tool calls so far.
    calls: i32,
}

/// An open block whose pieces cannot simply be passed on.
#[derive(Debug)]
enum Open {
    /// A thought. Its signature is collected and passed on in one piece.
    Thought { signature: Text },
    /// A tool call, by the index that the router assigns.
    Call { index: i32, has_arguments: bool },
}

impl Decoder {
    /// Decodes one `data` of the stream into events, in order. Data without content gives no events.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which contains no text of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        // The API does not send this, but gateways in front of it do.
        if data.trim_ascii() == "[DONE]" {
            return Ok(vec![Event::Done]);
        }
        let wire: WireEvent<'_> = serde_json::from_str(data).map_err(|_malformed| DialectError::Malformed)?;
        let kind = wire.r#type.as_deref();
        if wire.error.is_some() || kind == Some("error") {
            return Err(reported(data, wire.error.as_ref()));
        }
        let index = wire.index.unwrap_or(0);
        let mut events = Vec::new();
        match kind.ok_or(DialectError::Malformed)? {
            "message_start" => {
                let message = wire.message.unwrap_or_default();
                self.usage.update(message.usage.unwrap_or_default());
            }
            "content_block_start" => {
                let block = wire.content_block.ok_or(DialectError::Malformed)?;
                self.begin(index, block, &mut events)?;
            }
            "content_block_delta" => {
                let piece = wire.delta.ok_or(DialectError::Malformed)?;
                self.piece(index, piece, &mut events);
            }
            "content_block_stop" => self.end(index, &mut events),
            "message_delta" => {
                // The final number of output tokens comes only now; `message_start` contains a first count.
                if let Some(usage) = wire.usage {
                    self.usage.update(usage);
                    events.push(Event::Usage(self.usage.into()));
                }
                let reason = wire.delta.and_then(|delta| delta.stop_reason);
                events.extend(reason.map(|reason| Event::Finish(finish(&reason))));
            }
            "message_stop" => events.push(Event::Done),
            // Pings, and event types that this version does not know.
            _ => {}
        }
        Ok(events)
    }

    fn begin(&mut self, index: i64, block: Block<'_>, events: &mut Vec<Event>) -> Result<(), DialectError> {
        if self.open.len() == OPEN_MAX {
            return Err(DialectError::Malformed);
        }
        match &*block.r#type {
            "text" => events.extend(text(block.text)),
            "thinking" => {
                events.extend(reasoning(block.thinking));
                let signature = block.signature.unwrap_or_default().into();
                self.open.insert(index, Open::Thought { signature });
            }
            "redacted_thinking" => events.extend(redacted(block.data).map(signed)),
            "tool_use" => {
                if self.calls == CALLS_MAX {
                    return Err(DialectError::Malformed);
                }
                let arguments = block.input.map_or("", RawValue::get);
                // An empty object is the usual placeholder for the pieces that follow.
                let arguments = if is_empty_object(arguments) { "" } else { arguments };
                let call = Open::Call {
                    index: self.calls,
                    has_arguments: !arguments.is_empty(),
                };
                self.open.insert(index, call);
                events.push(Event::Delta(AnswerDelta::ToolCall(ToolCallDelta {
                    index: self.calls,
                    id: block.id.unwrap_or_default(),
                    name: block.name.unwrap_or_default(),
                    arguments: arguments.to_owned().into(),
                })));
                self.calls += 1;
            }
            // Blocks of the API's own tools, which the caller did not ask for.
            _ => {}
        }
        Ok(())
    }

    fn piece(&mut self, index: i64, piece: Piece<'_>, events: &mut Vec<Event>) {
        match (piece.r#type.as_deref(), self.open.get_mut(&index)) {
            (Some("text_delta"), _) => events.extend(text(piece.text)),
            (Some("thinking_delta"), _) => events.extend(reasoning(piece.thinking)),
            (Some("signature_delta"), Some(Open::Thought { signature })) => {
                signature.append(&piece.signature.unwrap_or_default().into());
            }
            (Some("input_json_delta"), Some(Open::Call { index, has_arguments })) => {
                let json = piece.partial_json.filter(|json| !json.is_empty());
                *has_arguments |= json.is_some();
                events.extend(json.map(|json| more(*index, json)));
            }
            _ => {}
        }
    }

    fn end(&mut self, index: i64, events: &mut Vec<Event>) {
        match self.open.remove(&index) {
            Some(Open::Thought { signature }) => {
                events.extend(Signature::of(signature.into_string().into_bytes()).map(signed));
            }
            // Callers parse arguments as JSON, so a call without arguments gets an empty object.
            Some(Open::Call {
                index,
                has_arguments: false,
            }) => events.push(more(index, "{}".to_owned())),
            Some(Open::Call { .. }) | None => {}
        }
    }
}

fn text(text: Option<String>) -> Option<Event> {
    Some(Event::Delta(AnswerDelta::Text(said(text)?)))
}

fn reasoning(text: Option<String>) -> Option<Event> {
    Some(Event::Delta(AnswerDelta::Reasoning(said(text)?)))
}

fn said(text: Option<String>) -> Option<Text> {
    text.filter(|text| !text.is_empty()).map(Text::from)
}

fn signed(signature: Signature) -> Event {
    Event::Delta(AnswerDelta::Signature(signature))
}

/// Returns the signature that carries a redacted thought, whose text is not revealed.
fn redacted(data: Option<String>) -> Option<Signature> {
    let data = data.filter(|data| !data.is_empty())?;
    Signature::of(format!("{REDACTED}{data}").into_bytes())
}

fn more(index: i32, json: String) -> Event {
    Event::Delta(AnswerDelta::ToolCall(ToolCallDelta {
        index,
        id: String::new(),
        name: String::new(),
        arguments: json.into(),
    }))
}

fn is_empty_object(json: &str) -> bool {
    let inside = json.strip_prefix('{').and_then(|json| json.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// Decodes a complete answer.
///
/// # Errors
///
/// [`DialectError`], which contains no text of the body.
pub fn whole(body: &str) -> Result<Whole, DialectError> {
    let answer: WireAnswer<'_> = serde_json::from_str(body).map_err(|_malformed| DialectError::Malformed)?;
    if answer.error.is_some() || answer.r#type.as_deref() == Some("error") {
        return Err(reported(body, answer.error.as_ref()));
    }
    let mut thoughts = Vec::new();
    let mut all = Text::default();
    let mut tool_calls = Vec::new();
    for block in answer.content.ok_or(DialectError::Malformed)? {
        match &*block.r#type {
            "text" => all.append(&block.text.unwrap_or_default().into()),
            "thinking" => thoughts.push(Thought {
                text: block.thinking.unwrap_or_default().into(),
                signature: block.signature.and_then(|text| Signature::of(text.into_bytes())),
            }),
            "redacted_thinking" => thoughts.push(Thought {
                text: Text::default(),
                signature: redacted(block.data),
            }),
            "tool_use" => tool_calls.push(ToolCall {
                id: block.id.unwrap_or_default(),
                name: block.name.unwrap_or_default(),
                arguments: block.input.map_or("{}", RawValue::get).to_owned().into(),
            }),
            _ => {}
        }
    }
    thoughts.retain(|thought| !thought.text.is_empty() || thought.signature.is_some());
    Ok(Whole {
        thoughts,
        text: all,
        tool_calls,
        finish: answer.stop_reason.as_deref().map_or(FinishReason::Other, finish),
        usage: answer.usage.map(Into::into),
    })
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    index: Option<i64>,
    message: Option<Begun>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    delta: Option<Piece<'a>>,
    usage: Option<WireUsage>,
    error: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct Begun {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireAnswer<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<Vec<Block<'a>>>,
    stop_reason: Option<String>,
    usage: Option<WireUsage>,
    error: Option<serde_json::Value>,
}

/// A content block of any kind. Each kind has only some of the fields.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    data: Option<String>,
    id: Option<String>,
    name: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// A piece of a content block, or of the message itself.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
}
