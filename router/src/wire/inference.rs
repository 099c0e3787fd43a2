//! Requests and answers of inference calls.
#![warn(clippy::wildcard_enum_match_arm)]

use std::ops::RangeInclusive;

use switchboard::{
    pb::router::{self, infer_request, part, stream_infer_response::Event},
    reason::FieldReason,
    violation::Violations,
};

use crate::{
    call::{Completion, Selected},
    prompt::{Input, Message, Options, Request, Role, Text},
    upstream::dialect::{Delta, FinishReason, Usage},
};

/// The most messages of a chat.
pub const MESSAGES_MAX: usize = 1000;
/// The most characters of a request's text, all together.
pub const CHARACTERS_MAX: usize = 400_000;
/// The most texts at which an answer ends.
pub const STOPS_MAX: usize = 16;

impl TryFrom<router::InferRequest> for Request {
    type Error = Violations;

    fn try_from(wire: router::InferRequest) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        if wire.feature.is_empty() {
            violations.push(
                "feature",
                FieldReason::FieldRequired,
                "name the feature, for example `duo_chat`",
            );
        }
        let input = input(wire.input, &mut violations);
        let options = options(wire.options.unwrap_or_default(), &mut violations);
        violations.or(Self {
            feature: wire.feature,
            input,
            options,
        })
    }
}

fn input(wire: Option<infer_request::Input>, violations: &mut Violations) -> Input {
    match wire {
        Some(infer_request::Input::Chat(chat)) => Input::Chat(messages(chat.messages, violations)),
        Some(infer_request::Input::Prompt(text)) => {
            if text.is_empty() {
                violations.push("prompt", FieldReason::FieldRequired, "must not be empty");
            }
            check_length("prompt", text.chars().count(), violations);
            Input::Prompt(text.into())
        }
        Some(infer_request::Input::Infill(_)) | None => {
            violations.push(
                "input",
                FieldReason::FieldRequired,
                "give `chat` or `prompt`; other kinds are not known here",
            );
            Input::Chat(Vec::new())
        }
    }
}

fn messages(wire: Vec<router::Message>, violations: &mut Violations) -> Vec<Message> {
    let field = "chat.messages";
    match wire.len() {
        0 => violations.push(field, FieldReason::FieldRequired, "give at least one message"),
        1..=MESSAGES_MAX => {}
        count => {
            violations.push(
                field,
                FieldReason::ValueOutOfRange,
                format!("must have at most {MESSAGES_MAX} messages, has {count}"),
            );
            return Vec::new();
        }
    }
    let messages: Vec<Message> = wire
        .into_iter()
        .enumerate()
        .map(|(place, wire)| message(wire, place, violations))
        .collect();
    let characters = messages
        .iter()
        .map(|message| message.text.expose().chars().count())
        .sum();
    check_length(field, characters, violations);
    messages
}

fn message(wire: router::Message, place: usize, violations: &mut Violations) -> Message {
    let role = match wire.role() {
        router::Role::System => Role::System,
        router::Role::User => Role::User,
        router::Role::Assistant => Role::Assistant,
        router::Role::Tool | router::Role::Unspecified => {
            violations.push(
                format!("chat.messages[{place}].role"),
                FieldReason::ValueUnknown,
                "must be `ROLE_SYSTEM`, `ROLE_USER` or `ROLE_ASSISTANT`",
            );
            Role::User
        }
    };
    if wire.parts.is_empty() {
        violations.push(
            format!("chat.messages[{place}].parts"),
            FieldReason::FieldRequired,
            "give at least one part",
        );
    }
    let mut text = String::new();
    for (part, wire) in wire.parts.into_iter().enumerate() {
        match wire.kind {
            Some(part::Kind::Text(piece)) => text.push_str(&piece),
            Some(part::Kind::ToolCall(_) | part::Kind::ToolResult(_) | part::Kind::Reasoning(_)) | None => violations
                .push(
                    format!("chat.messages[{place}].parts[{part}]"),
                    FieldReason::FieldRequired,
                    "give `text`; other kinds are not known here",
                ),
        }
    }
    Message {
        role,
        text: text.into(),
    }
}

fn check_length(field: &str, characters: usize, violations: &mut Violations) {
    if characters > CHARACTERS_MAX {
        violations.push(
            field,
            FieldReason::ValueOutOfRange,
            format!("must have at most {CHARACTERS_MAX} characters in all, has {characters}"),
        );
    }
}

