//! Tests of which requests are accepted, and how they are converted.

use switchboard::pb::router::part;

use super::*;
use crate::{
    prompt::{Infill, Message, ResponseFormat, Signature, Thought, ToolCall, ToolChoice, ToolResult, Turn},
    refused_requests::{RefusedRequest, refused_requests},
    wire::routing::AFFINITY_KEY_MAX,
};

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
fn the_parts_of_a_message_are_joined_in_order() {
    let request = Request::try_from(chat(vec![message(&["a", "b"]), message(&["c"])])).unwrap();
    let Input::Chat(messages) = request.input else {
        panic!("a chat should be converted to a chat");
    };
    let text = |text: &str| Text::from(text.to_owned());
    assert_eq!(messages, [Message::User(text("ab")), Message::User(text("c"))]);
}

#[test]
fn a_refused_request_names_every_bad_field() {
    for RefusedRequest { name, request, fields } in refused_requests() {
        let expected = fields.iter().map(|&(field, reason)| (field.to_owned(), reason));
        let told = refused(request)
            .into_iter()
            .map(|(field, reason)| (field, reason.as_str()));
        assert!(told.eq(expected), "{name}");
    }
}

#[test]
fn the_bounds_of_every_range_are_accepted() {
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
        reasoning_effort: Some(1),
    });
    wire.affinity_key = "ä".repeat(AFFINITY_KEY_MAX);
    assert!(Request::try_from(wire).is_ok());
    let longest = "ä".repeat(CHARACTERS_MAX);
    assert!(Request::try_from(chat(vec![message(&[&longest])])).is_ok());
}

#[test]
fn values_beyond_a_limit_are_refused() {
    let beyond = |field: &str| vec![(field.to_owned(), FieldReason::ValueOutOfRange)];
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
    let mut stops = prompt("x".to_owned());
    stops.options = Some(router::InferOptions {
        stop: vec!["x".to_owned(); STOPS_MAX + 1],
        ..router::InferOptions::default()
    });
    assert_eq!(refused(stops), beyond("options.stop"));
    let mut affine = prompt("x".to_owned());
    affine.affinity_key = "x".repeat(AFFINITY_KEY_MAX + 1);
    assert_eq!(refused(affine), beyond("affinity_key"));
}

fn said(role: router::Role, kinds: Vec<part::Kind>) -> router::Message {
    router::Message {
        role: role.into(),
        parts: kinds
            .into_iter()
            .map(|kind| router::Part { kind: Some(kind) })
            .collect(),
    }
}

fn call(id: &str, name: &str) -> part::Kind {
    part::Kind::ToolCall(router::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments_json: "{".to_owned(),
    })
}

fn result(id: &str) -> part::Kind {
    part::Kind::ToolResult(router::ToolResult {
        tool_call_id: id.to_owned(),
        content: "3".to_owned(),
        is_error: true,
    })
}

fn words() -> part::Kind {
    part::Kind::Text("a".to_owned())
}

fn thought() -> part::Kind {
    part::Kind::Reasoning(router::Reasoning {
        text: "hm".to_owned(),
        signature: vec![1],
    })
}

#[test]
fn tool_calls_and_results_are_converted_and_each_result_is_a_message() {
    use router::Role::{Assistant, Tool};
    let wire = chat(vec![
        said(Assistant, vec![thought(), words(), call("c1", "f"), call("c2", "f")]),
        said(Tool, vec![result("c1"), result("c2")]),
    ]);
    let text = |text: &str| Text::from(text.to_owned());
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: text("{"),
    };
    let result = |id: &str| {
        Message::Tool(ToolResult {
            tool_call_id: id.to_owned(),
            content: text("3"),
            is_error: true,
        })
    };
    let expected = vec![
        Message::Assistant(Turn {
            thoughts: vec![Thought {
                text: text("hm"),
                signature: Signature::of(vec![1]),
            }],
            text: text("a"),
            tool_calls: vec![call("c1"), call("c2")],
        }),
        result("c1"),
        result("c2"),
    ];
    assert_eq!(Request::try_from(wire).unwrap().input, Input::Chat(expected));
}

