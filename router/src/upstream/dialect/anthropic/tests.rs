//! Tests of the Anthropic dialect beyond the whole streams in `dialect/tests.rs`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use switchboard::resource::model::Platform;

use crate::{
    prompt::{
        Form, InputNotSupported, JsonObject, Message, Options, Prompt, ReasoningEffort, ResponseFormat, Signature,
        Text, Thought, Tool, ToolCall, ToolChoice, ToolResult, Tools, Turn,
    },
    upstream::dialect::{self, Blamed, EncodeError, Event, FinishReason, Oddities, ReplyShape, Whole},
};

fn decoder() -> dialect::Decoder {
    dialect::Decoder::of(&Platform::Anthropic)
}

fn text(text: &str) -> Text {
    Text::from(text.to_owned())
}

fn user(words: &str) -> Message {
    Message::User(text(words))
}

fn signature(text: &str) -> Option<Signature> {
    Signature::of(text.as_bytes().to_vec())
}

fn call(arguments: &str) -> ToolCall {
    ToolCall {
        id: "c1".to_owned(),
        name: "add".to_owned(),
        arguments: text(arguments),
    }
}

fn result(is_error: bool) -> Message {
    Message::Tool(ToolResult {
        tool_call_id: "c1".to_owned(),
        content: text("3"),
        is_error,
    })
}

/// A request to encode: `options` are those of the caller, `filled` are the ones with defaults.
#[derive(Default)]
struct Asked {
    chat: Vec<Message>,
    tools: Tools,
    options: Options,
    filled: Options,
    format: Option<ResponseFormat>,
}

impl Asked {
    fn chat(chat: Vec<Message>) -> Self {
        Self {
            chat,
            ..Self::default()
        }
    }

    fn prompt(&self) -> Prompt<'_> {
        Prompt {
            form: Form::Chat((&self.chat).into()),
            tools: &self.tools,
            response_format: self.format.as_ref(),
            options: self.filled.clone(),
            asked: &self.options,
        }
    }

    fn encoded(&self) -> Value {
        let (path, _) = encode(&self.prompt()).unwrap();
        assert_eq!(path, "/v1/messages");
        let post = dialect::encode(&Platform::Anthropic, &self.prompt(), "claude_3").unwrap();
        serde_json::from_slice(&post.body("m", ReplyShape::Whole)).unwrap()
    }

    fn refused(&self) -> InputNotSupported {
        match encode(&self.prompt()) {
            Err(EncodeError::NotSupported(error)) => error,
            other => panic!("expected an unsupported input: {other:?}"),
        }
    }
}

fn adding() -> Tools {
    Tools {
        list: vec![
            Tool {
                name: "add".to_owned(),
                description: text("adds"),
                parameters: Some(JsonObject::parse(r#"{"type":"object","b":1,"a":2}"#.to_owned()).unwrap()),
                strict: Some(true),
            },
            Tool {
                name: "now".to_owned(),
                description: text(""),
                parameters: None,
                strict: None,
            },
        ],
        ..Tools::default()
    }
}

#[test]
fn a_chat_is_encoded_with_the_fields_that_the_api_requires_and_no_others() {
    assert_eq!(
        Asked::chat(vec![user("hi")]).encoded(),
        json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 4096,
            "model": "m",
            "stream": false,
        })
    );
}

