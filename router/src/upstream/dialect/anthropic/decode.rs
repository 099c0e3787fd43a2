//! Decodes answers, streamed or whole.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{
    super::{
        AnswerDelta, DialectError, Event, FinishReason, Oddities, ToolCallDelta, Whole,
        finish::{Meaning, meaning},
        lenient::{List, Member, Number, Raw, Word, documents, object},
    },
    REDACTED, TokenCounts, WireUsage, reported,
};
use crate::{
    prompt::{Signature, Text, Thought, ToolCall},
    upstream::text::{LooseText, TextJoiner},
};

/// Maximum number of tool calls in an answer. No real answer has more, so a larger number counts as malformed.
const CALLS_MAX: i32 = 1024;
/// Maximum number of blocks that are open at the same time. No real answer has more.
const OPEN_MAX: usize = 1024;

/// Decodes the data of one stream, event by event.
#[derive(Debug, Default)]
pub struct Decoder {
    usage: TokenCounts,
    content: TextJoiner,
    reasoning: TextJoiner,
    /// The open blocks that need state, by the server's index.
    open: HashMap<i64, Open>,
    /// The server's index of the block that has begun last.
    latest: Option<i64>,
    /// Number of tool calls so far.
    calls: i32,
    oddities: Oddities,
}

/// An open block whose pieces cannot simply be passed on.
#[derive(Debug)]
enum Open {
    /// A thought. Its signature is collected and passed on in one piece.
    Thought { signature: Text },
    /// A tool call, by the index that the router assigns.
    Call {
        index: i32,
        has_arguments: bool,
        joiner: TextJoiner,
    },
    /// A block that is passed over with all of its pieces: of a tool that the API runs itself, or of an unknown type.
    /// Callers of the router cannot request them.
    PassedOver,
}

