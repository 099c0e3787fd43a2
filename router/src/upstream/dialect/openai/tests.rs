//! Tests of the OpenAI dialect, with chunks in the form that real servers send.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use switchboard::resource::model::{ApiVersion, Platform};

use crate::{
    prompt::{
        Form, JsonObject, Message, Options, Prompt, ReasoningEffort, ResponseFormat, Text, Thought, Tool, ToolCall,
        ToolChoice, ToolResult, Tools, Turn,
    },
    upstream::{
        dialect::{self, AnswerDelta, EncodeError, Event, FinishReason, Oddities, ReplyShape, ToolCallDelta, Whole},
        sse::{self, SseEvent},
    },
};

fn decoder() -> dialect::Decoder {
    dialect::Decoder::of(&Platform::OpenAiCompatible)
}

fn text(text: &str) -> Text {
    Text::from(text.to_owned())
}

const NO_TOOLS: &Tools = &Tools {
    list: Vec::new(),
    choice: ToolChoice::Auto,
    parallel: None,
};

const NOTHING_ASKED: &Options = &Options {
    max_output_tokens: None,
    temperature: None,
    top_p: None,
    stop: Vec::new(),
    seed: None,
    presence_penalty: None,
    frequency_penalty: None,
    top_k: None,
    reasoning_effort: None,
};

const STREAM: ReplyShape = ReplyShape::Stream { asks_usage: true };

fn prompt(form: Form<'_>) -> Prompt<'_> {
    Prompt {
        form,
        tools: NO_TOOLS,
        response_format: None,
        options: Options::default(),
        asked: NOTHING_ASKED,
    }
}

fn chat(messages: Vec<Message>) -> Prompt<'static> {
    prompt(Form::Chat(messages.into()))
}

fn completion(words: &str) -> Form<'static> {
    Form::Completion {
        prompt: text(words).into(),
        suffix: None,
    }
}

fn encoded(prompt: &Prompt<'_>, family: &str) -> (&'static str, Value) {
    let (path, _) = encode(prompt, family, &Platform::OpenAiCompatible).unwrap();
    let post = dialect::encode(&Platform::OpenAiCompatible, prompt, family).unwrap();
    (path, serde_json::from_slice(&post.body("m", STREAM)).unwrap())
}

/// Decodes one `data` at the beginning of a stream.
fn decode(data: &str) -> Result<Vec<Event>, DialectError> {
    decoder().decode(data)
}

#[test]
fn a_chat_is_encoded_as_messages_without_optional_fields() {
    let (path, body) = encoded(&chat(vec![Message::User(text("hi"))]), "mistral");
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(
        body,
        json!({
            "messages": [{"role": "user", "content": "hi"}],
            "stream_options": {"include_usage": true},
            "model": "m",
            "stream": true,
        })
    );
}

#[test]
fn a_completion_is_encoded_as_text_with_all_options() {
    let suffix = text("end");
    let mut prompt = prompt(Form::Completion {
        prompt: text("def f").into(),
        suffix: Some(&suffix),
    });
    prompt.options = Options {
        max_output_tokens: Some(9),
        temperature: Some(0.1),
        top_p: Some(0.9),
        stop: vec![text("\n\n")],
        seed: Some(-1),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        top_k: Some(40),
        reasoning_effort: Some(ReasoningEffort::Low),
    };
    let (path, body) = encoded(&prompt, "starcoder");
    assert_eq!(path, "/v1/completions");
    assert_eq!(
        body,
        json!({
            "prompt": "def f",
            "suffix": "end",
            "max_tokens": 9,
            "temperature": 0.1,
            "top_p": 0.9,
            "top_k": 40,
            "seed": -1,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "stop": ["\n\n"],
            "stream_options": {"include_usage": true},
            "model": "m",
            "stream": true,
        })
    );
    let (_, gpt) = encoded(&prompt, "gpt");
    assert_eq!(gpt["max_completion_tokens"], 9);
    assert_eq!(gpt["max_tokens"], Value::Null);
}

