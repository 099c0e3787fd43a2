//! A real language model on a real server: the router relays its answers, and the model stops when the caller cancels.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use switchboard::pb::{
    registry::{CheckModelRequest, CheckOutcome, Model},
    router::{
        ChatInput, Completion, FinishReason, InferOptions, InferRequest, InfillInput, Message, Part, Role, delta,
        infer_request::Input, part, stream_infer_response::Event,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    harness::{PATIENCE, Pair, reason_of},
    runner::Requirement,
};

/// llama.cpp's own server with a small model.
const MODEL_SERVER: Requirement = Requirement::Condition {
    is_met: || installed().join("installed").exists(),
    reason: "the model server is not installed",
    remedy: "./quickstart --once installs it",
};

/// How long the server may take to load its model on a busy machine.
const LOADED_WITHIN: Duration = Duration::from_secs(90);
/// Lets one test run at a time, because the server uses all cores while it loads and answers.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The folder of the installed model server.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".quickstart/model")
}

/// A running [`MODEL_SERVER`].
struct ModelServer {
    child: Child,
    addr: SocketAddr,
}

impl ModelServer {
    async fn start(folder: &Path) -> Self {
        Self::start_at(folder, 0).await
    }

    /// Starts the server at this port; 0 selects a free port.
    async fn start_at(folder: &Path, port: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ready_file = folder.join("model.uri");
        // A server that was killed leaves its ready file behind.
        drop(fs::remove_file(&ready_file));
        let child = Command::new("python3")
            .arg(root.join("examples/model_server.py"))
            .arg("--folder")
            .arg(installed())
            .args(["--port", &port.to_string()])
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("model.log")).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !ready_file.exists() {
            assert!(started.elapsed() < LOADED_WITHIN, "the model server is not ready");
            sleep(Duration::from_millis(20)).await;
        }
        let uri = fs::read_to_string(ready_file).unwrap();
        let addr = uri
            .trim()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap();
        Self { child, addr }
    }

    /// Kills the server as a power cut would, and returns its address.
    fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.addr
    }

    /// Returns the number of answers that the server is working on.
    async fn busy(&self) -> u32 {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("llamacpp:requests_processing"))
            .unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A TCP proxy in front of the model server that reports when the router closes a connection.
struct Tap {
    addr: SocketAddr,
    closed: mpsc::Receiver<Instant>,
    _tasks: JoinSet<()>,
}

impl Tap {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, closed) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((router, _)) = listener.accept().await {
                let sender = sender.clone();
                connections.spawn(async move {
                    let server = TcpStream::connect(target).await.unwrap();
                    let (mut from_router, mut to_router) = router.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::select! {
                        _ = copy(&mut from_router, &mut to_server) => drop(sender.send(Instant::now()).await),
                        _ = copy(&mut from_server, &mut to_router) => {}
                    }
                });
            }
        });
        Self {
            addr,
            closed,
            _tasks: tasks,
        }
    }
}

