//! A truncated answer never looks complete, wherever it is cut.

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, number, prompt},
};

/// The way in which the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By the last chunk.
    Chunked,
    /// By the end of the connection, which looks the same as a cut.
    Closed,
    /// By its length.
    Length,
}

const FRAMINGS: [Framing; 3] = [Framing::Chunked, Framing::Closed, Framing::Length];

fn response(framing: Framing, kind: &str, body: &str) -> Vec<u8> {
    let head = |header: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{header}\r\n");
    let text = match framing {
        // In chunks that end at arbitrary positions.
        Framing::Chunked => {
            let pieces = body.as_bytes().chunks(97).map(|piece| {
                // Chunk sizes and data are ASCII here.
                format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece))
            });
            head("transfer-encoding: chunked\r\n") + &pieces.collect::<String>() + "0\r\n\r\n"
        }
        Framing::Closed => head("") + body,
        Framing::Length => head(&format!("content-length: {}\r\n", body.len())) + body,
    };
    text.into_bytes()
}

/// Cuts an answer after every n-th byte, where n is `SWITCHBOARD_TEST_CUT_STEP`, and returns the outcome of each call.
async fn cut(bytes: &[u8], ask: impl AsyncFn(&Router) -> String) -> Vec<(usize, String)> {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    let mut ended = Vec::new();
    for index in (0..bytes.len()).step_by(number("SWITCHBOARD_TEST_CUT_STEP", 17)) {
        upstream.then(Script::default().raw(&bytes[..index]).close());
        ended.push((index, ask(&router).await));
    }
    ended
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_never_looks_complete() {
    let pieces: Vec<String> = (0..32).map(|number| format!("piece {number:>3} ")).collect();
    let event = |piece: &String| {
        format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{piece}\"}}}}]}}\n\n")
    };
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let body = pieces.iter().map(event).collect::<String>() + finish + "data: [DONE]\n\n";
    let text = pieces.concat();
    for framing in FRAMINGS {
        let bytes = response(framing, "text/event-stream", &body);
        assert!(bytes.len() > 2000);
        let ask = async |router: &Router| {
            let answer = router.ask(prompt("hi")).await;
            match &answer.failure {
                None => format!("whole: {}", answer.text),
                Some(_) => {
                    assert!(text.starts_with(&answer.text), "{}", answer.text);
                    answer.told().reason
                }
            }
        };
        let ended = cut(&bytes, ask).await;
        // From the blank line after the finish reason on, the answer is complete.
        let finished = bytes.windows(6).position(|part| part == b"\"stop\"").unwrap();
        for (index, told) in ended {
            if told == format!("whole: {text}") {
                assert!(index > finished, "{framing:?}, cut at {index}");
            } else {
                assert_eq!(told, "UPSTREAM_STREAM_TRUNCATED", "{framing:?}, cut at {index}");
                assert!(index < bytes.len() - 14, "{framing:?}, cut at {index}");
            }
        }
    }
}

#[tokio::test]
async fn a_unary_answer_cut_at_any_byte_is_a_failure() {
    let text = "word ".repeat(380);
    let body = format!(r#"{{"choices":[{{"index":0,"message":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#);
    for framing in FRAMINGS {
        let bytes = response(framing, "application/json", &body);
        assert!(bytes.len() > 2000);
        let ask = async |router: &Router| match router.infer(prompt("hi")).await {
            Ok(_) => "whole".to_owned(),
            Err(told) => told.reason,
        };
        for (index, told) in cut(&bytes, ask).await {
            // If the body ends with its connection, truncated JSON looks like malformed JSON.
            let is_broken = told == "UPSTREAM_PROTOCOL_ERROR" && framing == Framing::Closed;
            assert!(
                told == "UPSTREAM_STREAM_TRUNCATED" || is_broken,
                "{framing:?}, cut at {index}: {told}"
            );
        }
    }
}
