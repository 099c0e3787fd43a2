//! Answers in the forms in which model servers in the field send them, through the real pair: what the body holds is what the
//! caller gets, or the caller learns that it is not.

use std::time::Duration;

use prost_types::Duration as Seconds;
use switchboard::pb::{
    registry::{Model, ModelLimits},
    router::{FinishReason, delta::Kind, stream_infer_response::Event},
};
use tokio::time::timeout;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{PATIENCE, Pair, asking, reason_of},
    observability::metric,
};

const FEATURE: &str = "code_generations";

/// What a caller receives.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    text: String,
    reasoning: String,
    /// Name and arguments of each call.
    calls: Vec<(String, String)>,
    /// Input and output tokens.
    usage: (Option<i32>, Option<i32>),
    /// The finish reason, or the reason of the failure.
    end: String,
}

fn finished(end: FinishReason) -> String {
    end.as_str_name().to_owned()
}

/// What a caller receives of an answer with this text and finish reason `stop`.
fn said(text: &str) -> Seen {
    Seen {
        text: text.to_owned(),
        end: finished(FinishReason::Stop),
        ..Seen::default()
    }
}

fn called(calls: &[(&str, &str)]) -> Seen {
    Seen {
        calls: calls
            .iter()
            .map(|&(name, arguments)| (name.to_owned(), arguments.to_owned()))
            .collect(),
        end: finished(FinishReason::ToolCalls),
        ..Seen::default()
    }
}

fn with(change: impl FnOnce(&mut Seen), mut seen: Seen) -> Seen {
    change(&mut seen);
    seen
}

/// Makes a call and returns what its caller receives.
async fn ask(pair: &Pair) -> Seen {
    let mut seen = Seen::default();
    let mut ids = Vec::new();
    let mut stream = match pair.inference().stream_infer(asking(FEATURE, "hello")).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            seen.end = reason_of::<()>(&Err(status)).unwrap();
            return seen;
        }
    };
    loop {
        let message = match timeout(PATIENCE, stream.message()).await.expect("the stream goes on") {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(status) => {
                seen.end = reason_of::<()>(&Err(status)).unwrap();
                break;
            }
        };
        match message.event.unwrap() {
            Event::Selection(_) => {}
            Event::Completion(completion) => {
                seen.end = finished(completion.finish_reason());
                let usage = completion.usage.unwrap_or_default();
                seen.usage = (usage.input_tokens, usage.output_tokens);
            }
            Event::Delta(delta) => match delta.kind.unwrap() {
                Kind::Text(text) => seen.text.push_str(&text),
                Kind::Reasoning(text) => seen.reasoning.push_str(&text),
                Kind::ReasoningSignature(_) => {}
                Kind::ToolCall(call) => {
                    let index = usize::try_from(call.index).unwrap();
                    if index == seen.calls.len() {
                        seen.calls.push(Default::default());
                        ids.push(call.id.clone());
                    }
                    seen.calls[index].0.push_str(&call.name);
                    seen.calls[index].1.push_str(&call.arguments_json);
                }
            },
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), seen.calls.len(), "each call has an id of its own");
    seen
}

