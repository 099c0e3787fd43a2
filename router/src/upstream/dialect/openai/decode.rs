//! Decodes answers, streamed or whole, in the variants that real servers send.

use serde_json::value::RawValue;

use super::{
    super::{
        AnswerDelta, Event, FinishReason, Oddities, Whole,
        finish::{Meaning, meaning},
        lenient::{Lenient, List, Member, Number, Raw, Word, documents, object, string},
    },
    DialectError, WireUsage, reported,
    tool_calls::{self, ToolCalls, WireCall},
};
use crate::{
    prompt::{Text, Thought},
    upstream::text::{LooseText, TextJoiner},
};

/// Decodes the data of one stream, event by event.
#[derive(Debug, Default)]
pub struct Decoder {
    content: TextJoiner,
    reasoning: TextJoiner,
    calls: ToolCalls,
    /// Whether any content has come.
    has_begun: bool,
    oddities: Oddities,
}

impl Decoder {
    /// Decodes one `data` of the stream into events, in order. A chunk without content gives no events.
    ///
    /// # Errors
    ///
    /// [`DialectError`], which contains no text of the data.
    pub fn decode(&mut self, data: &str) -> Result<Vec<Event>, DialectError> {
        let mut events = Vec::new();
        for answer in documents::<WireAnswer<'_>>(data)? {
            self.answer(answer, data, &mut events)?;
        }
        Ok(events)
    }

    /// Ends the texts: half a character that nothing has completed becomes U+FFFD.
    pub fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.flush(&mut events);
        events
    }

    /// What was unexpected since the last call.
    pub const fn oddities(&mut self) -> &mut Oddities {
        &mut self.oddities
    }

    fn answer(
        &mut self,
        answer: Member<WireAnswer<'_>>,
        data: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), DialectError> {
        let Some(answer) = self.oddities.of_event(answer) else {
            return Ok(());
        };
        reported(data, &answer.object, &answer.code, &answer.error)?;
        let choices = answer.choices.given().map(|choices| choices.entries);
        for choice in choices.into_iter().flatten().filter(WireChoice::is_first) {
            self.choice(choice, events)?;
        }
        if let Some(usage) = answer.usage.given() {
            events.push(Event::Usage(usage.into()));
        }
        Ok(())
    }

    fn choice(&mut self, choice: WireChoice<'_>, events: &mut Vec<Event>) -> Result<(), DialectError> {
        // Some servers send a short answer as one event in the form of a whole answer. After deltas, such an event only repeats
        // them.
        let message = choice.message.given().filter(|_| !self.has_begun);
        let delta = choice.delta.given().or(message).unwrap_or_default();
        let Said {
            reasoning,
            content,
            calls,
        } = Said::of(delta, choice.text);
        let (reasoning, content) = (self.reasoning.push(reasoning), self.content.push(content));
        events.extend(delta_of(reasoning, AnswerDelta::Reasoning));
        events.extend(delta_of(content, AnswerDelta::Text));
        for call in calls {
            let fragment = self.calls.fragment(call)?;
            events.extend(fragment.map(|fragment| Event::Delta(AnswerDelta::ToolCall(fragment))));
        }
        self.has_begun |= !events.is_empty();
        if let Some(word) = finish_word(choice.finish_reason) {
            self.flush(events);
            if self.calls.has_nameless() {
                return Err(DialectError::Malformed);
            }
            let reason = finish(&word, !self.calls.is_empty(), &mut self.oddities)?;
            events.push(Event::Finish(reason));
        }
        Ok(())
    }

    fn flush(&mut self, events: &mut Vec<Event>) {
        events.extend(delta_of(self.reasoning.finish(), AnswerDelta::Reasoning));
        events.extend(delta_of(self.content.finish(), AnswerDelta::Text));
        let calls = self.calls.finish().into_iter();
        events.extend(calls.map(|delta| Event::Delta(AnswerDelta::ToolCall(delta))));
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
    reported(body, &answer.object, &answer.code, &answer.error)?;
    let choices = answer.choices.given().ok_or(DialectError::Malformed)?.entries;
    let choice = choices
        .into_iter()
        .find(WireChoice::is_first)
        .ok_or(DialectError::Malformed)?;
    let message = choice
        .message
        .given()
        .or_else(|| choice.delta.given())
        .unwrap_or_default();
    let Said {
        reasoning,
        content,
        calls,
    } = Said::of(message, choice.text);
    let reasoning = Text::from(reasoning.into_lossy());
    let tool_calls = tool_calls::whole(calls)?;
    Ok(Whole {
        thoughts: Some(reasoning)
            .filter(|text| !text.is_empty())
            .map(Thought::from)
            .into_iter()
            .collect(),
        text: content.into_lossy().into(),
        finish: match finish_word(choice.finish_reason) {
            Some(word) => finish(&word, !tool_calls.is_empty(), oddities)?,
            None => FinishReason::Other,
        },
        tool_calls,
        usage: answer.usage.given().map(Into::into),
    })
}

fn delta_of(text: String, kind: impl Fn(Text) -> AnswerDelta) -> Option<Event> {
    (!text.is_empty()).then(|| Event::Delta(kind(text.into())))
}

fn finish_word(word: Member<Word>) -> Option<String> {
    word.given().map(|word| word.0).filter(|word| !word.is_empty())
}

/// Reads a finish reason.
fn finish(word: &str, calls_tools: bool, oddities: &mut Oddities) -> Result<FinishReason, DialectError> {
    match meaning(word, calls_tools) {
        Meaning::Finished(reason) => Ok(reason),
        Meaning::GaveUp => Err(DialectError::gave_up()),
        Meaning::Unknown => {
            oddities.unknown_finish(word);
            Ok(FinishReason::Other)
        }
    }
}

