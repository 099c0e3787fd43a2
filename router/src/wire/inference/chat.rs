//! Conversion of the messages of a conversation.

use switchboard::{
    pb::router::{self, part},
    reason::FieldReason,
    violation::Violations,
};

use super::{Characters, MESSAGES_MAX, too_many};
use crate::prompt::{Message, Signature, Text, Thought, ToolCall, ToolResult, Turn};

/// Returns the messages. `None`: a violation says what is wrong.
pub(super) fn messages(
    wire: Vec<router::Message>,
    characters: &mut Characters,
    violations: &mut Violations,
) -> Option<Vec<Message>> {
    let field = "chat.messages";
    match wire.len() {
        0 => {
            violations.push(field, FieldReason::FieldRequired, "give at least one message");
            return None;
        }
        1..=MESSAGES_MAX => {}
        count => {
            too_many(field, MESSAGES_MAX, "messages", count, violations);
            return None;
        }
    }
    let mut messages = Vec::with_capacity(wire.len());
    for (index, wire) in wire.into_iter().enumerate() {
        let mut reader = Reader {
            index,
            characters,
            violations,
        };
        reader.message(wire, &mut messages);
    }
    Some(messages)
}

/// Converts one message.
struct Reader<'a> {
    index: usize,
    characters: &'a mut Characters,
    violations: &'a mut Violations,
}

impl Reader<'_> {
    fn message(&mut self, wire: router::Message, messages: &mut Vec<Message>) {
        let is_empty = wire.parts.is_empty();
        match router::Role::try_from(wire.role) {
            Ok(router::Role::System) => messages.push(Message::System(self.text(wire.parts))),
            Ok(router::Role::User) => messages.push(Message::User(self.text(wire.parts))),
            Ok(router::Role::Assistant) => messages.push(Message::Assistant(self.turn(wire.parts))),
            Ok(router::Role::Tool) => messages.extend(self.results(wire.parts).map(Message::Tool)),
            Ok(router::Role::Unspecified) | Err(_) => {
                self.refuse(
                    "role",
                    FieldReason::ValueUnknown,
                    "must be SYSTEM, USER, ASSISTANT or TOOL",
                );
                let empty = wire.parts.iter().enumerate().filter(|(_, part)| part.kind.is_none());
                for index in empty.map(|(index, _)| index).collect::<Vec<_>>() {
                    self.refuse_part(index, None);
                }
            }
        }
        if is_empty {
            self.refuse("parts", FieldReason::FieldRequired, "give at least one part");
        }
    }

    fn text(&mut self, parts: Vec<router::Part>) -> Text {
        let mut text = Text::default();
        for (index, part) in parts.into_iter().enumerate() {
            match part.kind {
                Some(part::Kind::Text(piece)) => text.append(&self.characters.counted(piece)),
                other => self.refuse_part(index, other.as_ref()),
            }
        }
        text
    }

    fn turn(&mut self, parts: Vec<router::Part>) -> Turn {
        let mut turn = Turn::default();
        for (index, part) in parts.into_iter().enumerate() {
            match part.kind {
                Some(part::Kind::Text(piece)) => turn.text.append(&self.characters.counted(piece)),
                Some(part::Kind::Reasoning(reasoning)) => turn.thoughts.push(Thought {
                    text: self.characters.counted(reasoning.text),
                    signature: Signature::of(reasoning.signature),
                }),
                Some(part::Kind::ToolCall(call)) => {
                    self.require(index, "tool_call.id", &call.id);
                    self.require(index, "tool_call.name", &call.name);
                    turn.tool_calls.push(ToolCall {
                        id: call.id,
                        name: call.name,
                        arguments: self.characters.counted(call.arguments_json),
                    });
                }
                other @ (Some(part::Kind::ToolResult(_)) | None) => self.refuse_part(index, other.as_ref()),
            }
        }
        turn
    }

    /// Converts each result into a separate message, the form that models expect.
    fn results(&mut self, parts: Vec<router::Part>) -> impl Iterator<Item = ToolResult> {
        let mut results = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            match part.kind {
                Some(part::Kind::ToolResult(result)) => {
                    self.require(index, "tool_result.tool_call_id", &result.tool_call_id);
                    results.push(ToolResult {
                        tool_call_id: result.tool_call_id,
                        content: self.characters.counted(result.content),
                        is_error: result.is_error,
                    });
                }
                other => self.refuse_part(index, other.as_ref()),
            }
        }
        results.into_iter()
    }

    fn require(&mut self, part: usize, field: &str, text: &str) {
        if text.is_empty() {
            let field = format!("parts[{part}].{field}");
            self.refuse(&field, FieldReason::FieldRequired, "must not be empty");
        }
    }

    /// Refuses a part that does not belong to the message's role, or a part without content.
    fn refuse_part(&mut self, part: usize, kind: Option<&part::Kind>) {
        let (reason, description) = match kind {
            None => (
                FieldReason::FieldRequired,
                "give `text`, `tool_call`, `tool_result` or `reasoning`; this router supports no other kind of part",
            ),
            Some(part::Kind::Text(_)) => (
                FieldReason::ValueMalformed,
                "a TOOL message can only contain tool results",
            ),
            Some(part::Kind::ToolResult(_)) => (
                FieldReason::ValueMalformed,
                "only a TOOL message can contain a tool result",
            ),
            Some(part::Kind::ToolCall(_)) => (
                FieldReason::ValueMalformed,
                "only an ASSISTANT message can contain a tool call",
            ),
            Some(part::Kind::Reasoning(_)) => (
                FieldReason::ValueMalformed,
                "only an ASSISTANT message can contain reasoning",
            ),
        };
        self.refuse(&format!("parts[{part}]"), reason, description);
    }

    fn refuse(&mut self, field: &str, reason: FieldReason, description: &str) {
        let field = format!("chat.messages[{}].{field}", self.index);
        self.violations.push(field, reason, description);
    }
}
