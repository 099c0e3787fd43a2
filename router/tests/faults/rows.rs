//! The rows of the table: the faults and their expected effects.

use std::time::Duration;

use tonic::Code;

use super::{Against, CANARY, Fault, Row, caller::Caller};
use crate::{fake_upstream::Script, harness::MESSAGE_BYTES};

fn status(code: u16, body: &str) -> Script {
    Script::response(code, &[("content-type", "application/json")], body)
}

fn limited(retry_after: &str) -> Script {
    Script::response(429, &[("retry-after", retry_after)], CANARY)
}

fn begun() -> Script {
    Script::stream().text("one").text("two")
}

/// A stream with this one event.
fn event(data: &str) -> Script {
    Script::stream().event(data).end()
}

/// Returns every fault that a single call can have.
pub(super) fn rows() -> Vec<Row> {
    [
        refusals(),
        dials(),
        before_the_answer(),
        within_the_answer(),
        errors_as_answers(),
        callers(),
        vec![own_mistake()],
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The server responds, but not with an answer.
fn refusals() -> Vec<Row> {
    let (credential, limit) = ("UPSTREAM_CREDENTIAL_REJECTED", "UPSTREAM_RATE_LIMITED");
    let (failed, rejected, too_long) = (
        "UPSTREAM_SERVER_ERROR",
        "UPSTREAM_REJECTED_REQUEST",
        "CONTEXT_LENGTH_EXCEEDED",
    );
    let settings = |number, name, script: Script, reason| {
        Row::new(number, name, script, Code::FailedPrecondition, reason).against(Against::Settings)
    };
    let load = |name, script: Script, seconds| {
        Row::new(10, name, script, Code::ResourceExhausted, limit)
            .against(Against::Load)
            .retry(seconds)
    };
    let server =
        |name, code, metadata| Row::new(11, name, status(code, CANARY), Code::Unavailable, failed).with(metadata);
    let caller = |name, script: Script, reason, fields| {
        Row::new(13, name, script, Code::InvalidArgument, reason)
            .against(Against::Nobody)
            .blames(fields)
    };
    let redirect = |name, code, metadata| {
        let script = Script::response(code, &[("location", "/elsewhere")], CANARY);
        settings(18, name, script, "UPSTREAM_REDIRECT_REFUSED").with(metadata)
    };
    let of_type = |name, headers: &[(&str, &str)]| {
        settings(
            17,
            name,
            Script::response(200, headers, CANARY),
            "UPSTREAM_UNEXPECTED_CONTENT_TYPE",
        )
    };
    let vllm_context = "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens";
    let vllm_limit = "'max_tokens' is too large: 5000. This model's maximum context length is 2048 tokens";
    let llama_context = r#"{"error":{"code":400,"type":"exceed_context_size_error","n_ctx":512}}"#;
    vec![
        settings(1, "401", status(401, CANARY), credential).with(&[("upstream_status", "401")]),
        settings(1, "402", status(402, CANARY), credential).with(&[("upstream_status", "402")]),
        settings(1, "403", status(403, CANARY), credential).with(&[("upstream_status", "403")]),
        load("429", status(429, CANARY), 1),
        load("429, Retry-After in seconds", limited("7"), 7),
        load("429, negative Retry-After", limited("-7"), 0),
        load("429, very long Retry-After", limited("86400"), 60),
        load("429, Retry-After that is not a number", limited("soon"), 1),
        load(
            "429, Retry-After in the past",
            limited("Sun, 06 Nov 1994 08:49:37 GMT"),
            0,
        ),
        server("500", 500, &[("upstream_status", "500")]),
        server("501", 501, &[("upstream_status", "501")]),
        server("502", 502, &[("upstream_status", "502")]),
        server("503", 503, &[("upstream_status", "503")]).says("HTTP status 503"),
        server("504", 504, &[("upstream_status", "504")]),
        server("599", 599, &[("upstream_status", "599")]),
        Row::new(
            11,
            "503 with Retry-After",
            Script::response(503, &[("retry-after", "5")], CANARY),
            Code::Unavailable,
            failed,
        )
        .retry(5)
        .against(Against::Load),
        caller("400", status(400, CANARY), rejected, &["prompt"]),
        caller("413", status(413, CANARY), rejected, &["prompt"]),
        caller(
            "422",
            status(422, r#"{"param":"max_tokens"}"#),
            rejected,
            &["options.max_output_tokens"],
        ),
        caller("context length, vLLM", status(400, vllm_context), too_long, &["prompt"]),
        caller(
            "output limit, vLLM",
            status(400, vllm_limit),
            too_long,
            &["options.max_output_tokens"],
        ),
        caller(
            "context length, llama.cpp",
            status(400, llama_context),
            too_long,
            &["prompt"],
        ),
        caller(
            "400 whose body never arrives",
            Script::head(400, &[("content-length", "10")]).hang(),
            rejected,
            &["prompt"],
        ),
        settings(13, "404", status(404, CANARY), "UPSTREAM_MODEL_NOT_FOUND"),
        Row::new(9, "418", status(418, CANARY), Code::Internal, "UPSTREAM_PROTOCOL_ERROR")
            .with(&[("upstream_status", "418")]),
        of_type("a login page", &[("content-type", "text/html")]),
        of_type("no content type", &[]),
        of_type(
            "gzip without being requested",
            &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
        ),
        redirect("301", 301, &[("upstream_status", "301")]),
        redirect("302", 302, &[("upstream_status", "302")]),
        redirect("307", 307, &[("upstream_status", "307")]),
        redirect("308", 308, &[("upstream_status", "308")]),
    ]
}

/// The server cannot be reached.
fn dials() -> Vec<Row> {
    let connect = "UPSTREAM_CONNECT_FAILED";
    vec![
        Row::new(2, "connection refused", Fault::Refused, Code::Unavailable, connect).says("connection refused"),
        Row::new(
            3,
            "connection attempt not answered",
            Fault::BlackHole,
            Code::Unavailable,
            connect,
        )
        .says("timed out after 300ms"),
        // A name must not have a label of this length, so the resolver rejects it without a query.
        Row::new(
            4,
            "no such name",
            Fault::NoName,
            Code::Unavailable,
            "UPSTREAM_DNS_FAILED",
        )
        .says("the host name does not resolve"),
        Row::new(
            4,
            "a name that does not resolve in time",
            Fault::SlowName,
            Code::Unavailable,
            "UPSTREAM_DNS_FAILED",
        )
        .says("the look-up of the host name timed out"),
        Row::new(
            5,
            "a server without TLS",
            Fault::NoTls,
            Code::Unavailable,
            "UPSTREAM_TLS_HANDSHAKE_FAILED",
        )
        .says("the server does not use TLS on this port"),
    ]
}

/// The server sends nothing, or nothing that begins an answer.
fn before_the_answer() -> Vec<Row> {
    let (silent, cut) = ("UPSTREAM_FIRST_BYTE_TIMEOUT", "UPSTREAM_STREAM_TRUNCATED");
    let role = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let row = |number, name, script: Script, reason| Row::new(number, name, script, Code::Unavailable, reason);
    let wrong = |number, name, script: Script, reason| Row::new(number, name, script, Code::Internal, reason);
    vec![
        row(6, "silence", Script::silence(), silent),
        row(6, "a header, then silence", Script::stream().hang(), silent),
        row(6, "a role, then silence", Script::stream().event(role).hang(), silent),
        row(
            6,
            "comments, then silence",
            Script::stream().chunk(": wait\n\n").hang(),
            silent,
        ),
        Row::new(
            19,
            "an accepted connection without a server",
            Fault::HalfOpen,
            Code::Unavailable,
            silent,
        ),
        row(8, "a close without a response", Script::closed(), cut).says("connection closed"),
        row(8, "a reset without a response", Script::broken(), cut).says("connection reset"),
        row(
            8,
            "a close during the header",
            Script::default().raw("HTTP/1.1 200 OK\r\ncont").close(),
            cut,
        ),
        row(8, "an empty body", Script::stream().end(), cut),
        wrong(
            9,
            "a response that is not HTTP",
            Script::default().raw("hello\r\n\r\n").close(),
            "UPSTREAM_PROTOCOL_ERROR",
        ),
        wrong(
            15,
            "an endless header",
            Script::head(200, &[("x", &"x".repeat(100_000))]),
            "UPSTREAM_RESPONSE_TOO_LARGE",
        ),
    ]
}

/// The server fails after the answer has begun.
fn within_the_answer() -> Vec<Row> {
    let cut = "UPSTREAM_STREAM_TRUNCATED";
    let (malformed, large) = ("UPSTREAM_PROTOCOL_ERROR", "UPSTREAM_RESPONSE_TOO_LARGE");
    let row = |number, name, script: Script, reason| Row::new(number, name, script, Code::Unavailable, reason).sent(2);
    let wrong = |number, name, script: Script, reason| Row::new(number, name, script, Code::Internal, reason).sent(2);
    let padding = || format!(": {}\n\n", "x".repeat(60_000));
    vec![
        row(7, "silence", begun().hang(), "UPSTREAM_IDLE_TIMEOUT"),
        row(
            7,
            "only comments",
            begun().chunk(": still here\n\n").hang(),
            "UPSTREAM_IDLE_TIMEOUT",
        ),
        row(19, "a dead peer", begun().hang(), "UPSTREAM_IDLE_TIMEOUT"),
        row(8, "a close", begun().close(), cut),
        row(8, "a reset", begun().reset(), cut),
        row(
            8,
            "an orderly end of the body without a finish reason",
            begun().end(),
            cut,
        ),
        row(8, "half an event", begun().chunk("data: {\"choices\":").end(), cut),
        wrong(9, "an invalid chunk", begun().raw("zzz\r\n").hang(), malformed),
        wrong(
            9,
            "a tool call without a name",
            begun()
                .event(r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":5}}]},"finish_reason":"tool_calls"}]}"#)
                .hang(),
            malformed,
        ),
        wrong(9, "an event that is not JSON", begun().event(CANARY).hang(), malformed),
        wrong(15, "an endless line", begun().flood("x".repeat(60_000)), large),
        wrong(15, "an endless answer of comments", begun().flood(padding()), large),
        wrong(
            16,
            "invalid UTF-8",
            begun().chunk(b"data: \xff\n\n".as_slice()).hang(),
            "UPSTREAM_INVALID_UTF8",
        ),
    ]
}

/// The server responds with 200, and then reports an error in the body.
fn errors_as_answers() -> Vec<Row> {
    let failed = "UPSTREAM_SERVER_ERROR";
    let row = |name, script: Script, reason| Row::new(12, name, script, Code::Unavailable, reason);
    let later = |data: &str| begun().event(data).end();
    vec![
        row(
            "an error instead of an answer",
            event(r#"{"error":{"message":"x","code":500}}"#),
            failed,
        ),
        row(
            "an error during the answer",
            later(r#"{"error":{"message":"canary-prompt-91c2"}}"#),
            failed,
        )
        .sent(2),
        row(
            "the finish reason `insufficient_system_resource`",
            begun().finish("insufficient_system_resource").done().end(),
            failed,
        )
        .sent(2),
        row(
            "an error after the finish reason",
            begun()
                .finish("stop")
                .event(r#"{"error":{"message":"x","code":500}}"#)
                .end(),
            failed,
        )
        .sent(2),
        row(
            "the finish reason `error`",
            begun().finish("error").done().end(),
            failed,
        )
        .sent(2),
        row(
            "the finish reason `abort`",
            begun().finish("abort").done().end(),
            failed,
        )
        .sent(2),
        Row::new(
            12,
            "a rate limit error during the answer",
            later(r#"{"error":{"code":429}}"#),
            Code::ResourceExhausted,
            "UPSTREAM_RATE_LIMITED",
        )
        .against(Against::Load)
        .sent(2),
        Row::new(
            12,
            "a refusal instead of an answer",
            event(r#"{"error":{"code":400}}"#),
            Code::InvalidArgument,
            "UPSTREAM_REJECTED_REQUEST",
        )
        .against(Against::Nobody)
        .blames(&["prompt"]),
    ]
}

/// The server behaves correctly, if slowly, and the caller does not.
fn callers() -> Vec<Row> {
    let row = |number, name, script: Script, code, reason| {
        Row::new(number, name, script, code, reason).against(Against::Nobody)
    };
    let (late, too_slow, too_large) = ("DEADLINE_EXCEEDED", "CLIENT_TOO_SLOW", "MESSAGE_TOO_LARGE");
    let drip = (0..100).fold(Script::stream(), |script, _| {
        script.text("x").pause(Duration::from_millis(50))
    });
    // More than the transport's window holds, less than the router's buffer.
    let piece = "x".repeat(40_000);
    let unread = Script::answer(std::iter::repeat_n(piece.as_str(), 7)).close();
    vec![
        row(14, "a dripping answer", drip, Code::DeadlineExceeded, late).to(Caller::Allows(Duration::from_millis(600))),
        Row {
            told: None,
            ..row(20, "a caller that cancels", begun().hang(), Code::Cancelled, "").to(Caller::Goes)
        },
        row(
            21,
            "a caller that does not read",
            unread,
            Code::ResourceExhausted,
            too_slow,
        )
        .to(Caller::Stalls),
        row(
            22,
            "a request with one byte too many",
            Script::silence(),
            Code::ResourceExhausted,
            too_large,
        )
        .to(Caller::Sends(MESSAGE_BYTES + 1))
        .sent(0)
        .with(&[("limit", "4194304")]),
    ]
}

fn own_mistake() -> Row {
    Row::new(23, "a panic", Fault::Panic, Code::Internal, "INTERNAL_ERROR").against(Against::Nobody)
}
