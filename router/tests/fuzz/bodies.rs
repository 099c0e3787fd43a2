//! The properties that hold for arbitrary bytes: each function panics if a property is violated.
//!
//! The tests run these functions over the corpora in `fuzz/corpus` and over random mutations of them; the fuzzer in
//! `fuzz/` searches for more inputs.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each fuzz target uses one of the functions"
)]
#![expect(clippy::unwrap_used, reason = "a violated property panics")]

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use serde_json::value::RawValue;
use switchboard::{
    catalogue::Catalogue,
    names::FeatureName,
    pb::router::InferRequest,
    resource::model::{ApiVersion, InfillMode, Platform},
    service::deadline,
};
use switchboard_router::{
    probe::engine,
    prompt::{self, PromptTarget, Request},
    upstream::{
        dialect::{self, AnswerDelta, Decoder, Event, Oddities, Rejection, ReplyShape},
        model_list::ModelList,
        response::parse_retry_after,
        sse::{self, EVENT_BYTES_MAX, SseEvent},
    },
};
use tonic::metadata::{MetadataMap, MetadataValue};

type Body = fn(&[u8]);

/// All bodies, with the names of their corpora.
pub(crate) const ALL: [(&str, Body); 11] = [
    ("sse", sse),
    ("openai_stream", openai_stream),
    ("anthropic_stream", anthropic_stream),
    ("openai_text", openai_text),
    ("anthropic_text", anthropic_text),
    ("whole", whole),
    ("refusal", refusal),
    ("grpc_timeout", grpc_timeout),
    ("request", request),
    ("engine_page", engine_page),
    ("model_list", model_list),
];

/// The decoder returns the same events however the bytes are split, and no event exceeds its limit.
pub(crate) fn sse(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut decoder = sse::Decoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(SseEvent::Data { text, .. })) => events.push(text),
                    Ok(Some(SseEvent::Heartbeat)) => {}
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                }
            }
        }
        (events, None)
    };
    let whole = read(&mut [bytes].into_iter());
    assert!(whole.0.iter().all(|data| data.len() <= EVENT_BYTES_MAX));
    assert_eq!(read(&mut bytes.chunks(1)), whole);
    assert_eq!(read(&mut bytes.chunks(7)), whole);
}

pub(crate) fn openai_stream(bytes: &[u8]) {
    stream(&Platform::OpenAiCompatible, bytes);
}

pub(crate) fn anthropic_stream(bytes: &[u8]) {
    stream(&Platform::Anthropic, bytes);
}

/// The decoder returns the same events however the stream is split. No piece is empty, and tool calls have consecutive
/// indexes.
fn stream(platform: &Platform, bytes: &[u8]) {
    let events = events(platform, &mut [bytes].into_iter());
    assert_eq!(self::events(platform, &mut bytes.chunks(1)), events);
    let mut calls = 0;
    for event in events.0 {
        match event {
            Event::Delta(AnswerDelta::Text(text) | AnswerDelta::Reasoning(text)) => assert!(!text.is_empty()),
            Event::Delta(AnswerDelta::Signature(signature)) => assert!(!signature.expose().is_empty()),
            Event::Delta(AnswerDelta::ToolCall(call)) => {
                assert!((0..=calls).contains(&call.index));
                calls = calls.max(call.index + 1);
            }
            Event::Usage(usage) => {
                for count in [usage.input, usage.output, usage.cached_input, usage.reasoning] {
                    assert!(count.is_none_or(|count| count >= 0));
                }
            }
            Event::Finish(_) | Event::Done | Event::Alive => {}
        }
    }
}

