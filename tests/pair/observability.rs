//! Traces at a real collector, metrics, access lines, the log level and the health command.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use switchboard::pb::{
    registry::{Settings, UpdateSettingsRequest},
    router::{InferRequest, infer_request::Input},
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Status};

use crate::{
    fake_upstream::FakeUpstream,
    harness::{PATIENCE, Pair, Service, binary},
    runner::Requirement,
};

const ROTEL: Requirement = Requirement::Program {
    name: "rotel-agent",
    remedy: "`.ci/run tests` installs it",
};
const PROMTOOL: Requirement = Requirement::Program {
    name: "promtool",
    remedy: "`.ci/run tests` installs Debian's `prometheus`",
};

const CALL: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
const WRITE: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");

fn traced<T>(message: T, (trace, parent): (&str, &str)) -> Request<T> {
    let mut request = Request::new(message);
    let traceparent = format!("00-{trace}-{parent}-01");
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().unwrap());
    request
        .metadata_mut()
        .insert("x-request-id", "observed".parse().unwrap());
    request
}

async fn ask(pair: &Pair, trace: (&str, &str)) -> Result<(), Status> {
    let request = InferRequest {
        feature: "code_generations".to_owned(),
        input: Some(Input::Prompt("canary-prompt".to_owned())),
        ..Default::default()
    };
    let mut answer = pair
        .inference()
        .stream_infer(traced(request, trace))
        .await?
        .into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

/// A collector that logs the spans that it receives.
struct Collector {
    child: Child,
    addr: SocketAddr,
    log: std::path::PathBuf,
}

#[derive(Debug, Default, Clone)]
struct Span {
    trace: String,
    parent: String,
    id: String,
    name: String,
}

impl Collector {
    async fn start(folder: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (addr, http) = (free(), free());
        let log = folder.join("collector.log");
        let child = Command::new(ROTEL.path())
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &addr.to_string()])
            .args(["--otlp-http-endpoint", &http.to_string()])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(started.elapsed() < PATIENCE, "the collector does not listen");
            sleep(std::time::Duration::from_millis(10)).await;
        }
        Self { child, addr, log }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for line in self.text().lines() {
            if line.starts_with("Span #") {
                spans.push(Span::default());
            }
            let (Some(span), Some((key, value))) = (spans.last_mut(), line.split_once(" : ")) else {
                continue;
            };
            let value = value.trim().to_owned();
            match key.trim() {
                "Trace ID" => span.trace = value,
                "Parent ID" => span.parent = value,
                "ID" => span.id = value,
                "Name" => span.name = value,
                _ => {}
            }
        }
        spans
    }

    /// Waits for a chain of spans below the caller's span and returns the id of the last one.
    async fn chain(&self, (trace, root): (&str, &str), names: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let spans = self.spans();
            let last = names.iter().try_fold(root.to_owned(), |parent, name| {
                let is_next = |span: &&Span| span.trace == trace && span.parent == parent && span.name == *name;
                spans.iter().find(is_next).map(|span| span.id.clone())
            });
            if let Some(last) = last {
                return last;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "no trace has the chain {names:?}: {spans:#?}"
            );
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn one_trace_shows_a_call_and_another_a_write_up_to_the_router() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(folder.path()).await;
    let pair = Pair::start_with(&[format!("--otlp-endpoint=http://{}", collector.addr)]).await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), Some("canary-token")).await;
    pair.wait_until_routed("code_generations").await;

    ask(&pair, CALL).await.unwrap();
    let calls = ["switchboard.router.v1.InferenceService/StreamInfer", "infer", "chat"];
    let attempt = collector.chain(CALL, &calls).await;
    let request = upstream.requests().pop().unwrap();
    assert_eq!(request.headers["traceparent"], format!("00-{}-{attempt}-01", CALL.0));

    let request = UpdateSettingsRequest {
        settings: Some(Settings {
            beta_enabled: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    pair.settings().update_settings(traced(request, WRITE)).await.unwrap();
    let write = [
        "switchboard.registry.v1.SettingsService/UpdateSettings",
        "commit",
        "apply",
    ];
    collector.chain(WRITE, &write).await;

    // The last spans are sent at shutdown.
    pair.finish().await;
    let text = collector.text();
    for canary in ["canary-prompt", "canary-token", "hello"] {
        assert!(!text.contains(canary), "{canary} is in a trace");
    }
    let transport = ["h2", "hyper", "tonic", "tower", "sqlx"];
    assert!(
        !collector
            .spans()
            .iter()
            .any(|span| transport.contains(&span.name.as_str()))
    );
}

async fn a_collector_that_does_not_answer_loses_only_the_spans() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("--otlp-endpoint=http://{}", hanging.local_addr().unwrap());
    let pair = Pair::start_with(&[endpoint]).await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let asked = Instant::now();
    pair.finish().await;
    assert!(asked.elapsed() < PATIENCE / 4, "shutdown took {:?}", asked.elapsed());
}

async fn calls_are_counted_and_have_one_access_line_each() {
    let pair = Pair::start_with(&["--log-format=json".to_owned()]).await;
    let upstream = FakeUpstream::start().await;
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed("code_generations").await;
    let before = metric(&pair.router, "switchboard_router_attempts_total{outcome=\"answered\"}");
    ask(&pair, CALL).await.unwrap();
    // Without a collector the router forwards the caller's trace context unchanged.
    let request = upstream.requests().pop().unwrap();
    assert_eq!(request.headers["traceparent"], format!("00-{}-{}-01", CALL.0, CALL.1));

    let mut line = None;
    pair.wait_until(async || {
        let log = pair.router.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        line = lines.find(|line| line["target"] == "switchboard::access" && line["request_id"] == "observed");
        line.is_some()
    })
    .await;
    let line = line.unwrap();
    for (field, value) in [
        ("level", "INFO"),
        ("method", "switchboard.router.v1.InferenceService/StreamInfer"),
        ("code", "OK"),
        ("reason", ""),
        ("trace_id", CALL.0),
        ("feature", "features/code_generations"),
        ("model", "models/mistral"),
        ("finish_reason", "stop"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    for (field, value) in [("attempts", 1), ("input_tokens", 3), ("output_tokens", 2)] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(
        line["duration_ms"].is_u64() && line["response_bytes"].as_u64() > Some(0),
        "{line}"
    );
    assert!(!pair.router.log().contains("canary-prompt"));

    let after = metric(&pair.router, "switchboard_router_attempts_total{outcome=\"answered\"}");
    assert!(after > before, "{before} then {after}");
    let finished = "switchboard_calls_finished_total{method=\"switchboard.router.v1.InferenceService/StreamInfer\",\
                    code=\"OK\",reason=\"\"}";
    assert!(metric(&pair.router, finished) >= 1.0);
    let revision = metric(pair.registry(), "switchboard_registry_revision");
    assert!(revision > 1.0);
    pair.wait_until(async || metric(&pair.router, "switchboard_router_config_revision") >= revision)
        .await;
    assert_eq!(metric(pair.registry(), "switchboard_registry_routers_connected"), 1.0);
    assert!(metric(pair.registry(), "switchboard_registry_commit_duration_seconds_count") >= 2.0);
    pair.finish().await;
}

async fn the_metrics_pass_promtool() {
    let promtool = PROMTOOL.path();
    let pair = Pair::start().await;
    for service in [pair.registry(), &pair.router] {
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = http(service.admin_addr, "GET", "/metrics", "");
        check.stdin.take().unwrap().write_all(body(&text).as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    pair.finish().await;
}

async fn the_log_level_can_be_changed_while_the_service_runs() {
    let pair = Pair::start().await;
    let admin = pair.router.admin_addr;
    let refused = http(admin, "PUT", "/log-level", "loud");
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert_eq!(body(&http(admin, "GET", "/log-level", "")), "debug\n");
    let changed = http(admin, "PUT", "/log-level", "error");
    assert!(
        changed.starts_with("HTTP/1.1 200") && body(&changed) == "error\n",
        "{changed}"
    );
    let told = pair.router.log().len();
    ask(&pair, CALL).await.unwrap_err();
    http(admin, "PUT", "/log-level", "info");
    ask(&pair, WRITE).await.unwrap_err();
    pair.wait_until(async || pair.router.log()[told..].contains(WRITE.0))
        .await;
    assert!(!pair.router.log()[told..].contains(CALL.0), "{}", pair.router.log());
    pair.finish().await;
}

async fn the_health_command_reports_by_its_exit_code() {
    let pair = Pair::start().await;
    let ask = |name: &str, addr: SocketAddr, service: &str| {
        let output = Command::new(binary(name))
            .args(["health", "--addr", &addr.to_string(), "--service", service])
            .output()
            .unwrap();
        let lines = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        (output.status.code(), text)
    };
    let (router, registry) = (pair.router.listen_addr, pair.registry().listen_addr);
    let inference = "switchboard.router.v1.InferenceService";
    assert_eq!(ask("switchboard-router", router, "").0, Some(0));
    assert_eq!(ask("switchboard-router", router, inference).0, Some(0));
    assert_eq!(ask("switchboard-registry", registry, "").0, Some(0));
    let (code, text) = ask("switchboard-registry", registry, inference);
    assert_eq!(code, Some(1));
    assert!(text.contains("SERVICE_UNKNOWN"), "{text}");

    // Without `--addr`, the variable of `--listen-addr` names the service.
    for (name, variable, addr) in [
        ("switchboard-router", "SWITCHBOARD_ROUTER_LISTEN_ADDR", router),
        ("switchboard-registry", "SWITCHBOARD_REGISTRY_LISTEN_ADDR", registry),
    ] {
        for listen_addr in [addr.to_string(), format!("0.0.0.0:{}", addr.port())] {
            let output = Command::new(binary(name))
                .arg("health")
                .env(variable, &listen_addr)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{listen_addr}: {output:?}");
        }
    }
    pair.finish().await;
    assert_eq!(ask("switchboard-router", router, "").0, Some(1));
}

/// Returns the value of a metric, or 0 if it does not exist yet.
pub(crate) fn metric(service: &Service, name: &str) -> f64 {
    let text = http(service.admin_addr, "GET", "/metrics", "");
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().map_or(0.0, |value| value.parse().unwrap())
}

fn http(addr: SocketAddr, method: &str, path: &str, content: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    let length = content.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{content}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

tests! {
    one_trace_shows_a_call_and_another_a_write_up_to_the_router needs ROTEL,
    a_collector_that_does_not_answer_loses_only_the_spans,
    calls_are_counted_and_have_one_access_line_each,
    the_metrics_pass_promtool needs PROMTOOL,
    the_log_level_can_be_changed_while_the_service_runs,
    the_health_command_reports_by_its_exit_code,
}