impl Decoder {
    /// Decodes one `data` of the stream into events, in order. Data without content gives no events.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which contains no text of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        let mut events = Vec::new();
        for event in documents::<WireEvent<'_>>(data)? {
            self.event(event, data, &mut events)?;
        }
        Ok(events)
    }

    /// Ends the texts: half a character that nothing has completed becomes U+FFFD.
    pub fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.flush(&mut events);
        events
    }

    /// What was unexpected since the caller emptied it.
    pub const fn oddities(&mut self) -> &mut Oddities {
        &mut self.oddities
    }

    fn event(&mut self, wire: Member<WireEvent<'_>>, data: &str, events: &mut Vec<Event>) -> Result<(), DialectError> {
        let Some(wire) = self.oddities.of_event(wire) else {
            return Ok(());
        };
        let kind = wire.kind();
        if wire.error.as_given().is_some() || kind == "error" {
            return Err(reported(data, wire.error.given()));
        }
        let is_begin = kind == "content_block_start";
        // An event without an index is about the block that has begun last.
        let next = self.latest.map_or(0, |latest| latest.saturating_add(1));
        let expected = if is_begin { next } else { self.latest.unwrap_or(0) };
        let index = wire.index.as_given().map_or(expected, |index| index.0);
        if is_begin {
            self.latest = Some(index);
        }
        match kind {
            "message_start" => {
                let message = wire.message.given().unwrap_or_default();
                self.usage.update(&message.usage.given().unwrap_or_default());
            }
            "content_block_start" => self.begin(index, wire.content_block.given().unwrap_or_default(), events)?,
            "content_block_delta" => self.piece(index, wire.delta.given().unwrap_or_default(), events)?,
            "content_block_stop" => self.end_block(index, events),
            "message_delta" => {
                // The numbers of the whole answer. Earlier ones are preliminary.
                if let Some(usage) = wire.usage.given() {
                    self.usage.update(&usage);
                    events.push(Event::Usage(self.usage.into()));
                }
                let reason = wire.delta.given().and_then(|delta| delta.stop_reason.given());
                if let Some(Word(word)) = reason {
                    self.flush(events);
                    events.push(Event::Finish(finish(&word, &mut self.oddities)?));
                }
            }
            "message_stop" => {
                self.flush(events);
                events.push(Event::Done);
            }
            "ping" => {}
            _ => self.oddities.events += 1,
        }
        Ok(())
    }

    fn begin(&mut self, index: i64, block: Block<'_>, events: &mut Vec<Event>) -> Result<(), DialectError> {
        if self.open.len() == OPEN_MAX {
            return Err(DialectError::Malformed);
        }
        match block.kind() {
            "text" => self.text(block.text, events),
            "thinking" => {
                self.thought(block.thinking, events);
                let signature = word(block.signature).into();
                self.open.insert(index, Open::Thought { signature });
            }
            "redacted_thinking" => events.extend(redacted(&word(block.data)).map(signed)),
            "tool_use" => {
                if self.calls == CALLS_MAX {
                    return Err(DialectError::Malformed);
                }
                let name = word(block.name);
                if name.is_empty() {
                    // A call that the caller could not make must not get lost in an answer that looks whole.
                    return Err(DialectError::Malformed);
                }
                let arguments = block.input.given().map_or("", RawValue::get);
                // An empty object stands for the pieces that follow.
                let arguments = if is_empty_object(arguments) { "" } else { arguments };
                let call = Open::Call {
                    index: self.calls,
                    has_arguments: !arguments.is_empty(),
                    joiner: TextJoiner::default(),
                };
                self.open.insert(index, call);
                events.push(Event::Delta(AnswerDelta::ToolCall(ToolCallDelta {
                    index: self.calls,
                    id: Some(word(block.id))
                        .filter(|id| !id.is_empty())
                        .unwrap_or_else(|| made_up(self.calls)),
                    name,
                    arguments: arguments.to_owned().into(),
                })));
                self.calls += 1;
            }
            _ => {
                self.open.insert(index, Open::PassedOver);
            }
        }
        Ok(())
    }

    fn piece(&mut self, index: i64, piece: Piece<'_>, events: &mut Vec<Event>) -> Result<(), DialectError> {
        match (piece.kind(), self.open.get_mut(&index)) {
            ("text_delta", _) => self.text(piece.text, events),
            ("thinking_delta", _) => self.thought(piece.thinking, events),
            ("signature_delta", Some(Open::Thought { signature })) => {
                signature.append(&word(piece.signature).into());
            }
            ("input_json_delta", open) => {
                let json = piece.partial_json.given().unwrap_or_default();
                match open {
                    Some(Open::Call {
                        index,
                        has_arguments,
                        joiner,
                    }) => {
                        let json = joiner.push(json);
                        *has_arguments |= !json.is_empty();
                        events.extend((!json.is_empty()).then(|| more(*index, json)));
                    }
                    Some(Open::PassedOver) => {}
                    // Arguments of a call that has not begun cannot reach the caller.
                    _ if !json.is_empty() => return Err(DialectError::Malformed),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_block(&mut self, index: i64, events: &mut Vec<Event>) {
        self.flush(events);
        match self.open.remove(&index) {
            Some(Open::Thought { signature }) => {
                events.extend(Signature::of(signature.into_string().into_bytes()).map(signed));
            }
            // Callers parse the arguments as JSON, so empty arguments become an empty object.
            Some(Open::Call {
                index,
                has_arguments: false,
                ..
            }) => events.push(more(index, "{}".to_owned())),
            Some(Open::Call { .. } | Open::PassedOver) | None => {}
        }
    }

    fn text(&mut self, text: Member<LooseText>, events: &mut Vec<Event>) {
        let text = self.content.push(text.given().unwrap_or_default());
        events.extend(delta_of(text, AnswerDelta::Text));
    }

    fn thought(&mut self, text: Member<LooseText>, events: &mut Vec<Event>) {
        let text = self.reasoning.push(text.given().unwrap_or_default());
        events.extend(delta_of(text, AnswerDelta::Reasoning));
    }

    fn flush(&mut self, events: &mut Vec<Event>) {
        events.extend(delta_of(self.reasoning.finish(), AnswerDelta::Reasoning));
        events.extend(delta_of(self.content.finish(), AnswerDelta::Text));
        for open in self.open.values_mut() {
            if let Open::Call { index, joiner, .. } = open {
                let json = joiner.finish();
                events.extend((!json.is_empty()).then(|| more(*index, json)));
            }
        }
    }
}

fn delta_of(text: String, kind: impl FnOnce(Text) -> AnswerDelta) -> Option<Event> {
    (!text.is_empty()).then(|| Event::Delta(kind(text.into())))
}

fn word(member: Member<Word>) -> String {
    member.given().map(|word| word.0).unwrap_or_default()
}

/// Makes up an id for gateways that give none: the tool's result must name its call.
fn made_up(index: i32) -> String {
    format!("call_{index}")
}

fn signed(signature: Signature) -> Event {
    Event::Delta(AnswerDelta::Signature(signature))
}

/// Builds the signature of a thought whose text is not revealed. All of its data is in the signature.
fn redacted(data: &str) -> Option<Signature> {
    let data = Some(data).filter(|data| !data.is_empty())?;
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

/// Reads a stop reason.
fn finish(word: &str, oddities: &mut Oddities) -> Result<FinishReason, DialectError> {
    match meaning(word, false) {
        Meaning::Finished(reason) => Ok(reason),
        Meaning::GaveUp => Err(DialectError::gave_up()),
        Meaning::Unknown => {
            oddities.unknown_finish(word);
            Ok(FinishReason::Other)
        }
    }
}

/// Decodes a complete answer.
///
/// # Errors
///
/// [`DialectError`], which contains no text of the body.
pub fn whole(body: &str, oddities: &mut Oddities) -> Result<Whole, DialectError> {
    let [answer] = <[_; 1]>::try_from(documents::<WireAnswer<'_>>(body)?).map_err(|_other| DialectError::Malformed)?;
    let answer = oddities.of_event(answer).unwrap_or_default();
    let is_error = answer.kind.as_given().is_some_and(|kind| kind.0 == "error");
    if answer.error.as_given().is_some() || is_error {
        return Err(reported(body, answer.error.given()));
    }
    let mut thoughts = Vec::new();
    let mut content = LooseText::default();
    let mut tool_calls = Vec::new();
    for block in answer.content.given().ok_or(DialectError::Malformed)?.entries {
        match block.kind() {
            "text" => content.append(&block.text.given().unwrap_or_default()),
            "thinking" => thoughts.push(Thought {
                text: block.thinking.given().unwrap_or_default().into_lossy().into(),
                signature: Signature::of(word(block.signature).into_bytes()),
            }),
            "redacted_thinking" => thoughts.push(Thought {
                text: Text::default(),
                signature: redacted(&word(block.data)),
            }),
            "tool_use" => {
                let name = word(block.name);
                if name.is_empty() {
                    return Err(DialectError::Malformed);
                }
                let index = i32::try_from(tool_calls.len()).unwrap_or(i32::MAX);
                tool_calls.push(ToolCall {
                    id: Some(word(block.id))
                        .filter(|id| !id.is_empty())
                        .unwrap_or_else(|| made_up(index)),
                    name,
                    arguments: block.input.given().map_or("{}", RawValue::get).to_owned().into(),
                });
            }
            _ => {}
        }
    }
    thoughts.retain(|thought| !thought.text.is_empty() || thought.signature.is_some());
    Ok(Whole {
        thoughts,
        text: content.into_lossy().into(),
        tool_calls,
        finish: match answer.stop_reason.given() {
            Some(Word(reason)) => finish(&reason, oddities)?,
            None => FinishReason::Other,
        },
        usage: answer.usage.given().map(|usage| {
            let mut counts = TokenCounts::default();
            counts.update(&usage);
            counts.into()
        }),
    })
}

object! {
    struct WireEvent<'de> {
        kind as "type": Word,
        index: Number,
        message: Begun<'de>,
        content_block: Block<'de>,
        delta: Piece<'de>,
        usage: WireUsage<'de>,
        error: Raw<'de>,
    }
}

impl WireEvent<'_> {
    /// The type of the event. An event without one is what its members say.
    fn kind(&self) -> &str {
        match self.kind.as_given() {
            Some(kind) => &kind.0,
            None if self.content_block.as_given().is_some() => "content_block_start",
            None if self.message.as_given().is_some() => "message_start",
            None => match self.delta.as_given() {
                Some(delta) if delta.stop_reason.as_given().is_some() => "message_delta",
                Some(_) => "content_block_delta",
                None => "",
            },
        }
    }
}

object! {
    struct Begun<'de> {
        usage: WireUsage<'de>,
    }
}

object! {
    struct WireAnswer<'de> {
        kind as "type": Word,
        content: List<Block<'de>>,
        stop_reason: Word,
        usage: WireUsage<'de>,
        error: Raw<'de>,
    }
}

object! {
    /// A block of any kind. Each kind has only some of the members.
    struct Block<'de> {
        kind as "type": Word,
        text: LooseText,
        thinking: LooseText,
        signature: Word,
        data: Word,
        id: Word,
        name: Word,
        input: Raw<'de>,
    }
}

impl Block<'_> {
    /// The type of the block. A block without one is what its members say.
    fn kind(&self) -> &str {
        match self.kind.as_given() {
            Some(kind) => &kind.0,
            None if self.text.as_given().is_some() => "text",
            None if self.thinking.as_given().is_some() => "thinking",
            None if self.name.as_given().is_some() => "tool_use",
            None if self.data.as_given().is_some() => "redacted_thinking",
            None => "",
        }
    }
}

object! {
    /// A piece of a block, or of the message itself.
    struct Piece<'de> {
        kind as "type": Word,
        text: LooseText,
        thinking: LooseText,
        signature: Word,
        partial_json: LooseText,
        stop_reason: Word,
    }
}

impl Piece<'_> {
    /// The type of the piece. A piece without one is what its members say.
    fn kind(&self) -> &str {
        match self.kind.as_given() {
            Some(kind) => &kind.0,
            None if self.text.as_given().is_some() => "text_delta",
            None if self.thinking.as_given().is_some() => "thinking_delta",
            None if self.signature.as_given().is_some() => "signature_delta",
            None if self.partial_json.as_given().is_some() => "input_json_delta",
            None => "",
        }
    }
}