fn options(wire: router::InferOptions, violations: &mut Violations) -> Options {
    at_least_one("options.max_output_tokens", wire.max_output_tokens, violations);
    within("options.temperature", wire.temperature, 0.0..=2.0, violations);
    if wire.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
        violations.push(
            "options.top_p",
            FieldReason::ValueOutOfRange,
            "must be above 0 and at most 1",
        );
    }
    within(
        "options.presence_penalty",
        wire.presence_penalty,
        -2.0..=2.0,
        violations,
    );
    within(
        "options.frequency_penalty",
        wire.frequency_penalty,
        -2.0..=2.0,
        violations,
    );
    at_least_one("options.top_k", wire.top_k, violations);
    if wire.stop.len() > STOPS_MAX {
        violations.push(
            "options.stop",
            FieldReason::ValueOutOfRange,
            format!("must have at most {STOPS_MAX} texts, has {}", wire.stop.len()),
        );
    } else {
        for place in (0..wire.stop.len()).filter(|&place| wire.stop[place].is_empty()) {
            violations.push(
                format!("options.stop[{place}]"),
                FieldReason::FieldRequired,
                "must not be empty",
            );
        }
    }
    Options {
        max_output_tokens: wire.max_output_tokens,
        temperature: wire.temperature,
        top_p: wire.top_p,
        stop: wire.stop.into_iter().map(Text::from).collect(),
        seed: wire.seed,
        presence_penalty: wire.presence_penalty,
        frequency_penalty: wire.frequency_penalty,
        top_k: wire.top_k,
    }
}

fn at_least_one(field: &str, value: Option<i32>, violations: &mut Violations) {
    if value.is_some_and(|value| value < 1) {
        violations.push(field, FieldReason::ValueOutOfRange, "must be at least 1");
    }
}

/// Not a number is within no range.
fn within(field: &str, value: Option<f64>, range: RangeInclusive<f64>, violations: &mut Violations) {
    if value.is_some_and(|value| !range.contains(&value)) {
        violations.push(
            field,
            FieldReason::ValueOutOfRange,
            format!("must be from {} to {}", range.start(), range.end()),
        );
    }
}

impl From<&Selected> for router::StreamInferResponse {
    fn from(selected: &Selected) -> Self {
        Self {
            event: Some(Event::Selection(selected.into())),
        }
    }
}

impl From<Delta> for router::StreamInferResponse {
    fn from(delta: Delta) -> Self {
        use router::delta::Kind;
        let kind = match delta {
            Delta::Text(text) => Kind::Text(text.into_string()),
            Delta::Reasoning(text) => Kind::Reasoning(text.into_string()),
        };
        Self {
            event: Some(Event::Delta(router::Delta { kind: Some(kind) })),
        }
    }
}

