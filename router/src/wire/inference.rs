//! Conversions of the requests and answers of inference calls.
#![warn(clippy::wildcard_enum_match_arm)]

mod answer;
mod chat;
mod infill;
pub mod padding;
mod tools;

use std::ops::RangeInclusive;

use switchboard::{
    pb::router::{self, infer_request},
    reason::FieldReason,
    violation::Violations,
};

use crate::{
    prompt::{Input, Options, ReasoningEffort, Request, Text},
    wire::routing,
};

/// Maximum number of messages in a chat.
pub const MESSAGES_MAX: usize = 1000;
/// Maximum number of characters in all texts of a request together.
pub const CHARACTERS_MAX: usize = 400_000;
/// Maximum number of characters of the code before the cursor, and of the code after it.
pub const CODE_CHARACTERS_MAX: usize = 100_000;
/// Maximum number of snippets of other files.
pub const SNIPPETS_MAX: usize = 100;
/// Maximum number of tools in a call.
pub const TOOLS_MAX: usize = 128;
/// Maximum number of stop texts.
pub const STOPS_MAX: usize = 16;

impl TryFrom<router::InferRequest> for Request {
    type Error = Violations;

    fn try_from(wire: router::InferRequest) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let mut characters = Characters::default();
        if wire.feature.is_empty() {
            violations.push(
                "feature",
                FieldReason::FieldRequired,
                "give the name of a feature, for example `duo_chat`",
            );
        }
        let input = input(wire.input, &mut characters, &mut violations);
        let tools = tools::tools(wire.tools, wire.tool_choice, &mut characters, &mut violations);
        let response_format = wire
            .response_format
            .and_then(|format| tools::response_format(format, &mut characters, &mut violations));
        characters.check(input.as_ref(), &mut violations);
        let options = options(wire.options.unwrap_or_default(), &mut violations);
        let affinity_key =
            routing::affinity_key(&wire.affinity_key, &mut violations).map(|key| Text::from(key.to_owned()));
        let Some(input) = input else { return Err(violations) };
        violations.or(Self {
            feature: wire.feature,
            input,
            tools,
            response_format,
            options,
            affinity_key,
        })
    }
}

/// Returns the input. `None`: a violation says what is wrong.
fn input(
    wire: Option<infer_request::Input>,
    characters: &mut Characters,
    violations: &mut Violations,
) -> Option<Input> {
    match wire {
        Some(infer_request::Input::Chat(chat)) => {
            chat::messages(chat.messages, characters, violations).map(Input::Chat)
        }
        Some(infer_request::Input::Infill(wire)) => Some(Input::Infill(infill::infill(wire, characters, violations))),
        Some(infer_request::Input::Prompt(text)) => {
            if text.is_empty() {
                violations.push("prompt", FieldReason::FieldRequired, "must not be empty");
            }
            Some(Input::Prompt(characters.counted(text)))
        }
        None => {
            violations.push(
                "input",
                FieldReason::FieldRequired,
                "give `chat`, `infill` or `prompt`; this router supports no other kind of input",
            );
            None
        }
    }
}

/// Counts the characters of a request's texts.
#[derive(Debug, Default)]
struct Characters(usize);

impl Characters {
    fn counted(&mut self, text: String) -> Text {
        self.0 += text.chars().count();
        text.into()
    }

    fn check(&self, input: Option<&Input>, violations: &mut Violations) {
        if self.0 > CHARACTERS_MAX {
            let field = match input {
                Some(Input::Chat(_)) => "chat.messages",
                Some(Input::Infill(_)) => "infill",
                Some(Input::Prompt(_)) => "prompt",
                None => "input",
            };
            too_long(field, CHARACTERS_MAX, self.0, violations);
        }
    }
}

/// Reports a field with too many characters.
fn too_long(field: impl Into<String>, most: usize, characters: usize, violations: &mut Violations) {
    violations.push(
        field,
        FieldReason::ValueOutOfRange,
        format!("must have at most {most} characters in all, has {characters}"),
    );
}

/// Reports a list with too many entries.
fn too_many(field: &str, most: usize, what: &str, count: usize, violations: &mut Violations) {
    violations.push(
        field,
        FieldReason::ValueOutOfRange,
        format!("must have at most {most} {what}, has {count}"),
    );
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
        too_many("options.stop", STOPS_MAX, "texts", wire.stop.len(), violations);
    } else {
        for index in (0..wire.stop.len()).filter(|&index| wire.stop[index].is_empty()) {
            violations.push(
                format!("options.stop[{index}]"),
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
        reasoning_effort: wire
            .reasoning_effort
            .and_then(|effort| reasoning_effort(effort, violations)),
    }
}

fn reasoning_effort(wire: i32, violations: &mut Violations) -> Option<ReasoningEffort> {
    match router::ReasoningEffort::try_from(wire) {
        Ok(router::ReasoningEffort::None) => Some(ReasoningEffort::None),
        Ok(router::ReasoningEffort::Low) => Some(ReasoningEffort::Low),
        Ok(router::ReasoningEffort::Medium) => Some(ReasoningEffort::Medium),
        Ok(router::ReasoningEffort::High) => Some(ReasoningEffort::High),
        Ok(router::ReasoningEffort::Unspecified) | Err(_) => {
            violations.push(
                "options.reasoning_effort",
                FieldReason::ValueUnknown,
                "must be NONE, LOW, MEDIUM or HIGH",
            );
            None
        }
    }
}

fn at_least_one(field: &str, value: Option<i32>, violations: &mut Violations) {
    if value.is_some_and(|value| value < 1) {
        violations.push(field, FieldReason::ValueOutOfRange, "must be at least 1");
    }
}

/// Reports a value outside the range. NaN is outside every range.
fn within(field: &str, value: Option<f64>, range: RangeInclusive<f64>, violations: &mut Violations) {
    if value.is_some_and(|value| !range.contains(&value)) {
        violations.push(
            field,
            FieldReason::ValueOutOfRange,
            format!("must be from {} to {}", range.start(), range.end()),
        );
    }
}

#[cfg(test)]
mod tests;
