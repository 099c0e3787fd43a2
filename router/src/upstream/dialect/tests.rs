//! Tests that every dialect must pass, with streams in the form that real servers send, written after their
//! documentation. The first line of each file in `recorded/` links to the documentation of the form.

use serde_json::{Value, json};
use switchboard::resource::model::ApiVersion;

use super::*;
use crate::upstream::sse::{self, SseEvent};

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

fn all() -> [Recorded; 11] {
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
        recorded!("mistral", OpenAi, ["yes", "let me see", ""], &[], Stop, counts(9, 5)),
        recorded!(
            "deepseek",
            OpenAi,
            ["y\u{1f600}", "hm", ""],
            &[],
            Length,
            usage(7, 6, Some(0), Some(3))
        ),
        recorded!("tgi", OpenAi, ["hello", "", ""], &[], Stop, counts(3, 2)),
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
        while let Some(event) = lines.next().unwrap() {
            if let SseEvent::Data { text, .. } = event {
                events.extend(dialect.decode(&text).unwrap());
            }
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

/// The text and the reasoning that a stream's events give, event by event, and the error that ended it.
fn said_by_event(platform: &Platform, data: &[String]) -> (Vec<[String; 2]>, Option<DialectError>) {
    let mut decoder = Decoder::of(platform);
    let mut said = Vec::new();
    for data in data {
        let mut texts = [String::new(), String::new()];
        match decoder.decode(data) {
            Ok(events) => {
                for event in events {
                    match event {
                        Event::Delta(AnswerDelta::Text(text)) => texts[0].push_str(text.expose()),
                        Event::Delta(AnswerDelta::Reasoning(text)) => texts[1].push_str(text.expose()),
                        Event::Delta(AnswerDelta::Signature(_) | AnswerDelta::ToolCall(_))
                        | Event::Usage(_)
                        | Event::Finish(_)
                        | Event::Done
                        | Event::Alive => {}
                    }
                }
            }
            Err(error) => return (said, Some(error)),
        }
        said.push(texts);
    }
    (said, None)
}

/// All members of a JSON value, as the keys that lead to them.
fn members(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        path.push(key);
        found.push(path.clone());
        members(child, path, found);
        path.pop();
    }
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|key| format!("/{key}")).collect()
}

/// One event with one member changed in each way that servers change members.
fn mutants(event: &Value, path: &[String]) -> Vec<String> {
    let with = |value: Value| {
        let mut changed = event.clone();
        *changed.pointer_mut(&pointer(path)).unwrap() = value;
        changed.to_string()
    };
    let original = event.pointer(&pointer(path)).unwrap();
    let mut mutants = vec![
        with(Value::Null),
        with(json!({"nested": original})),
        with(json!([original])),
    ];
    let others = [json!("text"), json!(5), json!(0.5), json!(true), json!([]), json!({})];
    // A text in the place of null is not damage.
    let is_other = |other: &Value| !same_type(other, original) && (!original.is_null() || !other.is_string());
    mutants.extend(others.into_iter().filter(is_other).map(&with));
    let (last, parents) = path.split_last().unwrap();
    let mut missing = event.clone();
    let parent = missing.pointer_mut(&pointer(parents)).unwrap();
    if let Some(object) = parent.as_object_mut() {
        object.remove(last);
        mutants.push(missing.to_string());
        // The same member twice: the object is closed by a marker that is replaced in its text.
        for (first, second) in [(original, original), (original, &Value::Null), (&json!(5), original)] {
            let mut doubled = event.clone();
            let object = doubled.pointer_mut(&pointer(parents)).unwrap().as_object_mut().unwrap();
            object.remove(last);
            object.insert("doubled".to_owned(), Value::Null);
            let key = Value::from(last.as_str());
            mutants.push(doubled.to_string().replacen(
                r#""doubled":null"#,
                &format!("{key}:{first},{key}:{second}"),
                1,
            ));
        }
    }
    mutants
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Whatever becomes of one member of one event, the text of all other events is the text that it was, and the event's own
/// text is there or missing, never another. Only a damaged tool call or error may end the answer, and the caller is told.
#[test]
fn a_damaged_member_costs_at_most_its_own_events_text() {
    let mut tried = 0;
    for recorded in all() {
        let name = recorded.name;
        let mut lines = sse::Decoder::default();
        lines.push(recorded.bytes.as_bytes());
        let mut data = Vec::new();
        while let Some(event) = lines.next().unwrap() {
            if let SseEvent::Data { text, .. } = event {
                data.push(text);
            }
        }
        let (whole, error) = said_by_event(&recorded.platform, &data);
        assert_eq!(error, None, "{name}");
        for number in 0..data.len() {
            let Ok(event) = serde_json::from_str::<Value>(&data[number]) else {
                continue;
            };
            let mut paths = Vec::new();
            members(&event, &mut Vec::new(), &mut paths);
            for path in paths {
                for mutant in mutants(&event, &path) {
                    tried += 1;
                    let mut mutated = data.clone();
                    mutated[number].clone_from(&mutant);
                    let (said, error) = said_by_event(&recorded.platform, &mutated);
                    let place = format!("{name}, event {number}: {mutant}");
                    let is_of_call = ["tool", "partial_json"].iter().any(|word| data[number].contains(word));
                    assert!(
                        error.is_none() || is_of_call || mutated_into_error(&mutant),
                        "{place}: {error:?}"
                    );
                    for (index, texts) in said.iter().enumerate() {
                        for (text, expected) in texts.iter().zip(&whole[index]) {
                            // Its own text is there, missing, or the text that the mutant has in its place.
                            let is_own = index == number && matches!(text.as_str(), "" | "text");
                            assert!(text == expected || is_own, "{place}: {text:?} in event {index}");
                        }
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried} mutants");
}

/// Whether the server would mean an error by this.
fn mutated_into_error(event: &str) -> bool {
    let event: Value = serde_json::from_str(event).unwrap();
    event.get("error").is_some_and(|error| !error.is_null())
}