impl From<Completion> for router::StreamInferResponse {
    fn from(completion: Completion) -> Self {
        let reason = match completion.finish {
            FinishReason::Stop => router::FinishReason::Stop,
            FinishReason::Length => router::FinishReason::Length,
            FinishReason::ContentFilter => router::FinishReason::ContentFilter,
            FinishReason::Other => router::FinishReason::Other,
        };
        let usage = completion.usage.map(|usage| {
            let Usage {
                input,
                output,
                cached_input,
                reasoning,
            } = usage;
            router::Usage {
                input_tokens: input,
                output_tokens: output,
                cached_input_tokens: cached_input,
                reasoning_tokens: reasoning,
            }
        });
        Self {
            event: Some(Event::Completion(router::Completion {
                finish_reason: reason.into(),
                usage,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(wire: router::InferRequest) -> Vec<(String, FieldReason)> {
        let violations = Request::try_from(wire).unwrap_err();
        let fields = violations.as_slice().iter();
        fields
            .map(|violation| (violation.field.clone(), violation.reason))
            .collect()
    }

    fn chat(messages: Vec<router::Message>) -> router::InferRequest {
        router::InferRequest {
            feature: "duo_chat".to_owned(),
            input: Some(infer_request::Input::Chat(router::ChatInput { messages })),
            ..Default::default()
        }
    }

    fn message(texts: &[&str]) -> router::Message {
        let part = |text: &&str| router::Part {
            kind: Some(part::Kind::Text((*text).to_owned())),
        };
        router::Message {
            role: router::Role::User.into(),
            parts: texts.iter().map(part).collect(),
        }
    }

    #[test]
    fn the_parts_of_a_message_are_joined_in_their_order() {
        let request = Request::try_from(chat(vec![message(&["a", "b"]), message(&["c"])])).unwrap();
        let Input::Chat(messages) = request.input else {
            panic!("a chat stays a chat");
        };
        let texts: Vec<&str> = messages.iter().map(|message| message.text.expose()).collect();
        assert_eq!(texts, ["ab", "c"]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut wire = chat(vec![
            message(&["a"]),
            router::Message::default(),
            router::Message {
                role: 99,
                parts: vec![router::Part::default()],
            },
        ]);
        wire.feature = String::new();
        wire.options = Some(router::InferOptions {
            max_output_tokens: Some(0),
            temperature: Some(f64::NAN),
            top_p: Some(0.0),
            stop: vec!["x".to_owned(), String::new()],
            seed: Some(i64::MIN),
            presence_penalty: Some(2.1),
            frequency_penalty: Some(-2.1),
            top_k: Some(-1),
            ..Default::default()
        });
        use FieldReason::{FieldRequired, ValueOutOfRange, ValueUnknown};
        let expected = [
            ("feature", FieldRequired),
            ("chat.messages[1].role", ValueUnknown),
            ("chat.messages[1].parts", FieldRequired),
            ("chat.messages[2].role", ValueUnknown),
            ("chat.messages[2].parts[0]", FieldRequired),
            ("options.max_output_tokens", ValueOutOfRange),
            ("options.temperature", ValueOutOfRange),
            ("options.top_p", ValueOutOfRange),
            ("options.presence_penalty", ValueOutOfRange),
            ("options.frequency_penalty", ValueOutOfRange),
            ("options.top_k", ValueOutOfRange),
            ("options.stop[1]", FieldRequired),
        ];
        assert_eq!(
            refused(wire),
            expected.map(|(field, reason)| (field.to_owned(), reason))
        );
    }

    #[test]
    fn the_edges_of_every_range_are_inside() {
        let mut wire = chat(vec![message(&["a"]); MESSAGES_MAX]);
        wire.options = Some(router::InferOptions {
            max_output_tokens: Some(1),
            temperature: Some(0.0),
            top_p: Some(1.0),
            stop: vec!["x".to_owned(); STOPS_MAX],
            seed: Some(0),
            presence_penalty: Some(-2.0),
            frequency_penalty: Some(2.0),
            top_k: Some(1),
            ..Default::default()
        });
        assert!(Request::try_from(wire).is_ok());
        let longest = "ä".repeat(CHARACTERS_MAX);
        assert!(Request::try_from(chat(vec![message(&[&longest])])).is_ok());
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused() {
        let required = |field: &str| vec![(field.to_owned(), FieldReason::FieldRequired)];
        let beyond = |field: &str| vec![(field.to_owned(), FieldReason::ValueOutOfRange)];
        assert_eq!(refused(chat(Vec::new())), required("chat.messages"));
        assert_eq!(
            refused(chat(vec![message(&["a"]); MESSAGES_MAX + 1])),
            beyond("chat.messages")
        );
        let half = "ä".repeat(CHARACTERS_MAX / 2);
        assert_eq!(
            refused(chat(vec![message(&[&half]), message(&[&half, "x"])])),
            beyond("chat.messages")
        );
        let prompt = |text: String| router::InferRequest {
            input: Some(infer_request::Input::Prompt(text)),
            ..chat(Vec::new())
        };
        assert_eq!(refused(prompt("x".repeat(CHARACTERS_MAX + 1))), beyond("prompt"));
        assert_eq!(refused(prompt(String::new())), required("prompt"));
        let mut nothing = chat(Vec::new());
        nothing.input = None;
        assert_eq!(refused(nothing), required("input"));
        let mut stops = prompt("x".to_owned());
        stops.options = Some(router::InferOptions {
            stop: vec!["x".to_owned(); STOPS_MAX + 1],
            ..router::InferOptions::default()
        });
        assert_eq!(refused(stops), beyond("options.stop"));
    }
}
