//! Every fault of a model server is told to the caller by its own reason, and by nothing else.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet};
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, TOKEN, prompt},
};

/// What must not be seen in any failure.
const CANARY: &str = "canary-prompt-91c2";

/// One row: what the server does, and what the caller is told.
struct Row {
    name: &'static str,
    script: Script,
    code: Code,
    reason: &'static str,
    /// How many pieces the caller got before.
    sent: usize,
    metadata: &'static [(&'static str, &'static str)],
    fields: &'static [&'static str],
    /// Seconds after which to come back.
    retry: Option<u64>,
}

fn row(name: &'static str, script: Script, code: Code, reason: &'static str) -> Row {
    Row {
        name,
        script,
        code,
        reason,
        sent: 0,
        metadata: &[],
        fields: &[],
        retry: None,
    }
}

fn after(sent: usize, row: Row) -> Row {
    Row { sent, ..row }
}

fn status(code: u16, body: &str) -> Script {
    Script::response(code, &[("content-type", "application/json")], body)
}

fn limited(retry_after: &str) -> Script {
    Script::response(429, &[("retry-after", retry_after)], CANARY)
}

fn before_the_answer() -> Vec<Row> {
    let told = |row: Row, metadata| Row { metadata, ..row };
    let blamed = |row: Row, fields| Row { fields, ..row };
    let later = |row: Row, seconds| Row {
        retry: Some(seconds),
        ..row
    };
    let (limit, credential, model) = (
        "UPSTREAM_RATE_LIMITED",
        "UPSTREAM_CREDENTIAL_REJECTED",
        "UPSTREAM_MODEL_NOT_FOUND",
    );
    let (rejected, too_long) = ("UPSTREAM_REJECTED_REQUEST", "CONTEXT_LENGTH_EXCEEDED");
    let vllm_context = "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens";
    let vllm_limit = "'max_tokens' is too large: 5000. This model's maximum context length is 2048 tokens";
    let llama_context = r#"{"error":{"code":400,"type":"exceed_context_size_error","n_ctx":512}}"#;
    vec![
        told(
            row("401", status(401, CANARY), Code::FailedPrecondition, credential),
            &[("upstream_status", "401")],
        ),
        told(
            row("403", status(403, CANARY), Code::FailedPrecondition, credential),
            &[("upstream_status", "403")],
        ),
        row("404", status(404, CANARY), Code::FailedPrecondition, model),
        later(row("429", status(429, CANARY), Code::ResourceExhausted, limit), 1),
        later(row("429, seconds", limited("7"), Code::ResourceExhausted, limit), 7),
        later(row("429, negative", limited("-7"), Code::ResourceExhausted, limit), 0),
        later(row("429, absurd", limited("86400"), Code::ResourceExhausted, limit), 60),
        later(
            row(
                "429, a past date",
                limited("Sun, 06 Nov 1994 08:49:37 GMT"),
                Code::ResourceExhausted,
                limit,
            ),
            0,
        ),
        blamed(
            row("400", status(400, CANARY), Code::InvalidArgument, rejected),
            &["prompt"],
        ),
        blamed(
            row("413", status(413, CANARY), Code::InvalidArgument, rejected),
            &["prompt"],
        ),
        blamed(
            row(
                "422",
                status(422, r#"{"param":"max_tokens"}"#),
                Code::InvalidArgument,
                rejected,
            ),
            &["options.max_output_tokens"],
        ),
        blamed(
            row(
                "context, vLLM",
                status(400, vllm_context),
                Code::InvalidArgument,
                too_long,
            ),
            &["prompt"],
        ),
        blamed(
            row("limit, vLLM", status(400, vllm_limit), Code::InvalidArgument, too_long),
            &["options.max_output_tokens"],
        ),
        blamed(
            row(
                "context, llama.cpp",
                status(400, llama_context),
                Code::InvalidArgument,
                too_long,
            ),
            &["prompt"],
        ),
        blamed(
            row(
                "400 whose body never comes",
                Script::head(400, &[("content-length", "10")]).hang(),
                Code::InvalidArgument,
                rejected,
            ),
            &["prompt"],
        ),
        told(
            row("500", status(500, CANARY), Code::Unavailable, "UPSTREAM_SERVER_ERROR"),
            &[("upstream_status", "500")],
        ),
        told(
            row("503", status(503, CANARY), Code::Unavailable, "UPSTREAM_SERVER_ERROR"),
            &[("upstream_status", "503")],
        ),
        told(
            row("418", status(418, CANARY), Code::Internal, "UPSTREAM_PROTOCOL_ERROR"),
            &[("upstream_status", "418")],
        ),
        told(
            row(
                "redirect",
                Script::response(307, &[("location", "/elsewhere")], CANARY),
                Code::FailedPrecondition,
                "UPSTREAM_REDIRECT_REFUSED",
            ),
            &[("upstream_status", "307")],
        ),
        row(
            "a login page",
            Script::response(200, &[("content-type", "text/html")], CANARY),
            Code::FailedPrecondition,
            "UPSTREAM_UNEXPECTED_CONTENT_TYPE",
        ),
        row(
            "gzip that nobody asked for",
            Script::response(
                200,
                &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
                CANARY,
            ),
            Code::FailedPrecondition,
            "UPSTREAM_UNEXPECTED_CONTENT_TYPE",
        ),
        row(
            "no HTTP",
            Script::default().raw("hello\r\n\r\n").close(),
            Code::Internal,
            "UPSTREAM_PROTOCOL_ERROR",
        ),
        row(
            "an endless header",
            Script::head(200, &[("x", &"x".repeat(100_000))]),
            Code::Internal,
            "UPSTREAM_RESPONSE_TOO_LARGE",
        ),
        row(
            "a close without a word",
            Script::closed(),
            Code::Unavailable,
            "UPSTREAM_STREAM_TRUNCATED",
        ),
        row(
            "a reset without a word",
            Script::broken(),
            Code::Unavailable,
            "UPSTREAM_STREAM_TRUNCATED",
        ),
        row(
            "a close within the header",
            Script::default().raw("HTTP/1.1 200 OK\r\ncont").close(),
            Code::Unavailable,
            "UPSTREAM_STREAM_TRUNCATED",
        ),
        row(
            "an empty body",
            Script::stream().end(),
            Code::Unavailable,
            "UPSTREAM_STREAM_TRUNCATED",
        ),
        row(
            "silence",
            Script::silence(),
            Code::Unavailable,
            "UPSTREAM_FIRST_BYTE_TIMEOUT",
        ),
        row(
            "a header and a role, and silence",
            Script::stream()
                .event(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#)
                .hang(),
            Code::Unavailable,
            "UPSTREAM_FIRST_BYTE_TIMEOUT",
        ),
        row(
            "an error instead of an answer",
            Script::stream().event(r#"{"error":{"message":"x","code":500}}"#).end(),
            Code::Unavailable,
            "UPSTREAM_SERVER_ERROR",
        ),
    ]
}

fn within_the_answer() -> Vec<Row> {
    let begun = || Script::stream().text("one").text("two");
    vec![
        after(
            2,
            row("silence", begun().hang(), Code::Unavailable, "UPSTREAM_IDLE_TIMEOUT"),
        ),
        after(
            2,
            row(
                "comments and nothing else",
                begun().chunk(": still here\n\n").hang(),
                Code::Unavailable,
                "UPSTREAM_IDLE_TIMEOUT",
            ),
        ),
        after(
            2,
            row(
                "a close",
                begun().close(),
                Code::Unavailable,
                "UPSTREAM_STREAM_TRUNCATED",
            ),
        ),
        after(
            2,
            row(
                "a reset",
                begun().reset(),
                Code::Unavailable,
                "UPSTREAM_STREAM_TRUNCATED",
            ),
        ),
        after(
            2,
            row(
                "an orderly end that is none",
                begun().end(),
                Code::Unavailable,
                "UPSTREAM_STREAM_TRUNCATED",
            ),
        ),
        after(
            2,
            row(
                "half an event",
                begun().chunk("data: {\"choices\":").end(),
                Code::Unavailable,
                "UPSTREAM_STREAM_TRUNCATED",
            ),
        ),
        after(
            2,
            row(
                "no chunk",
                begun().raw("zzz\r\n").hang(),
                Code::Internal,
                "UPSTREAM_PROTOCOL_ERROR",
            ),
        ),
        after(
            2,
            row(
                "no JSON",
                begun().event(CANARY).hang(),
                Code::Internal,
                "UPSTREAM_PROTOCOL_ERROR",
            ),
        ),
        after(
            2,
            row(
                "no UTF-8",
                begun().chunk(b"data: \xff\n\n".as_slice()).hang(),
                Code::Internal,
                "UPSTREAM_INVALID_UTF8",
            ),
        ),
        after(
            2,
            row(
                "an endless line",
                begun().flood("x".repeat(60_000)),
                Code::Internal,
                "UPSTREAM_RESPONSE_TOO_LARGE",
            ),
        ),
        after(
            2,
            row(
                "an endless answer that says nothing",
                begun().flood(format!(": {}\n\n", "x".repeat(60_000))),
                Code::Internal,
                "UPSTREAM_RESPONSE_TOO_LARGE",
            ),
        ),
        after(
            2,
            row(
                "an error",
                begun().event(r#"{"error":{"message":"canary-prompt-91c2"}}"#).end(),
                Code::Unavailable,
                "UPSTREAM_SERVER_ERROR",
            ),
        ),
        after(
            2,
            row(
                "too many requests",
                begun().event(r#"{"error":{"code":429}}"#).end(),
                Code::ResourceExhausted,
                "UPSTREAM_RATE_LIMITED",
            ),
        ),
    ]
}

#[tokio::test]
async fn every_fault_of_a_model_server_has_its_reason() {
    for row in before_the_answer().into_iter().chain(within_the_answer()) {
        let name = row.name;
        let upstream = FakeUpstream::start().await;
        upstream.then(row.script);
        let origin = upstream.url();
        let router = Setup::at(&origin)
            .token_for(&[&origin])
            .limits(|limits| {
                limits.first_token = Duration::from_millis(1500);
                limits.patience.idle = Duration::from_millis(300);
            })
            .start()
            .await;
        let answer = router.ask(prompt(CANARY)).await;
        let told = answer.told();

        assert_eq!((told.code, told.reason.as_str()), (row.code, row.reason), "{name}");
        assert_eq!(answer.deltas, row.sent, "{name}: what was sent stays sent");
        let tokens_sent = (row.sent > 0).then(|| row.sent.to_string());
        assert_eq!(told.metadata.get("tokens_sent"), tokens_sent.as_ref(), "{name}");
        assert_eq!(told.metadata.contains_key("partial"), row.sent > 0, "{name}");
        assert_eq!(
            answer.metadata.is_some(),
            row.sent > 0,
            "{name}: no headers before the first token"
        );
        assert_eq!(told.metadata["feature"], "features/duo_chat", "{name}");
        assert_eq!(told.metadata["model"], "models/m", "{name}");
        for (key, value) in row.metadata {
            assert_eq!(told.metadata[*key], *value, "{name}");
        }
        assert_eq!(told.fields, row.fields, "{name}");
        assert_eq!(told.retry, row.retry.map(Duration::from_secs), "{name}");

        let status = answer.failure.unwrap();
        let shown = format!("{status:?}{}", String::from_utf8_lossy(status.details()));
        for secret in [CANARY, TOKEN, "127.0.0.1"] {
            assert!(!shown.contains(secret), "{name} shows {secret}");
        }
        assert_eq!(upstream.requests().len(), 1, "{name}: one attempt");
        router.settled().await;
        // With the router goes the pool, and with it what lay there unused.
        drop(router);
        upstream.closed(0).await;
    }
}

#[tokio::test]
async fn a_cut_at_any_byte_is_never_a_whole_answer() {
    let whole = "data: {\"choices\":[{\"delta\":{\"content\":\"hé\"}}]}\r\n\r\n\
                 data: {\"choices\":[{\"delta\":{\"content\":\"llo\"}}]}\n\n\
                 data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for cut in 0..whole.len() {
        upstream.then(Script::stream().chunk(&whole.as_bytes()[..cut]).close());
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.told().reason, "UPSTREAM_STREAM_TRUNCATED", "cut at {cut}");
        assert!("héllo".starts_with(&answer.text), "cut at {cut}");
    }
    upstream.then(Script::stream().chunk(whole).close());
    assert_eq!(router.ask(prompt("hi")).await.text, "héllo");
}

#[tokio::test]
async fn a_server_that_cannot_be_dialled_is_told_by_what_failed() {
    let unused = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let refusing = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let plain = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let no_tls = format!("https://{}", plain.local_addr().unwrap());
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        let (mut socket, _) = plain.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    for (endpoint, reason) in [
        (refusing, "UPSTREAM_CONNECT_FAILED"),
        // No name may have so long a part, so the resolver asks nobody.
        (format!("http://{}:8000", "x".repeat(64)), "UPSTREAM_DNS_FAILED"),
        (no_tls, "UPSTREAM_TLS_HANDSHAKE_FAILED"),
    ] {
        let router = Setup::at(endpoint).start().await;
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, reason));
    }
}
