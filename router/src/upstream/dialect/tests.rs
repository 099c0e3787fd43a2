//! Tests that every dialect must pass, with streams in the form that real servers send, written after their
//! documentation. The first line of each file in `recorded/` links to the documentation of the form.

use switchboard::resource::model::ApiVersion;

use super::*;
use crate::upstream::sse;

struct Recorded {
    name: &'static str,
    platform: Platform,
    bytes: &'static str,
    /// Expected text and reasoning, and the expected signatures separated by commas.
    said: [&'static str; 3],
    calls: &'static [(&'static str, &'static str, &'static str)],
    finish: FinishReason,
    usage: Usage,
}

macro_rules! recorded {
    ($name:literal, $platform:expr, $said:expr, $calls:expr, $finish:ident, $usage:expr) => {
        Recorded {
            name: $name,
            platform: $platform,
            bytes: include_str!(concat!("recorded/", $name, ".sse")),
            said: $said,
            calls: $calls,
            finish: FinishReason::$finish,
            usage: $usage,
        }
    };
}

fn all() -> [Recorded; 9] {
    use Platform::{Anthropic, AzureOpenAi, OpenAiCompatible as OpenAi};
    let azure = AzureOpenAi {
        api_version: ApiVersion::parse("2024-10-21").unwrap().unwrap(),
    };
    let usage = |input, output, cached_input, reasoning| Usage {
        input: Some(input),
        output: Some(output),
        cached_input,
        reasoning,
    };
    let counts = |input, output| usage(input, output, None, None);
    const BOTH: &[(&str, &str, &str)] = &[("a", "add", "{\"x\":1}"), ("b", "now", "{}")];
    const ANTHROPIC_BOTH: &[(&str, &str, &str)] = &[("toolu_1", "add", "{\"x\": \"ä\"}"), ("toolu_2", "now", "{}")];
    const ADD: &[(&str, &str, &str)] = &[("a", "add", "{\"x\":\"ä\"}")];
    [
        recorded!(
            "vllm",
            OpenAi,
            ["grün 🦀", "let me see", ""],
            &[],
            Stop,
            usage(11, 4, Some(8), None)
        ),
        recorded!("llama_cpp", OpenAi, ["", "", ""], ADD, ToolCalls, counts(20, 7)),
        recorded!("ollama", OpenAi, ["", "hm", ""], BOTH, ToolCalls, counts(5, 6)),
        recorded!(
            "litellm",
            OpenAi,
            ["hello", "", ""],
            &[],
            Stop,
            usage(3, 2, None, Some(0))
        ),
        recorded!("tgi", OpenAi, ["hello", "", ""], &[], Other, counts(3, 2)),
        recorded!(
            "azure",
            azure,
            ["he", "", ""],
            &[],
            ContentFilter,
            usage(9, 1, Some(0), Some(0))
        ),
        recorded!(
            "anthropic_text",
            Anthropic,
            ["grün 🦀", "", ""],
            &[],
            Stop,
            usage(16, 15, Some(5), None)
        ),
        recorded!(
            "anthropic_thinking",
            Anthropic,
            ["yes", "let me see", "EqQBCg==,redacted:Zm9v"],
            &[],
            Length,
            counts(9, 20)
        ),
        recorded!(
            "anthropic_tools",
            Anthropic,
            ["Let's see", "", ""],
            ANTHROPIC_BOTH,
            ToolCalls,
            counts(40, 89)
        ),
    ]
}

/// Decodes a stream of bytes that arrives in pieces and returns its events.
fn events<'a>(platform: &Platform, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let (mut lines, mut dialect) = (sse::Decoder::default(), Decoder::of(platform));
    let mut events = Vec::new();
    for piece in pieces {
        lines.push(piece);
        while let Some(data) = lines.next().unwrap() {
            events.extend(dialect.decode(&data).unwrap());
        }
    }
    events
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Finish(_) | Event::Done)
}

#[test]
fn recorded_streams_decode_to_their_content() {
    for recorded in all() {
        let name = recorded.name;
        let shape = recorded.bytes.lines().next().unwrap();
        assert!(shape.starts_with(": shape: https://"), "{name}");
        let mut said = [String::new(), String::new(), String::new()];
        let mut calls: Vec<[String; 3]> = Vec::new();
        let (mut finish, mut usage, mut is_done) = (None, None, false);
        for event in events(&recorded.platform, [recorded.bytes.as_bytes()]) {
            assert!(!is_done, "{name}: no event follows the end");
            match event {
                Event::Delta(AnswerDelta::Text(text)) => said[0].push_str(text.expose()),
                Event::Delta(AnswerDelta::Reasoning(text)) => said[1].push_str(text.expose()),
                Event::Delta(AnswerDelta::Signature(signature)) => {
                    let separator = if said[2].is_empty() { "" } else { "," };
                    said[2].push_str(separator);
                    said[2].push_str(str::from_utf8(signature.expose()).unwrap());
                }
                Event::Delta(AnswerDelta::ToolCall(call)) => {
                    let index = usize::try_from(call.index).unwrap();
                    if index == calls.len() {
                        calls.push([call.id, call.name, String::new()]);
                    }
                    calls[index][2].push_str(call.arguments.expose());
                }
                Event::Usage(told) => usage = Some(told),
                Event::Finish(reason) => finish = Some(reason),
                Event::Done => is_done = true,
                Event::Alive => unreachable!("decoders do not produce this event"),
            }
        }
        assert_eq!(said, recorded.said, "{name}");
        let expected: Vec<[&str; 3]> = recorded
            .calls
            .iter()
            .map(|&(id, tool, json)| [id, tool, json])
            .collect();
        assert_eq!(calls, expected, "{name}");
        assert_eq!(finish, Some(recorded.finish), "{name}");
        assert_eq!(usage, Some(recorded.usage), "{name}");
        assert!(is_done, "{name}");
    }
}

#[test]
fn recorded_streams_decode_to_the_same_events_at_every_split() {
    for recorded in all() {
        let bytes = recorded.bytes.as_bytes();
        let expected = events(&recorded.platform, [bytes]);
        for split in 0..=bytes.len() {
            let (before, after) = bytes.split_at(split);
            let split_events = events(&recorded.platform, [before, after]);
            assert_eq!(split_events, expected, "{} at {split}", recorded.name);
        }
        assert_eq!(
            events(&recorded.platform, bytes.chunks(1)),
            expected,
            "{}",
            recorded.name
        );
    }
}

#[test]
fn a_truncated_stream_never_looks_complete() {
    for recorded in all() {
        let bytes = recorded.bytes.as_bytes();
        let expected = events(&recorded.platform, [bytes]);
        let deltas = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Delta(_))).count();
        for cut in 0..bytes.len() {
            let events = events(&recorded.platform, [&bytes[..cut]]);
            assert!(expected.starts_with(&events), "{} at {cut}", recorded.name);
            assert!(
                !events.iter().any(is_end) || deltas(&events) == deltas(&expected),
                "{} at {cut}",
                recorded.name
            );
        }
    }
}