#[test]
fn azure_gets_only_chats_and_no_options_that_it_rejects() {
    let azure = Platform::AzureOpenAi {
        api_version: ApiVersion::parse("2024-10-21").unwrap().unwrap(),
    };
    let refused = dialect::encode(&azure, &prompt(completion("x")), "gpt");
    assert!(matches!(refused, Err(EncodeError::NotSupported(_))));
    let mut prompt = chat(vec![Message::User(text("hi"))]);
    prompt.options.max_output_tokens = Some(5);
    prompt.options.top_k = Some(40);
    let post = dialect::encode(&azure, &prompt, "gpt").unwrap();
    let body: Value = serde_json::from_slice(&post.body("deployment", ReplyShape::Whole)).unwrap();
    assert_eq!(
        body,
        json!({
            "messages": [{"role": "user", "content": "hi"}],
            "max_completion_tokens": 5,
            "model": "deployment",
            "stream": false,
        })
    );
}

#[test]
fn a_conversation_with_tools_is_encoded_in_the_form_of_the_api() {
    let tools = Tools {
        list: vec![
            Tool {
                name: "add".to_owned(),
                description: text("adds"),
                parameters: Some(JsonObject::parse(r#"{"type": "object", "a": 1}"#.to_owned()).unwrap()),
                strict: Some(true),
            },
            Tool {
                name: "now".to_owned(),
                description: text(""),
                parameters: None,
                strict: None,
            },
        ],
        choice: ToolChoice::Only("add".to_owned()),
        parallel: Some(false),
    };
    let format = ResponseFormat::JsonSchema {
        name: "n".to_owned(),
        schema: JsonObject::parse(r#"{"b":1,"a":2}"#.to_owned()).unwrap(),
        strict: Some(true),
    };
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "add".to_owned(),
        arguments: text("{\"a\": 1"),
    };
    let result = |is_error| {
        Message::Tool(ToolResult {
            tool_call_id: "c1".to_owned(),
            content: text("3"),
            is_error,
        })
    };
    let mut prompt = chat(vec![
        Message::System(text("be brief")),
        Message::User(text("1 + 2?")),
        Message::Assistant(Turn {
            thoughts: vec![Thought::from(text("no server takes it back"))],
            text: text(""),
            tool_calls: vec![call],
        }),
        result(false),
        result(true),
        Message::Assistant(Turn {
            text: text("3"),
            ..Turn::default()
        }),
    ]);
    prompt.tools = &tools;
    prompt.response_format = Some(&format);
    prompt.options.reasoning_effort = Some(ReasoningEffort::High);
    let (_, body) = encoded(&prompt, "mistral");
    assert_eq!(
        body,
        json!({
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "1 + 2?"},
                {
                    "role": "assistant",
                    "content": null,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1"}},
                    ],
                },
                {"role": "tool", "content": "3", "tool_call_id": "c1"},
                {"role": "tool", "content": "The call failed:\n3", "tool_call_id": "c1"},
                {"role": "assistant", "content": "3"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "add",
                        "description": "adds",
                        "parameters": {"type": "object", "a": 1},
                        "strict": true,
                    },
                },
                {"type": "function", "function": {"name": "now"}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
            "parallel_tool_calls": false,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"b": 1, "a": 2}, "strict": true},
            },
            "reasoning_effort": "high",
            "model": "m",
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
    let (_, bytes) = encode(&prompt, "mistral", &Platform::OpenAiCompatible).unwrap();
    let bytes = String::from_utf8(bytes).unwrap();
    assert!(
        bytes.contains(r#"{"type": "object", "a": 1}"#),
        "a schema is passed on unchanged"
    );

    prompt.response_format = Some(&ResponseFormat::JsonObject);
    for (choice, expected) in [
        (ToolChoice::Auto, Value::Null),
        (ToolChoice::None, json!("none")),
        (ToolChoice::Required, json!("required")),
    ] {
        let tools = Tools {
            choice,
            ..tools.clone()
        };
        let prompt = Prompt {
            tools: &tools,
            ..prompt.clone()
        };
        let (_, body) = encoded(&prompt, "mistral");
        assert_eq!(body["tool_choice"], expected);
        assert_eq!(body["response_format"], json!({"type": "json_object"}));
    }
}

fn said(text_: &str) -> Event {
    Event::Delta(AnswerDelta::Text(text(text_)))
}

fn thought(text_: &str) -> Event {
    Event::Delta(AnswerDelta::Reasoning(text(text_)))
}

#[test]
fn the_chunks_of_real_servers_are_decoded() {
    let usage = |input, output| {
        Event::Usage(Usage {
            input,
            output,
            ..Usage::default()
        })
    };
    for (data, expected) in [
        (
            r#"{"choices":[{"index":0,"delta":{"content":"he"}}]}"#,
            vec![said("he")],
        ),
        (r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#, vec![]),
        (
            r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":""}]}"#,
            vec![],
        ),
        (
            r#"{"choices":[{"delta":null,"finish_reason":null}],"usage":null}"#,
            vec![],
        ),
        (r#"{"choices":[]}"#, vec![]),
        (
            r#"{"choices":[{"delta":{"content":null,"refusal":"I cannot"}}]}"#,
            vec![said("I cannot")],
        ),
        (r#"{"choices":null,"x":{"y":1}}"#, vec![]),
        ("{}", vec![]),
        (
            r#"{"choices":[{"index":1,"delta":{"content":"no"},"finish_reason":"stop"}]}"#,
            vec![],
        ),
        (
            r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#,
            vec![thought("hm")],
        ),
        (
            r#"{"choices":[{"delta":{"reasoning":"hm","content":"a"}}]}"#,
            vec![thought("hm"), said("a")],
        ),
        (
            r#"{"choices":[{"delta":{"reasoning":"hm","reasoning_content":"hm"}}]}"#,
            vec![thought("hm")],
        ),
        (
            r#"{"choices":[{"index":0,"text":"x = 1","finish_reason":"length"}]}"#,
            vec![said("x = 1"), Event::Finish(FinishReason::Length)],
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            vec![Event::Finish(FinishReason::Stop), usage(Some(3), Some(4))],
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#,
            vec![Event::Finish(FinishReason::ContentFilter)],
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"repetition"}]}"#,
            vec![Event::Finish(FinishReason::Other)],
        ),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":99999999999}}"#,
            vec![usage(None, Some(i32::MAX))],
        ),
        (
            r#"{"usage":{"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":5}}}"#,
            vec![Event::Usage(Usage {
                cached_input: Some(2),
                reasoning: Some(5),
                ..Usage::default()
            })],
        ),
        ("[DONE]", vec![Event::Done]),
        (" [DONE] ", vec![Event::Done]),
    ] {
        assert_eq!(decode(data), Ok(expected), "{data}");
    }
}