#[test]
fn a_conversation_is_encoded_with_separate_system_texts_and_alternating_roles() {
    let chat = vec![
        Message::System(text("be brief")),
        user("1 + 2?"),
        user("quick"),
        user(" "),
        Message::Assistant(Turn {
            thoughts: vec![
                Thought {
                    text: text("hm"),
                    signature: signature("sig"),
                },
                Thought {
                    text: text(""),
                    signature: signature("redacted:abc"),
                },
                Thought::from(text("of another server")),
                Thought {
                    text: text("of another platform"),
                    signature: Signature::of(vec![0xff]),
                },
            ],
            text: text(""),
            tool_calls: vec![call(r#"{"b":1,"a":2}"#), call(""), call("{\"a\": 1"), call("[]")],
        }),
        result(false),
        result(true),
        Message::System(text("and kind")),
        user("so?"),
        Message::Assistant(Turn::default()),
    ];
    let asked = Asked::chat(chat);
    let use_of = |input: Value| json!({"type": "tool_use", "id": "c1", "name": "add", "input": input});
    assert_eq!(
        asked.encoded(),
        json!({
            "system": "be brief\n\nand kind",
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "1 + 2?"},
                    {"type": "text", "text": "quick"},
                ]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "abc"},
                    use_of(json!({"b": 1, "a": 2})),
                    use_of(json!({})),
                    use_of(json!({"malformed_arguments": "{\"a\": 1"})),
                    use_of(json!({"malformed_arguments": "[]"})),
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "3"},
                    {"type": "tool_result", "tool_use_id": "c1", "content": "3", "is_error": true},
                    {"type": "text", "text": "so?"},
                ]},
            ],
            "max_tokens": 4096,
            "model": "m",
            "stream": false,
        })
    );
    let (_, bytes) = encode(&asked.prompt()).unwrap();
    let bytes = String::from_utf8(bytes).unwrap();
    assert!(bytes.contains(r#"{"b":1,"a":2}"#), "arguments are passed on unchanged");
}

#[test]
fn tools_are_encoded_in_the_form_of_the_api() {
    let mut asked = Asked {
        tools: adding(),
        ..Asked::chat(vec![user("hi")])
    };
    let body = asked.encoded();
    assert_eq!(
        body["tools"],
        json!([
            {"name": "add", "description": "adds", "input_schema": {"type": "object", "b": 1, "a": 2}},
            {"name": "now", "input_schema": {"type": "object"}},
        ])
    );
    for (choice, parallel, expected) in [
        (ToolChoice::Auto, None, Value::Null),
        (ToolChoice::Auto, Some(true), Value::Null),
        (
            ToolChoice::Auto,
            Some(false),
            json!({"type": "auto", "disable_parallel_tool_use": true}),
        ),
        (ToolChoice::None, Some(false), json!({"type": "none"})),
        (ToolChoice::Required, None, json!({"type": "any"})),
        (
            ToolChoice::Only("add".to_owned()),
            Some(false),
            json!({"type": "tool", "name": "add", "disable_parallel_tool_use": true}),
        ),
    ] {
        asked.tools = Tools {
            choice,
            parallel,
            ..adding()
        };
        assert_eq!(asked.encoded()["tool_choice"], expected);
    }
    asked.tools.list.clear();
    assert_eq!(asked.encoded()["tool_choice"], Value::Null);
}

#[test]
fn only_options_that_the_api_supports_are_encoded() {
    let all = Options {
        max_output_tokens: Some(9),
        temperature: Some(1.5),
        top_p: Some(0.9),
        stop: vec![text("END"), text("\n\n")],
        seed: Some(1),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        top_k: Some(40),
        reasoning_effort: None,
    };
    let mut asked = Asked {
        options: all.clone(),
        filled: all,
        ..Asked::chat(Vec::new())
    };
    assert_eq!(
        asked.encoded(),
        json!({
            "messages": [],
            "max_tokens": 9,
            "temperature": 1.0,
            "top_k": 40,
            "stop_sequences": ["END"],
            "model": "m",
            "stream": false,
        })
    );
    asked.options.temperature = None;
    assert_eq!(asked.encoded()["top_p"], 0.9);
    asked.options = Options::default();
    assert_eq!(
        asked.encoded(),
        json!({"messages": [], "max_tokens": 9, "stop_sequences": ["END"], "model": "m", "stream": false}),
        "a family's default temperature is left out"
    );
}

#[test]
fn thinking_excludes_sampling_options_and_is_left_out_for_a_forced_tool() {
    let mut asked = Asked {
        options: Options {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            ..Options::default()
        },
        tools: adding(),
        ..Asked::chat(vec![user("hi")])
    };
    for (effort, expected) in [
        (ReasoningEffort::Low, "low"),
        (ReasoningEffort::Medium, "medium"),
        (ReasoningEffort::High, "high"),
    ] {
        asked.options.reasoning_effort = Some(effort);
        let body = asked.encoded();
        assert_eq!(body["thinking"], json!({"type": "adaptive"}));
        assert_eq!(body["output_config"], json!({"effort": expected}));
        for excluded in ["temperature", "top_p", "top_k"] {
            assert_eq!(body[excluded], Value::Null, "{excluded}");
        }
    }
    asked.tools.choice = ToolChoice::Required;
    assert_eq!(asked.encoded()["thinking"], Value::Null);
    assert_eq!(asked.encoded()["temperature"], 0.5);
    asked.tools.choice = ToolChoice::Auto;
    asked.options.reasoning_effort = Some(ReasoningEffort::None);
    assert_eq!(asked.encoded()["thinking"], Value::Null);
}

#[test]
fn a_response_format_and_a_completion_are_refused() {
    let mut asked = Asked {
        format: Some(ResponseFormat::JsonObject),
        ..Asked::chat(vec![user("hi")])
    };
    let platform = "Anthropic";
    assert_eq!(
        asked.refused(),
        InputNotSupported::ResponseFormatOnPlatform { platform }
    );
    asked.format = None;
    let prompt = Prompt {
        form: Form::Completion {
            prompt: text("def f").into(),
            suffix: None,
        },
        ..asked.prompt()
    };
    let refused = dialect::encode(&Platform::Anthropic, &prompt, "claude_3");
    assert!(matches!(
        refused,
        Err(EncodeError::NotSupported(
            InputNotSupported::CompletionOnPlatform { .. }
        ))
    ));
}

#[test]
fn an_error_type_maps_to_its_http_status() {
    for (kind, expected) in [
        ("invalid_request_error", Some(400)),
        ("authentication_error", Some(401)),
        ("billing_error", Some(402)),
        ("permission_error", Some(403)),
        ("not_found_error", Some(404)),
        ("request_too_large", Some(413)),
        ("rate_limit_error", Some(429)),
        ("api_error", Some(500)),
        ("timeout_error", Some(504)),
        ("overloaded_error", Some(529)),
        ("from_the_future", None),
    ] {
        let data = json!({"type": "error", "error": {"type": kind, "message": "prompt is too long"}}).to_string();
        for failed in [
            decoder().decode(&data).map(drop),
            whole(&data, &mut Oddities::default()).map(drop),
        ] {
            let Err(DialectError::Reported { status, rejection }) = failed else {
                panic!("{kind} is an error");
            };
            assert_eq!(status, expected, "{kind}");
            assert!(rejection.is_too_long);
            assert_eq!(rejection.blamed, Blamed::Input);
        }
    }
    for data in [
        r#"{"type":"error"}"#,
        r#"{"error":"boom"}"#,
        r#"{"error":{"message":"boom"}}"#,
    ] {
        let reported = decoder().decode(data);
        assert!(
            matches!(reported, Err(DialectError::Reported { status: None, .. })),
            "{data}"
        );
    }
}

#[test]
fn malformed_events_are_refused_and_unknown_events_are_ignored() {
    for data in [
        "{",
        // Parts of a call that the caller could not make.
        r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"a","name":5}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
    ] {
        assert_eq!(decoder().decode(data), Err(DialectError::Malformed), "{data}");
    }
    for data in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"type":5}"#,
        r#"{"type":"content_block_start","index":0}"#,
        r#"{"type":"content_block_delta","index":0}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":5}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"message_start"}"#,
        r#"{"type":"content_block_stop","index":7}"#,
        r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":""}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":null}}"#,
    ] {
        assert_eq!(decoder().decode(data), Ok(vec![]), "{data}");
    }
}

