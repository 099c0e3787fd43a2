//! What the dialect promises, with chunks as servers in the field send them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::upstream::sse;

fn text(text: &str) -> Text {
    Text::from(text.to_owned())
}

fn prompt(form: Form) -> Prompt {
    Prompt {
        form,
        options: Options::default(),
    }
}

fn encoded(prompt: &Prompt, family: &str) -> (&'static str, Value) {
    let post = encode(prompt, "m", family).unwrap();
    (post.path, serde_json::from_slice(&post.body).unwrap())
}

#[test]
fn a_chat_is_posted_as_messages_and_nothing_unasked() {
    let message = Message {
        role: Role::User,
        text: text("hi"),
    };
    let (path, body) = encoded(&prompt(Form::Chat(vec![message])), "mistral");
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
fn a_completion_is_posted_as_text_with_all_options() {
    let mut prompt = prompt(Form::Completion(text("def f")));
    prompt.options = Options {
        max_output_tokens: Some(9),
        temperature: Some(0.1),
        top_p: Some(0.9),
        stop: vec![text("\n\n")],
        seed: Some(-1),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        top_k: Some(40),
    };
    let (path, body) = encoded(&prompt, "starcoder");
    assert_eq!(path, "/v1/completions");
    assert_eq!(
        body,
        json!({
            "prompt": "def f",
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
fn model_and_stream_are_set_last() {
    let post = encode(&prompt(Form::Completion(text("x"))), "m", "qwen").unwrap();
    assert!(post.body.ends_with(br#""model":"m","stream":true}"#));
}

fn said(text_: &str) -> Event {
    Event::Delta(Delta::Text(text(text_)))
}

fn thought(text_: &str) -> Event {
    Event::Delta(Delta::Reasoning(text(text_)))
}

#[test]
fn every_chunk_of_servers_in_the_field_is_read() {
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
fn an_error_within_a_stream_is_told_by_its_own_code() {
    for (data, expected) in [
        (r#"{"error":{"message":"boom","code":503}}"#, Some(503)),
        (r#"{"error":{"message":"boom","code":"429"}}"#, Some(429)),
        (r#"{"error":{"message":"boom","code":"overloaded"}}"#, None),
        (r#"{"error":"boom"}"#, None),
        (r#"{"error":{"code":7}}"#, None),
        (r#"{"object":"error","message":"boom","code":400}"#, Some(400)),
    ] {
        let Err(DialectError::Reported { status, .. }) = decode(data) else {
            panic!("{data} is an error");
        };
        assert_eq!(status, expected, "{data}");
    }
}

#[test]
fn what_is_no_chunk_is_malformed() {
    for data in [
        "",
        "null",
        "[]",
        "{",
        "hello",
        r#"{"choices":[{"delta":{"content":5}}]}"#,
        "[DONE",
    ] {
        assert_eq!(decode(data), Err(DialectError::Malformed), "{data}");
    }
}

#[test]
fn a_refusal_is_read_for_what_it_blames() {
    for (body, is_too_long, blamed) in [
        (r#"{"error":{"code":"context_length_exceeded"}}"#, true, Blamed::Input),
        (
            "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens",
            true,
            Blamed::Input,
        ),
        (
            r#"{"error":{"type":"exceed_context_size_error","n_ctx":512}}"#,
            true,
            Blamed::Input,
        ),
        (
            "The decoder prompt (length 9) is longer than the maximum model length of 8",
            true,
            Blamed::Input,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 2048",
            true,
            Blamed::MaxOutputTokens,
        ),
        (r#"{"error":{"param":"max_tokens"}}"#, false, Blamed::MaxOutputTokens),
        ("conversation roles must alternate", false, Blamed::Input),
        ("\u{0}", false, Blamed::Input),
    ] {
        assert_eq!(rejection(body.as_bytes()), Rejection { is_too_long, blamed }, "{body}");
    }
}

/// The events of a whole stream of bytes in pieces, or that it fails.
fn stream<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, bool) {
    let mut decoder = sse::Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(data)) => match decode(&data) {
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

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_the_same_answer(
        texts in prop::collection::vec(".{0,6}", 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut bytes = Vec::new();
        for text in &texts {
            let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
            bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();

        let (events, _) = stream([bytes.as_slice()]);
        let joined: String = events
            .iter()
            .filter_map(|event| match event {
                Event::Delta(Delta::Text(text)) => Some(text.expose()),
                _ => None,
            })
            .collect();
        prop_assert_eq!(joined, texts.concat());
        let pieces = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(&stream(pieces).0, &events);
        prop_assert_eq!(&stream(bytes.chunks(1)).0, &events);
    }

    #[test]
    fn no_data_makes_the_decoder_panic(data in ".*") {
        let _ = decode(&data);
    }
}