#[test]
fn an_error_in_a_stream_maps_to_the_status_of_its_code() {
    for (data, expected) in [
        (r#"{"error":{"message":"boom","code":503}}"#, Some(503)),
        (r#"{"error":{"message":"boom","code":"429"}}"#, Some(429)),
        (r#"{"error":{"message":"boom","code":"overloaded"}}"#, None),
        (r#"{"error":"boom"}"#, None),
        (r#"{"error":{"code":7}}"#, None),
        (
            r#"{"error":{"type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            Some(400),
        ),
        (r#"{"error":{"type":"invalid_request_error","code":null}}"#, Some(400)),
        (r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#, Some(429)),
        (r#"{"error":{"type":"server_error","code":null}}"#, None),
        (r#"{"object":"error","message":"boom","code":400}"#, Some(400)),
    ] {
        let Err(DialectError::Reported { status, .. }) = decode(data) else {
            panic!("{data} should be an error");
        };
        assert_eq!(status, expected, "{data}");
    }
}

#[test]
fn only_data_that_is_not_json_is_malformed() {
    for data in ["{", "hello", "[DONE", r#"{"choices":[]} x"#, r#"{"choices":\ud83d}"#] {
        assert_eq!(decode(data), Err(DialectError::Malformed), "{data}");
    }
    for data in [
        "",
        " ",
        "null",
        "[]",
        r#""ping""#,
        r#"{"type":"ping"}"#,
        r#"{"choices":5}"#,
        r#"{"choices":"\ud83d"}"#,
        r#"{"\ud83d":1}"#,
        r#"{"choices":[{"delta":{"content":5}}]}"#,
    ] {
        assert_eq!(decode(data), Ok(vec![]), "{data}");
    }
}

/// Decodes a stream of bytes that arrives in pieces. Returns the events, and whether decoding failed.
fn stream<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, bool) {
    let (mut decoder, mut dialect) = (sse::Decoder::default(), decoder());
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(SseEvent::Heartbeat)) => {}
                Ok(Some(SseEvent::Data { text, .. })) => match dialect.decode(&text) {
                    Ok(more) => events.extend(more),
                    Err(_) => return (events, true),
                },
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

/// Streams in the form that real servers send.
const RECORDED: [(&str, &str); 4] = [
    // vLLM: id and name first, then the arguments in pieces, and two calls one after the other.
    (
        "vllm",
        concat!(
            "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"index\":0,\"function\":{\"name\":\"add\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\": \\\"ä\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"🦀\\\"}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"id\":\"b\",\"index\":1,\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n",
        ),
    ),
    // llama.cpp: id and name are repeated, and the content is null.
    (
        "repeating",
        concat!(
            "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"add\",\"arguments\":\"{\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"add\",\"arguments\":\"\\\"x\\\": \\\"ä🦀\\\"}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"finish_reason\":\"tool_calls\",\"index\":0,\"delta\":{}}]}\n\ndata: [DONE]\n\n",
        ),
    ),
    // Complete calls that all have the index 0; the finish reason is `stop`.
    (
        "one index for all",
        concat!(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"index\":0,\"function\":{\"name\":\"add\",\"arguments\":\"{\\\"x\\\": \\\"ä🦀\\\"}\"}}]}}]}\r\n\r\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"id\":\"b\",\"index\":0,\"function\":{\"name\":\"now\",\"arguments\":{}}}]}}]}\r\n\r\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: [DONE]\r\n\r\n",
        ),
    ),
    // Calls without an index.
    (
        "no index",
        concat!(
            "data:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"add\",\"arguments\":\"{\\\"x\\\": \"}}]}}]}\n\n",
            "data:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"\\\"ä🦀\\\"}\"}}]}}]}\n\n",
            "data:{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"b\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n",
        ),
    ),
];

/// Assembles the tool calls of an answer as a caller does, and checks that id and name come once.
fn calls(events: &[Event]) -> Vec<(String, String, String)> {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    for event in events {
        let Event::Delta(AnswerDelta::ToolCall(piece)) = event else {
            continue;
        };
        let index = usize::try_from(piece.index).unwrap();
        if index == calls.len() {
            assert!(
                !piece.id.is_empty() && !piece.name.is_empty(),
                "a call's first piece has both"
            );
            calls.push((piece.id.clone(), piece.name.clone(), String::new()));
        } else {
            assert!(
                piece.id.is_empty() && piece.name.is_empty(),
                "only a call's first piece has them"
            );
        }
        calls[index].2.push_str(piece.arguments.expose());
    }
    calls
}

#[test]
fn recorded_tool_calls_decode_to_the_same_events_at_every_split() {
    let call = |id: &str, name: &str, arguments: &str| (id.to_owned(), name.to_owned(), arguments.to_owned());
    let expected = [call("a", "add", r#"{"x": "ä🦀"}"#), call("b", "now", "{}")];
    for (name, recorded) in RECORDED {
        let bytes = recorded.as_bytes();
        let (events, failed) = stream([bytes]);
        assert!(!failed, "{name}");
        assert_eq!(calls(&events), expected, "{name}");
        assert!(events.contains(&Event::Finish(FinishReason::ToolCalls)), "{name}");
        for split in 0..=bytes.len() {
            let (before, after) = bytes.split_at(split);
            assert_eq!(stream([before, after]), (events.clone(), false), "{name} at {split}");
        }
    }
}

#[test]
fn calls_without_an_id_get_one_and_interleaved_calls_are_not_mixed() {
    let mut decoder = decoder();
    let mut piece = |calls: &str| {
        let data = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{calls}]}}}}]}}"#);
        decoder.decode(&data).unwrap()
    };
    let event = |index, id: &str, name: &str, arguments: &str| {
        Event::Delta(AnswerDelta::ToolCall(ToolCallDelta {
            index,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: text(arguments),
        }))
    };
    assert_eq!(
        piece(r#"{"index":3,"id":"","function":{"name":"f"}},{"index":7,"id":"z","function":{"name":"g"}}"#),
        [event(0, "call_0", "f", ""), event(1, "z", "g", "")]
    );
    assert_eq!(
        piece(r#"{"index":7,"function":{"arguments":"1"}},{"index":3,"function":{"arguments":"2"}}"#),
        [event(1, "", "", "1"), event(0, "", "", "2")]
    );
    assert_eq!(piece(r#"{"index":3,"function":{"arguments":""}},{"index":7}"#), []);
}

#[test]
fn a_whole_answer_is_decoded() {
    let usage = Usage {
        input: Some(3),
        output: Some(4),
        ..Usage::default()
    };
    let answer = |reasoning: &str, words: &str, finish| Whole {
        thoughts: Some(text(reasoning))
            .filter(|text| !text.is_empty())
            .map(Thought::from)
            .into_iter()
            .collect(),
        text: text(words),
        tool_calls: Vec::new(),
        finish,
        usage: None,
    };
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: text("{ }"),
    };
    for (body, expected) in [
        (
            r#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            Whole {
                usage: Some(usage),
                ..answer("", "hi", FinishReason::Stop)
            },
        ),
        (
            r#"{"choices":[{"index":1,"message":{"content":"no"}},{"index":0,"message":{"content":"a","reasoning_content":"hm"},"finish_reason":"length"}]}"#,
            answer("hm", "a", FinishReason::Length),
        ),
        (
            r#"{"choices":[{"index":0,"text":"x = 1","finish_reason":"stop"}]}"#,
            answer("", "x = 1", FinishReason::Stop),
        ),
        (
            r#"{"choices":[{"message":{"content":null}}]}"#,
            answer("", "", FinishReason::Other),
        ),
        (
            r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{ }"}},{"function":{"name":"f","arguments":{ }}}]},"finish_reason":"stop"}]}"#,
            Whole {
                tool_calls: vec![call("a"), call("call_1")],
                ..answer("", "", FinishReason::ToolCalls)
            },
        ),
    ] {
        assert_eq!(whole(body, &mut Oddities::default()), Ok(expected), "{body}");
    }
    for (body, expected) in [
        (&b"{"[..], DialectError::Malformed),
        (b"{}", DialectError::Malformed),
        (br#"{"choices":[]}"#, DialectError::Malformed),
        (b"\xff", DialectError::InvalidUtf8),
    ] {
        assert_eq!(
            dialect::whole(&Platform::OpenAiCompatible, body, &mut Oddities::default()),
            Err(expected)
        );
    }
    for failed in [
        r#"{"error":{"code":503}}"#,
        r#"{"choices":[{"message":{"content":"half"},"finish_reason":"abort"}]}"#,
    ] {
        assert!(
            matches!(
                whole(failed, &mut Oddities::default()),
                Err(DialectError::Reported { .. })
            ),
            "{failed}"
        );
    }
}

proptest! {
    #[test]
    fn any_split_of_a_stream_decodes_to_the_same_answer(
        texts in prop::collection::vec(".{0,6}", 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = Vec::new();
        for text in &texts {
            let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
            bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        let mut cut_points: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cut_points.extend([0, bytes.len()]);
        cut_points.sort_unstable();

        let (events, _) = stream([bytes.as_slice()]);
        let joined: String = events
            .iter()
            .filter_map(|event| match event {
                Event::Delta(AnswerDelta::Text(text)) => Some(text.expose()),
                _ => None,
            })
            .collect();
        prop_assert_eq!(joined, texts.concat());
        let pieces = cut_points.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(&stream(pieces).0, &events);
        prop_assert_eq!(&stream(bytes.chunks(1)).0, &events);
    }

    #[test]
    fn no_data_makes_the_decoder_panic(data in ".*") {
        let _ = decode(&data);
    }
}