/// The content of a message or of a delta.
struct Said<'a> {
    reasoning: LooseText,
    content: LooseText,
    calls: Vec<WireCall<'a>>,
}

impl<'a> Said<'a> {
    fn of(message: WireMessage<'a>, completion: Member<LooseText>) -> Self {
        let mut reasoning = LooseText::default();
        let mut content = LooseText::default();
        if let Some(Content(parts)) = message.content.given() {
            for part in parts {
                match part {
                    Part::Text(text) => content.append(&text),
                    Part::Reasoning(text) => reasoning.append(&text),
                }
            }
        }
        // What a model says instead of an answer is its answer to the caller.
        for text in [message.refusal, completion] {
            if content.is_empty() {
                content = text.given().unwrap_or_default();
            }
        }
        // Servers that are changing from one name to the other send the same text under both.
        for text in [message.reasoning_content, message.reasoning] {
            if reasoning.is_empty() {
                reasoning = text.given().map(Content::into_text).unwrap_or_default();
            }
        }
        let mut calls = message
            .tool_calls
            .given()
            .map(|calls| calls.entries)
            .unwrap_or_default();
        // The member that `tool_calls` has replaced: some servers still send it, some send both.
        if calls.is_empty() {
            calls.extend(message.function_call.given().map(WireCall::of_function));
        }
        Self {
            reasoning,
            content,
            calls,
        }
    }
}

object! {
    /// A whole answer, or a chunk of one.
    struct WireAnswer<'de> {
        object: Word,
        code: Raw<'de>,
        error: Raw<'de>,
        choices: List<WireChoice<'de>>,
        usage: WireUsage<'de>,
    }
}

object! {
    struct WireChoice<'de> {
        index: Number,
        delta: WireMessage<'de>,
        message: WireMessage<'de>,
        text: LooseText,
        finish_reason: Word,
    }
}

impl WireChoice<'_> {
    /// Whether it is the choice that is relayed. The router asks for one; a server that numbers it otherwise means that one.
    fn is_first(&self) -> bool {
        self.index.as_given().is_none_or(|index| index.0 == 0)
    }
}

object! {
    struct WireMessage<'de> {
        content: Content,
        refusal: LooseText,
        reasoning_content: Content,
        reasoning: Content,
        tool_calls: List<WireCall<'de>>,
        function_call: tool_calls::WireFunction<'de>,
    }
}

/// The content of a message: a text, or a list of typed parts, as Mistral's reasoning models send it.
#[derive(Debug)]
struct Content(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(LooseText),
    Reasoning(LooseText),
}

impl Content {
    /// All of its text.
    fn into_text(self) -> LooseText {
        let mut all = LooseText::default();
        for part in self.0 {
            let (Part::Text(text) | Part::Reasoning(text)) = part;
            all.append(&text);
        }
        all
    }
}

impl<'de> Lenient<'de> for Content {
    fn read<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        use serde::{Deserialize as _, de::Error as _};

        let raw = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match raw.as_bytes().first() {
            Some(b'"') => Member::Given(Self(vec![Part::Text(string(raw).map_err(D::Error::custom)?)])),
            Some(b'[') => {
                let parts: Member<List<PartOrText<'_>>> = serde_json::from_str(raw).map_err(D::Error::custom)?;
                let parts = parts.given().map(|parts| parts.entries).unwrap_or_default();
                Member::Given(Self(parts.into_iter().filter_map(PartOrText::into_part).collect()))
            }
            Some(b'{') => {
                let part: Member<WirePart<'_>> = serde_json::from_str(raw).map_err(D::Error::custom)?;
                match part.given().and_then(WirePart::into_part) {
                    Some(part) => Member::Given(Self(vec![part])),
                    None => Member::Odd,
                }
            }
            Some(b'n') => Member::Absent,
            _ => Member::Odd,
        })
    }
}

/// An entry of a list of parts.
enum PartOrText<'de> {
    Part(WirePart<'de>),
    Text(LooseText),
}

impl<'de> Lenient<'de> for PartOrText<'de> {
    fn read<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        use serde::{Deserialize as _, de::Error as _};

        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        if raw.starts_with('"') {
            return string(raw)
                .map(|text| Member::Given(Self::Text(text)))
                .map_err(D::Error::custom);
        }
        let part: Member<WirePart<'de>> = serde_json::from_str(raw).map_err(D::Error::custom)?;
        Ok(part.given().map_or(Member::Odd, |part| Member::Given(Self::Part(part))))
    }
}

impl PartOrText<'_> {
    fn into_part(self) -> Option<Part> {
        match self {
            Self::Part(part) => part.into_part(),
            Self::Text(text) => Some(Part::Text(text)),
        }
    }
}

object! {
    /// A part of a content. Its type says which of the members counts; a part without one is what its members say.
    struct WirePart<'de> {
        kind as "type": Word,
        text: LooseText,
        content: LooseText,
        refusal: LooseText,
        thinking: Content,
        reasoning: Content,
    }
}

impl WirePart<'_> {
    fn into_part(self) -> Option<Part> {
        let kind = self.kind.given().map(|kind| kind.0).unwrap_or_default();
        let thought = self
            .thinking
            .given()
            .or_else(|| self.reasoning.given())
            .map(Content::into_text);
        let text = [self.text, self.content, self.refusal]
            .into_iter()
            .find_map(Member::given);
        let is_thought = kind.contains("think") || kind.contains("reason");
        match (thought, text) {
            (Some(thought), _) => Some(Part::Reasoning(thought)),
            (None, Some(text)) if is_thought => Some(Part::Reasoning(text)),
            (None, Some(text)) => Some(Part::Text(text)),
            (None, None) => None,
        }
    }
}
