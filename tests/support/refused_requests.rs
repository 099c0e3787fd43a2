//! Inference requests that the router refuses because of their content: one row each, with every bad field in order.
//!
//! The tests of the request conversion and of the router's port use the same rows.

use switchboard::pb::router::{
    ChatInput, InferOptions, InferRequest, InfillInput, Message, Part, Reasoning, ResponseFormat, Role, Tool, ToolCall,
    ToolChoice, ToolResult, infer_request::Input, part::Kind,
};

/// One row.
#[derive(Debug)]
pub(crate) struct RefusedRequest {
    pub(crate) name: &'static str,
    pub(crate) request: InferRequest,
    /// The bad fields with their reasons, in order.
    pub(crate) fields: &'static [(&'static str, &'static str)],
}

const fn refused(
    name: &'static str,
    request: InferRequest,
    fields: &'static [(&'static str, &'static str)],
) -> RefusedRequest {
    RefusedRequest { name, request, fields }
}

fn with_input(input: Option<Input>) -> InferRequest {
    InferRequest {
        feature: "duo_chat".to_owned(),
        input,
        ..Default::default()
    }
}

fn chat(messages: Vec<Message>) -> InferRequest {
    with_input(Some(Input::Chat(ChatInput { messages })))
}

/// Builds a message of this role from these parts.
fn said<const N: usize>(role: Role, kinds: [Kind; N]) -> Message {
    Message {
        role: role.into(),
        parts: kinds.map(|kind| Part { kind: Some(kind) }).into(),
    }
}

fn words() -> Kind {
    Kind::Text("a".to_owned())
}

fn call(id: &str, name: &str) -> Kind {
    Kind::ToolCall(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments_json: "{".to_owned(),
    })
}

fn result(id: &str) -> Kind {
    Kind::ToolResult(ToolResult {
        tool_call_id: id.to_owned(),
        content: "3".to_owned(),
        is_error: true,
    })
}

fn thought() -> Kind {
    Kind::Reasoning(Reasoning {
        text: "hm".to_owned(),
        signature: vec![1],
    })
}

/// A valid chat request.
fn question() -> InferRequest {
    chat(vec![said(Role::User, [words()])])
}

/// All rows.
pub(crate) fn refused_requests() -> Vec<RefusedRequest> {
    [inputs(), parts(), tools(), response_formats()]
        .into_iter()
        .flatten()
        .collect()
}

fn inputs() -> Vec<RefusedRequest> {
    let everything = InferRequest {
        feature: String::new(),
        options: Some(InferOptions {
            max_output_tokens: Some(0),
            temperature: Some(f64::NAN),
            top_p: Some(0.0),
            stop: vec!["x".to_owned(), String::new()],
            seed: Some(i64::MIN),
            presence_penalty: Some(2.1),
            frequency_penalty: Some(-2.1),
            top_k: Some(-1),
            reasoning_effort: Some(0),
        }),
        affinity_key: "x".repeat(1000),
        ..chat(vec![
            said(Role::User, [words()]),
            Message::default(),
            Message {
                role: 99,
                parts: vec![Part::default()],
            },
        ])
    };
    let too_warm = InferRequest {
        options: Some(InferOptions {
            temperature: Some(3.0),
            ..Default::default()
        }),
        ..question()
    };
    let unset = Message {
        role: Role::User.into(),
        parts: vec![Part { kind: None }],
    };
    vec![
        refused(
            "everything at once",
            everything,
            &[
                ("feature", "FIELD_REQUIRED"),
                ("chat.messages[1].role", "VALUE_UNKNOWN"),
                ("chat.messages[1].parts", "FIELD_REQUIRED"),
                ("chat.messages[2].role", "VALUE_UNKNOWN"),
                ("chat.messages[2].parts[0]", "FIELD_REQUIRED"),
                ("options.max_output_tokens", "VALUE_OUT_OF_RANGE"),
                ("options.temperature", "VALUE_OUT_OF_RANGE"),
                ("options.top_p", "VALUE_OUT_OF_RANGE"),
                ("options.presence_penalty", "VALUE_OUT_OF_RANGE"),
                ("options.frequency_penalty", "VALUE_OUT_OF_RANGE"),
                ("options.top_k", "VALUE_OUT_OF_RANGE"),
                ("options.stop[1]", "FIELD_REQUIRED"),
                ("options.reasoning_effort", "VALUE_UNKNOWN"),
                ("affinity_key", "VALUE_OUT_OF_RANGE"),
            ],
        ),
        refused("no input", with_input(None), &[("input", "FIELD_REQUIRED")]),
        refused("no messages", chat(Vec::new()), &[("chat.messages", "FIELD_REQUIRED")]),
        refused(
            "an unset part",
            chat(vec![unset]),
            &[("chat.messages[0].parts[0]", "FIELD_REQUIRED")],
        ),
        refused(
            "an empty prompt",
            with_input(Some(Input::Prompt(String::new()))),
            &[("prompt", "FIELD_REQUIRED")],
        ),
        refused(
            "an empty infill",
            with_input(Some(Input::Infill(InfillInput::default()))),
            &[("infill", "FIELD_REQUIRED")],
        ),
        refused(
            "an option out of range",
            too_warm,
            &[("options.temperature", "VALUE_OUT_OF_RANGE")],
        ),
    ]
}