#[test]
fn debug_output_of_the_decoder_contains_no_answer_text() {
    let mut decoder = decoder();
    let begin = r#"{"type":"content_block_start","content_block":{"type":"thinking","thinking":"","signature":"can"}}"#;
    let more = r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"ary"}}"#;
    for data in [begin, more] {
        assert_eq!(decoder.decode(data), Ok(vec![]));
        assert!(!format!("{decoder:?}").contains("can"), "{decoder:?}");
    }
    let end = decoder.decode(r#"{"type":"content_block_stop"}"#).unwrap();
    assert_eq!(
        end,
        [Event::Delta(dialect::AnswerDelta::Signature(
            signature("canary").unwrap()
        ))]
    );
}

#[test]
fn every_stop_reason_maps_to_a_finish_reason() {
    for (reason, expected) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("refusal", FinishReason::ContentFilter),
        ("pause_turn", FinishReason::Other),
    ] {
        let data = json!({"type": "message_delta", "delta": {"stop_reason": reason}}).to_string();
        assert_eq!(
            decoder().decode(&data),
            Ok(vec![Event::Finish(expected)]),
            "missing usage is reported as absent, not as zero"
        );
    }
}

#[test]
fn a_whole_answer_is_decoded() {
    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[
        {"type":"thinking","thinking":"hm","signature":"sig"},
        {"type":"thinking","thinking":"","signature":""},
        {"type":"redacted_thinking","data":"abc"},
        {"type":"text","text":"a"},{"type":"text","text":"b"},
        {"type":"tool_use","id":"c1","name":"add","input":{ "x": 1 }},
        {"type":"from_the_future"}
    ],"stop_reason":"tool_use","stop_sequence":null,
    "usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"output_tokens":4}}"#;
    let thought = |words: &str, signed: &str| Thought {
        text: text(words),
        signature: signature(signed),
    };
    let expected = Whole {
        thoughts: vec![thought("hm", "sig"), thought("", "redacted:abc")],
        text: text("ab"),
        tool_calls: vec![call("{ \"x\": 1 }")],
        finish: FinishReason::ToolCalls,
        usage: Some(Usage {
            input: Some(5),
            output: Some(4),
            cached_input: Some(2),
            reasoning: None,
        }),
    };
    assert_eq!(whole(body, &mut Oddities::default()), Ok(expected));
    let read = |body: &[u8]| dialect::whole(&Platform::Anthropic, body, &mut Oddities::default());
    assert_eq!(read(b"{}"), Err(DialectError::Malformed));
    assert_eq!(read(b"{"), Err(DialectError::Malformed));
    assert_eq!(read(b"\xff"), Err(DialectError::InvalidUtf8));
}

proptest! {
    #[test]
    fn a_decoded_thought_is_encoded_unchanged(words in ".{0,8}", signed in "[A-Za-z0-9+/=]{1,8}") {
        let mut decoder = decoder();
        let mut events = Vec::new();
        let block = json!({"type": "thinking", "thinking": words, "signature": signed});
        for data in [
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
            json!({"type": "content_block_stop", "index": 0}),
        ] {
            events.extend(decoder.decode(&data.to_string()).unwrap());
        }
        let mut thought = Thought::default();
        for event in events {
            match event {
                Event::Delta(dialect::AnswerDelta::Reasoning(text)) => thought.text = text,
                Event::Delta(dialect::AnswerDelta::Signature(signature)) => thought.signature = Some(signature),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        let turn = Turn { thoughts: vec![thought], ..Turn::default() };
        let body = Asked::chat(vec![Message::Assistant(turn)]).encoded();
        prop_assert_eq!(&body["messages"][0]["content"][0], &block);
    }

    #[test]
    fn no_data_makes_the_decoder_panic(data in prop::collection::vec(".*", 0..4)) {
        let mut decoder = decoder();
        for data in data {
            let _ = decoder.decode(&data);
            let _ = whole(&data, &mut Oddities::default());
        }
    }
}