fn tool(name: &str, parameters: &str) -> router::Tool {
    router::Tool {
        name: name.to_owned(),
        parameters_json: parameters.to_owned(),
        ..Default::default()
    }
}

#[test]
fn tools_and_their_choice_are_checked_together() {
    let wire = |tools, mode: i32, name: &str| router::InferRequest {
        tools,
        tool_choice: Some(router::ToolChoice {
            mode,
            name: name.to_owned(),
            parallel: Some(true),
        }),
        ..chat(vec![message(&["a"])])
    };
    let (auto, none, required) = (1, 2, 3);
    let f = || vec![tool("f", "")];
    for (tools, mode, name, expected) in [
        (f(), auto, "", ToolChoice::Auto),
        (f(), 0, "", ToolChoice::Auto),
        (f(), none, "", ToolChoice::None),
        (f(), required, "", ToolChoice::Required),
        (f(), required, "f", ToolChoice::Only("f".to_owned())),
        (Vec::new(), none, "", ToolChoice::None),
    ] {
        let tools = Request::try_from(wire(tools, mode, name)).unwrap().tools;
        assert_eq!((tools.choice, tools.parallel), (expected, Some(true)));
    }
    let many = (0..=TOOLS_MAX).map(|number| tool(&format!("f{number}"), "")).collect();
    assert_eq!(
        refused(wire(many, auto, "")),
        [("tools".to_owned(), FieldReason::ValueOutOfRange)]
    );
}

#[test]
fn a_response_format_is_plain_text_an_object_or_a_named_schema() {
    let wire = |kind, name: &str, schema: &str| router::InferRequest {
        response_format: Some(router::ResponseFormat {
            kind,
            name: name.to_owned(),
            schema_json: schema.to_owned(),
            strict: None,
        }),
        ..chat(vec![message(&["a"])])
    };
    for kind in [0, 1] {
        assert_eq!(Request::try_from(wire(kind, "", "")).unwrap().response_format, None);
    }
    let format = Request::try_from(wire(2, "", "")).unwrap().response_format;
    assert_eq!(format, Some(ResponseFormat::JsonObject));
    let format = Request::try_from(wire(3, "n", "{}")).unwrap().response_format;
    assert!(matches!(format, Some(ResponseFormat::JsonSchema { name, .. }) if name == "n"));
}

#[test]
fn an_infill_is_accepted_up_to_its_limits() {
    use FieldReason::ValueOutOfRange;
    let wire = |infill| router::InferRequest {
        input: Some(infer_request::Input::Infill(infill)),
        ..chat(Vec::new())
    };
    let snippet = |content: &str| router::InfillContext {
        name: "n".to_owned(),
        content: content.to_owned(),
    };
    let longest = || router::InfillInput {
        prefix: "ä".repeat(CODE_CHARACTERS_MAX),
        suffix: "ä".repeat(CODE_CHARACTERS_MAX),
        context: vec![snippet("a"); SNIPPETS_MAX],
        ..Default::default()
    };
    let Input::Infill(Infill { prefix, context, .. }) = Request::try_from(wire(longest())).unwrap().input else {
        panic!("an infill should be converted to an infill");
    };
    assert_eq!((prefix.len(), context.len()), (2 * CODE_CHARACTERS_MAX, SNIPPETS_MAX));

    let mut too_long = longest();
    too_long.prefix.push('x');
    too_long.suffix.push('x');
    too_long.context.push(snippet("a"));
    let fields = ["infill.prefix", "infill.suffix", "infill.context"];
    assert_eq!(
        refused(wire(too_long)),
        fields.map(|field| (field.to_owned(), ValueOutOfRange))
    );
    let mut too_much = longest();
    too_much.context[0].content = "x".repeat(CODE_CHARACTERS_MAX);
    too_much.instruction = "x".repeat(CODE_CHARACTERS_MAX);
    assert_eq!(refused(wire(too_much)), [("infill".to_owned(), ValueOutOfRange)]);
}
