//! Decodes answers, streamed or whole, in the variants that real servers send.

use serde::Deserialize;

use super::{
    super::{AnswerDelta, DialectError, Event, FinishReason, Whole},
    WireUsage, finish, reported,
    tool_calls::{self, ToolCalls, WireCall},
};
use crate::prompt::{Text, Thought};

/// Decodes the data of one stream, event by event.
#[derive(Debug, Default)]
pub struct Decoder {
    calls: ToolCalls,
}

impl Decoder {
    /// Decodes one `data` of the stream into events, in order. A chunk without content gives no events.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which contains no text of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        if data.trim_ascii() == "[DONE]" {
            return Ok(vec![Event::Done]);
        }
        let answer = WireAnswer::read(data)?;
        let mut events = Vec::new();
        for choice in answer.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) == 0 {
                self.choice(choice, &mut events)?;
            }
        }
        if let Some(usage) = answer.usage {
            events.push(Event::Usage(usage.into()));
        }
        Ok(events)
    }

    fn choice(&mut self, choice: WireAnswerChoice, events: &mut Vec<Event>) -> Result<(), DialectError> {
        let mut said = choice.delta.unwrap_or_default();
        let (reasoning, content) = (said.take_reasoning(), said.take_content());
        let content = content.or_else(|| told(choice.text));
        events.extend(reasoning.map(|text| Event::Delta(AnswerDelta::Reasoning(text))));
        events.extend(content.map(|text| Event::Delta(AnswerDelta::Text(text))));
        for call in said.tool_calls.unwrap_or_default() {
            let fragment = self.calls.fragment(call)?;
            events.extend(fragment.map(|fragment| Event::Delta(AnswerDelta::ToolCall(fragment))));
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            events.push(Event::Finish(finish(&reason, !self.calls.is_empty())?));
        }
        Ok(())
    }
}

/// Decodes a complete answer.
///
/// # Errors
///
/// [`DialectError`], which contains no text of the body.
pub fn whole(body: &str) -> Result<Whole, DialectError> {
    let answer = WireAnswer::read(body)?;
    let choice = answer.choices.unwrap_or_default().into_iter();
    let mut choices = choice.filter(|choice| choice.index.unwrap_or(0) == 0);
    let choice = choices.next().ok_or(DialectError::Malformed)?;
    let mut said = choice.message.unwrap_or_default();
    let (reasoning, content) = (said.take_reasoning(), said.take_content());
    let tool_calls = tool_calls::whole(said.tool_calls.unwrap_or_default())?;
    Ok(Whole {
        thoughts: reasoning.map(Thought::from).into_iter().collect(),
        text: content.or_else(|| told(choice.text)).unwrap_or_default(),
        finish: match choice.finish_reason.filter(|reason| !reason.is_empty()) {
            Some(reason) => finish(&reason, !tool_calls.is_empty())?,
            None => FinishReason::Other,
        },
        tool_calls,
        usage: answer.usage.map(Into::into),
    })
}

/// A complete answer, or one chunk of a stream.
#[derive(Deserialize)]
struct WireAnswer {
    object: Option<String>,
    code: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
    choices: Option<Vec<WireAnswerChoice>>,
    usage: Option<WireUsage>,
}

impl WireAnswer {
    fn read(data: &str) -> Result<Self, DialectError> {
        let answer: Self = serde_json::from_str(data).map_err(|_malformed| DialectError::Malformed)?;
        reported(
            data,
            answer.object.as_deref(),
            answer.code.as_ref(),
            answer.error.as_ref(),
        )?;
        Ok(answer)
    }
}

#[derive(Deserialize)]
struct WireAnswerChoice {
    index: Option<i64>,
    delta: Option<WireDelta>,
    message: Option<WireDelta>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct WireDelta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
}

impl WireDelta {
    /// Takes the content, or the refusal if there is no content: for the caller a model's refusal is its answer.
    fn take_content(&mut self) -> Option<Text> {
        told(self.content.take()).or_else(|| told(self.refusal.take()))
    }

    /// Takes the reasoning. Servers that are moving from one field name to the other send the same text under both.
    fn take_reasoning(&mut self) -> Option<Text> {
        told(self.reasoning_content.take()).or_else(|| told(self.reasoning.take()))
    }
}

fn told(text: Option<String>) -> Option<Text> {
    text.filter(|text| !text.is_empty()).map(Text::from)
}