fn parts() -> Vec<RefusedRequest> {
    const NOT_OF_ITS_ROLE: &[(&str, &str)] = &[
        ("chat.messages[0].parts[1]", "VALUE_MALFORMED"),
        ("chat.messages[0].parts[2]", "VALUE_MALFORMED"),
        ("chat.messages[0].parts[3]", "VALUE_MALFORMED"),
    ];
    let all = |role| chat(vec![said(role, [words(), call("c", "f"), result("c"), thought()])]);
    vec![
        refused(
            "parts that a system message must not have",
            all(Role::System),
            NOT_OF_ITS_ROLE,
        ),
        refused(
            "parts that a user message must not have",
            all(Role::User),
            NOT_OF_ITS_ROLE,
        ),
        refused(
            "an assistant message with a tool result and an empty tool call",
            chat(vec![said(Role::Assistant, [result("c"), call("", "")])]),
            &[
                ("chat.messages[0].parts[0]", "VALUE_MALFORMED"),
                ("chat.messages[0].parts[1].tool_call.id", "FIELD_REQUIRED"),
                ("chat.messages[0].parts[1].tool_call.name", "FIELD_REQUIRED"),
            ],
        ),
        refused(
            "a tool message with text, an empty result and reasoning",
            chat(vec![said(Role::Tool, [words(), result(""), thought()])]),
            &[
                ("chat.messages[0].parts[0]", "VALUE_MALFORMED"),
                ("chat.messages[0].parts[1].tool_result.tool_call_id", "FIELD_REQUIRED"),
                ("chat.messages[0].parts[2]", "VALUE_MALFORMED"),
            ],
        ),
    ]
}

fn tools() -> Vec<RefusedRequest> {
    const AUTO: i32 = 1;
    const REQUIRED: i32 = 3;
    let with = |tools: &[(&str, &str)], mode, name: &str| InferRequest {
        tools: tools
            .iter()
            .map(|&(name, parameters)| Tool {
                name: name.to_owned(),
                parameters_json: parameters.to_owned(),
                ..Default::default()
            })
            .collect(),
        tool_choice: Some(ToolChoice {
            mode,
            name: name.to_owned(),
            parallel: Some(true),
        }),
        ..question()
    };
    let f: &[(&str, &str)] = &[("f", "")];
    vec![
        refused(
            "a tool choice with a name that does not require a tool",
            with(f, AUTO, "f"),
            &[("tool_choice.name", "VALUE_MALFORMED")],
        ),
        refused(
            "the choice of a tool that is not in the list",
            with(f, REQUIRED, "g"),
            &[("tool_choice.name", "VALUE_UNKNOWN")],
        ),
        refused(
            "a required tool without a list of tools",
            with(&[], REQUIRED, ""),
            &[("tool_choice.mode", "VALUE_MALFORMED")],
        ),
        refused(
            "an unknown mode",
            with(f, 99, ""),
            &[("tool_choice.mode", "VALUE_UNKNOWN")],
        ),
        refused(
            "a tool without a name",
            with(&[("", "")], AUTO, ""),
            &[("tools[0].name", "FIELD_REQUIRED")],
        ),
        refused(
            "a tool name with a space",
            with(&[("a b", "")], AUTO, ""),
            &[("tools[0].name", "VALUE_MALFORMED")],
        ),
        refused(
            "the same tool twice",
            with(&[("f", ""), ("f", "{}")], AUTO, ""),
            &[("tools[1].name", "VALUE_REPEATED")],
        ),
        refused(
            "parameters that are not an object",
            with(&[("f", "[]")], AUTO, ""),
            &[("tools[0].parameters_json", "VALUE_MALFORMED")],
        ),
    ]
}

fn response_formats() -> Vec<RefusedRequest> {
    const NAME: &str = "response_format.name";
    const SCHEMA: &str = "response_format.schema_json";
    let with = |kind, name: &str, schema: &str| InferRequest {
        response_format: Some(ResponseFormat {
            kind,
            name: name.to_owned(),
            schema_json: schema.to_owned(),
            strict: None,
        }),
        ..question()
    };
    vec![
        refused(
            "an unknown format",
            with(9, "", ""),
            &[("response_format.kind", "VALUE_UNKNOWN")],
        ),
        refused(
            "a schema name for a format without a schema",
            with(2, "n", ""),
            &[(NAME, "VALUE_MALFORMED")],
        ),
        refused(
            "a schema for a format without a schema",
            with(1, "", "{}"),
            &[(SCHEMA, "VALUE_MALFORMED")],
        ),
        refused(
            "a schema without a name",
            with(3, "", "{}"),
            &[(NAME, "FIELD_REQUIRED")],
        ),
        refused(
            "a schema name without a schema",
            with(3, "n", ""),
            &[(SCHEMA, "FIELD_REQUIRED")],
        ),
        refused(
            "a schema that is not an object",
            with(3, "n", "1"),
            &[(SCHEMA, "VALUE_MALFORMED")],
        ),
    ]
}