/// A stream of events with a delta each, that ends with a finish reason and `[DONE]`.
fn deltas(deltas: &[&str], finish: &str) -> Script {
    let events = deltas.iter().fold(Script::stream(), |script, delta| {
        script.event(&format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#))
    });
    events.finish(finish).done().end()
}

/// A stream of these lines, as they are.
fn lines(text: &str) -> Script {
    Script::stream().chunk(text).end()
}

fn call(fragment: &str) -> String {
    format!(r#"{{"tool_calls":[{fragment}]}}"#)
}

/// One member of an unexpected type, an empty event or half a character does not end an answer.
fn unexpected_forms() -> Vec<(&'static str, Script, Seen)> {
    let stop = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let piece = |bytes: &[u8]| {
        let mut event = br#"data: {"choices":[{"delta":{"content":""#.to_vec();
        event.extend_from_slice(bytes);
        event.extend_from_slice(b"\"}}]}\n\n");
        event
    };
    let cut = Script::stream()
        .chunk(piece(b"ok \xf0\x9f"))
        .chunk(piece(b"\x98\x80"))
        .finish("stop")
        .done()
        .end();
    let thought = |text: &str| with(|seen| seen.reasoning = "hm".to_owned(), said(text));
    vec![
        (
            "an emoji in two JSON escapes over two events",
            deltas(&[r#"{"content":"ok \ud83d"}"#, r#"{"content":"\ude00"}"#], "stop"),
            said("ok \u{1f600}"),
        ),
        (
            "half an emoji, then other text",
            deltas(&[r#"{"content":"\ud83d"}"#, r#"{"content":"x"}"#], "stop"),
            said("\u{fffd}x"),
        ),
        (
            "half an emoji at the end",
            deltas(&[r#"{"content":"a\ud83d"}"#], "stop"),
            said("a\u{fffd}"),
        ),
        ("the bytes of an emoji over two events", cut, said("ok \u{1f600}")),
        (
            "bytes that are no character",
            Script::stream().chunk(piece(b"a\xffb")).finish("stop").done().end(),
            said("a\u{fffd}b"),
        ),
        (
            "content as a list of typed parts",
            deltas(
                &[
                    r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}"#,
                    r#"{"content":[{"type":"text","text":"o"},{"type":"text","text":"k"}]}"#,
                ],
                "stop",
            ),
            thought("ok"),
        ),
        (
            "reasoning under an older name",
            deltas(
                &[r#"{"reasoning":"hm"}"#, r#"{"content":"ok","reasoning":null}"#],
                "stop",
            ),
            thought("ok"),
        ),
        (
            "members of other types beside a text",
            deltas(
                &[r#"{"role":7,"content":"ok","tool_calls":{},"reasoning_content":false,"refusal":[]}"#],
                "stop",
            ),
            said("ok"),
        ),
        (
            "an index as text, and a choice that is not an object",
            lines(&format!(
                "data: {{\"choices\":[5,{{\"index\":\"0\",\"delta\":{{\"content\":\"ok\"}}}}]}}\n\n{stop}\n\ndata: [DONE]\n\n"
            )),
            said("ok"),
        ),
        (
            "counts as text and with a fraction",
            lines(&format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"ok\"}}}}]}}\n\n{stop}\n\n\
                 data: {{\"usage\":{{\"prompt_tokens\":\"3\",\"completion_tokens\":2.0}}}}\n\ndata: [DONE]\n\n"
            )),
            with(|seen| seen.usage = (Some(3), Some(2)), said("ok")),
        ),
        (
            "a usage that is not an object, and an empty error",
            lines(&format!(
                "data: {{\"error\":{{}},\"usage\":\"none\",\"choices\":[{{\"delta\":{{\"content\":\"ok\"}}}}]}}\n\n{stop}\n\n"
            )),
            said("ok"),
        ),
        (
            "events in which nothing is recognised",
            lines(&format!(
                "data:\n\ndata: {{\"type\":\"ping\"}}\n\ndata: \"ping\"\n\ndata: null\n\ndata: [1]\n\n\
                 data: {{\"choices\":[{{\"delta\":{{\"content\":\"ok\"}}}}]}}\n\ndata: {{\"choices\":null}}\n\n{stop}\n\n"
            )),
            said("ok"),
        ),
        (
            "two events without the blank line between them",
            lines(&format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"o\"}}}}]}}\ndata: {{\"choices\":[{{\"delta\":{{\"content\":\"k\"}}}}]}}\n\n\
                 {stop}\n\n"
            )),
            said("ok"),
        ),
        (
            "a member twice",
            deltas(&[r#"{"content":"ok","content":null}"#], "stop"),
            said("ok"),
        ),
        (
            "data that is not JSON",
            deltas(&[r#"{"content":"ok"}"#], "stop").event("x"),
            said("ok"),
        ),
    ]
}

/// The end of an answer, or of a tool call, is where the server puts it.
fn ends() -> Vec<(&'static str, Script, Seen)> {
    let get = r#"{"index":0,"id":"","type":"function","function":{"name":"get","arguments":"{\"x\":1}"}}"#;
    let put = r#"{"index":0,"id":"","type":"function","function":{"name":"put","arguments":"{\"x\":2}"}}"#;
    let both = [("get", r#"{"x":1}"#), ("put", r#"{"x":2}"#)];
    let ended = |words: &str, end: FinishReason| {
        (
            deltas(&[r#"{"content":"ok"}"#], words),
            with(|seen| seen.end = finished(end), said("ok")),
        )
    };
    let mut rows = vec![
        (
            "two whole tool calls, both index 0 with an empty id",
            deltas(&[&call(get), &call(put)], "tool_calls"),
            called(&both),
        ),
        (
            "the same, in one event",
            deltas(&[&call(&format!("{get},{put}"))], "tool_calls"),
            called(&both),
        ),
        (
            "the same tool twice, without indexes and ids, and with the arguments as JSON",
            deltas(
                &[
                    &call(r#"{"function":{"name":"get","arguments":{"x":1}}}"#),
                    &call(r#"{"function":{"name":"get","arguments":{"x":2}}}"#),
                ],
                "stop",
            ),
            called(&[("get", r#"{"x":1}"#), ("get", r#"{"x":2}"#)]),
        ),
        (
            "a name in each fragment of a call",
            deltas(
                &[
                    &call(r#"{"index":0,"id":"a","function":{"name":"get","arguments":"{\"x\":"}}"#),
                    &call(r#"{"index":0,"id":"a","function":{"name":"get","arguments":"1}"}}"#),
                ],
                "tool_calls",
            ),
            called(&both[..1]),
        ),
        (
            "the member that tool_calls has replaced",
            deltas(
                &[
                    r#"{"function_call":{"name":"get","arguments":"{\"x\":"}}"#,
                    r#"{"function_call":{"arguments":"1}"}}"#,
                ],
                "function_call",
            ),
            called(&both[..1]),
        ),
        (
            "a call without a name",
            deltas(
                &[&call(r#"{"index":0,"id":"a","function":{"arguments":"{}"}}"#)],
                "tool_calls",
            ),
            Seen {
                calls: vec![(String::new(), "{}".to_owned())],
                end: "UPSTREAM_PROTOCOL_ERROR".to_owned(),
                ..Seen::default()
            },
        ),
        (
            "text after the finish reason",
            Script::stream()
                .text("o")
                .finish("stop")
                .text("k")
                .usage(3, 2)
                .done()
                .end(),
            with(|seen| seen.usage = (Some(3), Some(2)), said("ok")),
        ),
        (
            "two finish reasons",
            Script::stream().text("ok").finish("stop").finish("length").end(),
            with(|seen| seen.end = finished(FinishReason::Length), said("ok")),
        ),
        (
            "an error after the finish reason",
            Script::stream()
                .text("ok")
                .finish("stop")
                .event(r#"{"error":{"message":"out of memory","code":500}}"#)
                .end(),
            with(|seen| seen.end = "UPSTREAM_SERVER_ERROR".to_owned(), said("ok")),
        ),
        (
            "a connection that closes after the finish reason",
            Script::stream().text("ok").finish("stop").close(),
            said("ok"),
        ),
        (
            "a whole answer as the only event",
            lines("data: {\"choices\":[{\"message\":{\"content\":\"ok\"},\"finish_reason\":\"stop\"}]}\n\n"),
            said("ok"),
        ),
        (
            "the end mark alone",
            Script::stream().text("ok").event("[done]").end(),
            with(|seen| seen.end = finished(FinishReason::Other), said("ok")),
        ),
    ];
    for (words, end) in [
        ("eos_token", FinishReason::Stop),
        ("STOP", FinishReason::Stop),
        ("end_turn", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_length", FinishReason::Length),
        ("SAFETY", FinishReason::ContentFilter),
        ("telepathy", FinishReason::Other),
    ] {
        let (script, seen) = ended(words, end);
        rows.push((words, script, seen));
    }
    for words in [
        "insufficient_system_resource",
        "abort",
        "cancelled",
        "MALFORMED_FUNCTION_CALL",
    ] {
        let (script, _) = ended(words, FinishReason::Other);
        rows.push((
            words,
            script,
            with(|seen| seen.end = "UPSTREAM_SERVER_ERROR".to_owned(), said("ok")),
        ));
    }
    rows
}

/// Comments and empty events show that the server is at work.
fn signs_of_life() -> Vec<(&'static str, Script, Seen)> {
    let signs = [
        ": keep-alive\n\n",
        ":\n",
        "\n",
        "data:\n\n",
        "event: ping\n\n",
        "data: {\"type\":\"ping\"}\n\n",
    ];
    let row = |sign: &'static str| {
        let begun = (0..4).fold(Script::stream().text("a"), |script, _| {
            script.pause(Duration::from_millis(400)).chunk(sign)
        });
        (sign, begun.text("b").finish("stop").done().end(), said("ab"))
    };
    signs.map(row).into()
}

/// Answers each of the rows, and compares.
async fn check(rows: Vec<(&'static str, Script, Seen)>) -> (Pair, FakeUpstream) {
    let upstream = FakeUpstream::start().await;
    let pair = Pair::start().await;
    pair.configure(&upstream.url(), None).await;
    let limits = ModelLimits {
        idle_timeout: Some(Seconds { seconds: 1, nanos: 0 }),
        ..ModelLimits::default()
    };
    let model = Model {
        limits: Some(limits),
        ..Model::default()
    };
    pair.update_model(model).await.unwrap();
    pair.wait_until_routed(FEATURE).await;
    let mut wrong = Vec::new();
    for (name, script, expected) in rows {
        upstream.then(script);
        let seen = ask(&pair).await;
        if seen != expected {
            wrong.push(format!("{name:?}: {seen:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (pair, upstream)
}

async fn a_member_of_an_unexpected_form_does_not_end_an_answer() {
    let (pair, _upstream) = check(unexpected_forms()).await;
    assert!(metric(&pair.router, "switchboard_router_answer_events_ignored_total") > 0.0);
    let tool_calls = r#"switchboard_router_answer_members_ignored_total{member="tool_calls"}"#;
    assert!(metric(&pair.router, tool_calls) > 0.0);
    pair.finish().await;
}

async fn the_end_of_an_answer_is_where_the_server_puts_it() {
    let mut rows = ends();
    // Once more: what is unknown is counted each time, and logged once.
    rows.extend(ends().into_iter().filter(|(name, ..)| *name == "telepathy"));
    let (pair, _upstream) = check(rows).await;
    let unknown = metric(&pair.router, "switchboard_router_unknown_finish_reasons_total");
    assert!((unknown - 2.0).abs() < f64::EPSILON, "{unknown}");
    let log = pair.router.log();
    assert_eq!(log.matches("unknown finish reason").count(), 1);
    assert!(log.contains("telepathy"), "{log}");
    pair.finish().await;
}

async fn comments_and_empty_events_are_signs_of_life() {
    let (pair, _upstream) = check(signs_of_life()).await;
    pair.finish().await;
}

tests! {
    a_member_of_an_unexpected_form_does_not_end_an_answer,
    the_end_of_an_answer_is_where_the_server_puts_it,
    comments_and_empty_events_are_signs_of_life,
}