fn chat(question: &str, max_output_tokens: i32) -> InferRequest {
    let message = |role: Role, text: &str| Message {
        role: role.into(),
        parts: vec![Part {
            kind: Some(part::Kind::Text(text.to_owned())),
        }],
    };
    InferRequest {
        feature: "code_generations".to_owned(),
        input: Some(Input::Chat(ChatInput {
            messages: vec![message(Role::System, "You are brief."), message(Role::User, question)],
        })),
        options: Some(InferOptions {
            max_output_tokens: Some(max_output_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Makes a streamed call and returns its text and its completion.
async fn answer(pair: &Pair, request: InferRequest) -> Result<(String, Completion), Status> {
    let mut stream = pair.inference().stream_infer(request).await?.into_inner();
    let (mut text, mut completion) = (String::new(), None);
    while let Some(message) = timeout(PATIENCE, stream.message()).await.unwrap()? {
        match message.event.unwrap() {
            Event::Selection(selection) => assert_eq!(selection.model, "models/mistral"),
            Event::Delta(delta) => {
                if let Some(delta::Kind::Text(piece)) = delta.kind {
                    text.push_str(&piece);
                }
            }
            Event::Completion(last) => completion = Some(last),
        }
    }
    Ok((text, completion.expect("OK never comes without a completion")))
}

async fn a_real_model_answers_many_calls_and_stops_when_its_caller_cancels() {
    let _alone = ALONE.lock().await;
    let pair = Pair::start().await;
    let server = ModelServer::start(pair.folder.path()).await;
    let mut tap = Tap::start(server.addr).await;
    pair.configure(&format!("http://{}/v1", tap.addr), None).await;
    pair.wait_until_routed("code_generations").await;

    // The server closes each connection after its stream without announcing it. No call may fail because of that.
    for _ in 0..20 {
        let (text, completion) = answer(&pair, chat("Say hello.", 8)).await.unwrap();
        assert!(!text.trim().is_empty());
        assert!(matches!(
            completion.finish_reason(),
            FinishReason::Stop | FinishReason::Length
        ));
        let usage = completion.usage.expect("llama.cpp reports the usage");
        assert!(
            usage.input_tokens > Some(0) && usage.output_tokens > Some(0),
            "{usage:?}"
        );
    }
    while tap.closed.try_recv().is_ok() {}

    let request = chat("Tell a very long story about a telephone switchboard.", 2000);
    let mut stream = pair.inference().stream_infer(request).await.unwrap().into_inner();
    for _ in 0..5 {
        stream.message().await.unwrap().expect("the story continues");
    }
    assert_eq!(server.busy().await, 1);
    let left = Instant::now();
    drop(stream);
    let closed = timeout(PATIENCE, tap.closed.recv()).await.unwrap().unwrap();
    let late = closed.saturating_duration_since(left);
    assert!(late < Duration::from_millis(100), "closed after {late:?}");
    let started = Instant::now();
    while server.busy().await > 0 {
        assert!(
            started.elapsed() < PATIENCE,
            "the model still generates after the caller has gone"
        );
    }
    pair.finish().await;
}

async fn a_real_model_completes_infill_and_a_too_long_prompt_is_refused() {
    let _alone = ALONE.lock().await;
    let pair = Pair::start().await;
    let server = ModelServer::start(pair.folder.path()).await;
    pair.configure(&format!("http://{}/v1", server.addr), None).await;
    pair.assign("code_completions", "models/mistral").await;
    pair.wait_until_routed("code_completions").await;

    let infill = InferRequest {
        feature: "code_completions".to_owned(),
        input: Some(Input::Infill(InfillInput {
            prefix: "def add(a, b):\n    return ".to_owned(),
            suffix: "\n\nprint(add(1, 2))\n".to_owned(),
            ..Default::default()
        })),
        ..chat("", 8)
    };
    let (_, completion) = answer(&pair, infill).await.unwrap();
    assert!(completion.usage.unwrap().output_tokens > Some(0));

    let long = chat(&"All work and no play makes a dull switchboard. ".repeat(1000), 8);
    let result = answer(&pair, long).await;
    assert_eq!(
        reason_of(&result).as_deref(),
        Some("CONTEXT_LENGTH_EXCEEDED"),
        "{result:?}"
    );

    // This server has one model and accepts any model name, so it does not detect a wrong one.
    let wrong = Model {
        identifier: Some("no-such-model".to_owned()),
        ..Default::default()
    };
    let updated = pair.update_model(wrong).await.unwrap();
    // Waits without an inference call, because an answer of unlimited length could exceed the time limit on a busy
    // machine.
    pair.wait_until_resolved("code_generations", updated.revision).await;
    answer(&pair, chat("Say hello.", 4)).await.unwrap();
    pair.finish().await;
}

async fn an_answer_fails_with_its_server_and_later_calls_reach_the_restarted_server() {
    let _alone = ALONE.lock().await;
    let pair = Pair::start().await;
    let server = ModelServer::start(pair.folder.path()).await;
    pair.configure(&format!("http://{}/v1", server.addr), None).await;
    pair.wait_until_routed("code_generations").await;

    let request = chat("Tell a very long story about a telephone switchboard.", 2000);
    let mut stream = pair.inference().stream_infer(request).await.unwrap().into_inner();
    for _ in 0..5 {
        stream.message().await.unwrap().expect("the story continues");
    }
    let addr = server.kill();
    let status = loop {
        match timeout(PATIENCE, stream.message()).await.unwrap() {
            Ok(message) => assert!(message.is_some(), "a truncated answer never looks like success"),
            Err(status) => break status,
        }
    };
    let details = status.get_error_details();
    let told = details.error_info().unwrap();
    assert_eq!(told.reason, "UPSTREAM_STREAM_TRUNCATED");
    assert_eq!(told.metadata["partial"], "true");

    let result = answer(&pair, chat("Say hello.", 4)).await;
    assert_eq!(
        reason_of(&result).as_deref(),
        Some("UPSTREAM_CONNECT_FAILED"),
        "{result:?}"
    );
    let _again = ModelServer::start_at(pair.folder.path(), addr.port()).await;
    answer(&pair, chat("Say hello.", 4)).await.unwrap();
    pair.finish().await;
}

async fn a_real_server_passes_every_step_of_a_check() {
    let _alone = ALONE.lock().await;
    let pair = Pair::start().await;
    let server = ModelServer::start(pair.folder.path()).await;
    let request = CheckModelRequest {
        model: Some(Model {
            family: Some("llama3".to_owned()),
            endpoint: Some(format!("http://{}", server.addr)),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = pair.models().check_model(request).await.unwrap().into_inner();
    let [check] = &*answer.checks else { panic!("{answer:?}") };
    assert!(check.passed, "{check:?}");
    let skipped: Vec<&str> = check
        .steps
        .iter()
        .filter(|step| step.outcome() == CheckOutcome::Skipped)
        .map(|step| step.step.as_str())
        .collect();
    assert_eq!(skipped, ["dns", "tls"], "{check:?}");
    pair.finish().await;
}

tests! {
    a_real_model_answers_many_calls_and_stops_when_its_caller_cancels needs MODEL_SERVER,
    a_real_model_completes_infill_and_a_too_long_prompt_is_refused needs MODEL_SERVER,
    an_answer_fails_with_its_server_and_later_calls_reach_the_restarted_server needs MODEL_SERVER,
    a_real_server_passes_every_step_of_a_check needs MODEL_SERVER,
}