/// Returns the events of a stream, and whether it failed.
fn events(platform: &Platform, pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<Event>, bool) {
    let (mut lines, mut decoder) = (sse::Decoder::default(), Decoder::of(platform));
    let mut events = Vec::new();
    for piece in pieces {
        lines.push(piece);
        loop {
            match lines.next() {
                Ok(Some(SseEvent::Heartbeat)) => {}
                Ok(Some(SseEvent::Data { text, .. })) => match decoder.decode(&text) {
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

pub(crate) fn openai_text(bytes: &[u8]) {
    let delta = |text: &[u8]| [br#"{"choices":[{"delta":{"content":""#, text, br#""}}]}"#].concat();
    text(&Platform::OpenAiCompatible, delta, bytes);
}

pub(crate) fn anthropic_text(bytes: &[u8]) {
    let delta = |text: &[u8]| {
        [
            br#"{"type":"content_block_delta","delta":{"type":"text_delta","text":""#,
            text,
            br#""}}"#,
        ]
        .concat()
    };
    text(&Platform::Anthropic, delta, bytes);
}

/// The text that the server sends is the text that the decoder returns, however the server cuts it into events: within a
/// character, as bytes or as escapes. The first byte says how: its lower half is the length of the pieces.
fn text(platform: &Platform, delta: impl Fn(&[u8]) -> Vec<u8>, bytes: &[u8]) {
    let Some((&how, sent)) = bytes.split_first() else {
        return;
    };
    let escapes = how & 0x80 != 0;
    let (mut lines, mut decoder) = (sse::Decoder::default(), Decoder::of(platform));
    let mut returned = String::new();
    let mut add = |events: Vec<Event>| {
        for event in events {
            if let Event::Delta(AnswerDelta::Text(text)) = event {
                returned.push_str(text.expose());
            }
        }
    };
    let expected = String::from_utf8_lossy(sent);
    let pieces: Vec<Vec<u8>> = if escapes {
        let units: Vec<u16> = expected.encode_utf16().collect();
        let pieces = units.chunks(usize::from(how & 0x0f) + 1);
        pieces
            .map(|units| {
                units
                    .iter()
                    .flat_map(|unit| format!("\\u{unit:04x}").into_bytes())
                    .collect()
            })
            .collect()
    } else {
        let pieces = sent.chunks(usize::from(how & 0x0f) + 1);
        pieces
            .map(|bytes| bytes.iter().flat_map(|&byte| in_json(byte)).collect())
            .collect()
    };
    for piece in &pieces {
        lines.push(&[b"data: ", &*delta(piece), b"\n\n"].concat());
        while let Some(event) = lines.next().unwrap() {
            if let SseEvent::Data { text, .. } = event {
                add(decoder.decode(&text).unwrap());
            }
        }
    }
    add(decoder.end());
    assert_eq!(returned, expected);
}

/// A byte as it stands in a JSON string.
fn in_json(byte: u8) -> Vec<u8> {
    match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        0..0x20 => format!("\\u{byte:04x}").into_bytes(),
        _ => vec![byte],
    }
}

/// An answer is either read or refused, and a truncated answer is refused.
pub(crate) fn whole(bytes: &[u8]) {
    for platform in [Platform::OpenAiCompatible, Platform::Anthropic] {
        if dialect::whole(&platform, bytes, &mut Oddities::default()).is_ok() {
            let cut = bytes.trim_ascii_end().len() - 1;
            assert!(dialect::whole(&platform, &bytes[..cut], &mut Oddities::default()).is_err());
        }
    }
}

/// The classification of a refusal ignores case, and a retry delay is at most 60 seconds.
pub(crate) fn refusal(bytes: &[u8]) {
    let rejection = Rejection::read(bytes);
    assert_eq!(Rejection::read(&bytes.to_ascii_uppercase()), rejection);
    if let Ok(text) = str::from_utf8(bytes)
        && let Some(delay) = parse_retry_after(text.trim(), SystemTime::UNIX_EPOCH)
    {
        assert!(delay <= Duration::from_secs(60));
    }
}

/// Every accepted timeout has the documented format.
pub(crate) fn grpc_timeout(bytes: &[u8]) {
    let Ok(value) = MetadataValue::try_from(bytes) else {
        return;
    };
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-timeout", value);
    if let Ok(timeout) = deadline::of(&metadata) {
        let timeout = timeout.unwrap();
        let (unit, digits) = bytes.split_last().unwrap();
        assert!(b"HMSmun".contains(unit) && digits.iter().all(u8::is_ascii_digit) && digits.len() <= 8);
        assert!(deadline::less_margin(timeout) <= timeout);
    }
}

/// Every accepted request encodes to one JSON object in every dialect that supports it, with the model's name in it.
pub(crate) fn request(bytes: &[u8]) {
    let Ok(wire) = InferRequest::decode(bytes) else { return };
    let Ok(request) = Request::try_from(wire) else { return };
    let azure = Platform::AzureOpenAi {
        api_version: ApiVersion::parse("2024-10-21").unwrap().unwrap(),
    };
    let feature = FeatureName::from_id("code_generations").unwrap();
    for family in Catalogue::get().families() {
        let target = PromptTarget {
            family,
            infill_mode: InfillMode::FamilyDefault,
            max_output_tokens: Some(100),
        };
        let Ok(prompt) = prompt::render(&request, &feature, &target) else {
            continue;
        };
        assert!(prompt.options.max_output_tokens.is_some_and(|tokens| tokens <= 100));
        for platform in [&Platform::OpenAiCompatible, &azure, &Platform::Anthropic] {
            let Ok(post) = dialect::encode(platform, &prompt, &family.machine_name) else {
                continue;
            };
            for (reply, stream) in [
                (ReplyShape::Stream { asks_usage: true }, "true"),
                (ReplyShape::Whole, "false"),
            ] {
                let body = post.body("our model", reply);
                let members: HashMap<String, &RawValue> = serde_json::from_slice(&body).unwrap();
                assert_eq!(members["model"].get(), "\"our model\"");
                assert_eq!(members["stream"].get(), stream);
                assert!(!members.contains_key("n"));
            }
        }
    }
}

/// Whatever a page of metrics contains, the load consists of finite numbers that are not negative.
pub(crate) fn engine_page(bytes: &[u8]) {
    let page = String::from_utf8_lossy(bytes);
    if let Some(load) = engine::load(&page) {
        for number in [Some(load.requests), load.cache_used].into_iter().flatten() {
            assert!(number.is_finite() && number >= 0.0);
        }
        // Other lines of the page do not change the result.
        assert_eq!(engine::load(&format!("# HELP\n{page}\n\nother 1")), Some(load));
    }
}

/// A name from a model list can be sent in a request, and it is the model's own name if the list has it.
pub(crate) fn model_list(bytes: &[u8]) {
    let Some(list) = ModelList::parse(bytes) else { return };
    // The text that is shown to administrators is bounded, whatever the server sends.
    assert!(list.shown().len() <= 20_000);
    let Some(name) = list.identifier("m") else { return };
    assert!(!name.is_empty() && name.chars().count() <= 1000 && !name.chars().any(char::is_control));
    assert!(list.has(name));
    assert_eq!(list.identifier(name), Some(name));
}
