//! Conversions of tools and of the response format.

use std::collections::HashSet;

use switchboard::{pb::router, reason::FieldReason, violation::Violations};

use super::{Characters, TOOLS_MAX, too_many};
use crate::prompt::{JsonObject, ResponseFormat, Tool, ToolChoice, Tools};

/// Maximum number of characters of a tool's name and of a schema's name.
const NAME_MAX: usize = 64;

pub(super) fn tools(
    wire: Vec<router::Tool>,
    choice: Option<router::ToolChoice>,
    characters: &mut Characters,
    violations: &mut Violations,
) -> Tools {
    if wire.len() > TOOLS_MAX {
        too_many("tools", TOOLS_MAX, "tools", wire.len(), violations);
        return Tools::default();
    }
    let mut names = HashSet::new();
    let mut list = Vec::with_capacity(wire.len());
    for (index, wire) in wire.into_iter().enumerate() {
        let field = format!("tools[{index}].name");
        if is_name(&field, &wire.name, violations) && !names.insert(wire.name.clone()) {
            violations.push(field, FieldReason::ValueRepeated, "is the name of an earlier tool");
        }
        let parameters = (!wire.parameters_json.is_empty())
            .then(|| {
                let field = format!("tools[{index}].parameters_json");
                object(field, wire.parameters_json, characters, violations)
            })
            .flatten();
        list.push(Tool {
            name: wire.name,
            description: characters.counted(wire.description),
            parameters,
            strict: wire.strict,
        });
    }
    let choice = choice.unwrap_or_default();
    Tools {
        parallel: choice.parallel,
        choice: tool_choice(choice, &names, violations),
        list,
    }
}

fn tool_choice(wire: router::ToolChoice, names: &HashSet<String>, violations: &mut Violations) -> ToolChoice {
    let mode = router::ToolMode::try_from(wire.mode);
    if !wire.name.is_empty() {
        if mode != Ok(router::ToolMode::Required) {
            let text = "can only be set together with the mode REQUIRED";
            violations.push("tool_choice.name", FieldReason::ValueMalformed, text);
        } else if !names.contains(&wire.name) {
            let text = "must be the name of one of `tools`";
            violations.push("tool_choice.name", FieldReason::ValueUnknown, text);
        }
        return ToolChoice::Only(wire.name);
    }
    match mode {
        Ok(router::ToolMode::Unspecified | router::ToolMode::Auto) => ToolChoice::Auto,
        // Without tools the model cannot call any, so NONE is valid without `tools`.
        Ok(router::ToolMode::None) => ToolChoice::None,
        Ok(router::ToolMode::Required) => {
            if names.is_empty() {
                let text = "REQUIRED can only be set together with `tools`";
                violations.push("tool_choice.mode", FieldReason::ValueMalformed, text);
            }
            ToolChoice::Required
        }
        Err(_) => {
            let text = "must be AUTO, NONE or REQUIRED";
            violations.push("tool_choice.mode", FieldReason::ValueUnknown, text);
            ToolChoice::Auto
        }
    }
}

/// Returns the response format. `None`: plain text, or a violation says what is wrong.
pub(super) fn response_format(
    wire: router::ResponseFormat,
    characters: &mut Characters,
    violations: &mut Violations,
) -> Option<ResponseFormat> {
    let kind = router::ResponseFormatKind::try_from(wire.kind);
    match kind {
        Ok(router::ResponseFormatKind::JsonSchema) => {
            is_name("response_format.name", &wire.name, violations);
            let field = "response_format.schema_json".to_owned();
            return object(field, wire.schema_json, characters, violations).map(|schema| ResponseFormat::JsonSchema {
                name: wire.name,
                schema,
                strict: wire.strict,
            });
        }
        Ok(
            router::ResponseFormatKind::Unspecified
            | router::ResponseFormatKind::Text
            | router::ResponseFormatKind::JsonObject,
        ) => {}
        Err(_) => {
            let text = "must be TEXT, JSON_OBJECT or JSON_SCHEMA";
            violations.push("response_format.kind", FieldReason::ValueUnknown, text);
        }
    }
    for (field, is_given) in [
        ("response_format.name", !wire.name.is_empty()),
        ("response_format.schema_json", !wire.schema_json.is_empty()),
        ("response_format.strict", wire.strict.is_some()),
    ] {
        if is_given {
            violations.push(
                field,
                FieldReason::ValueMalformed,
                "can only be set together with the kind JSON_SCHEMA",
            );
        }
    }
    (kind == Ok(router::ResponseFormatKind::JsonObject)).then_some(ResponseFormat::JsonObject)
}

fn is_name(field: &str, name: &str, violations: &mut Violations) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let (reason, text) = if name.is_empty() {
        (FieldReason::FieldRequired, "must not be empty")
    } else if name.len() > NAME_MAX || !name.bytes().all(is_allowed) {
        let text = "must be 1 to 64 letters, digits, underscores and hyphens";
        (FieldReason::ValueMalformed, text)
    } else {
        return true;
    };
    violations.push(field, reason, text);
    false
}

/// Parses a JSON object. `None`: a violation says what is wrong.
fn object(field: String, text: String, characters: &mut Characters, violations: &mut Violations) -> Option<JsonObject> {
    characters.0 += text.chars().count();
    if text.is_empty() {
        violations.push(field, FieldReason::FieldRequired, "must not be empty");
        return None;
    }
    JsonObject::parse(text)
        .map_err(|error| violations.push(field, FieldReason::ValueMalformed, error.to_string()))
        .ok()
}
