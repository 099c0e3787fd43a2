//! A real language model behind a real server: what it says comes through, and it stops when the caller leaves.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use switchboard::pb::{
    registry::{CheckModelRequest, CheckOutcome, Model},
    router::{
        ChatInput, FinishReason, InferOptions, InferRequest, Message, Part, Role, infer_request::Input, part,
        stream_infer_response::Event,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::harness::{PATIENCE, Pair};

/// llama.cpp's own server with a small model; `./quickstart --once` installs it.
struct ModelServer {
    child: Child,
    addr: SocketAddr,
}

impl ModelServer {
    /// Starts the server. `None`: it is not installed, which fails with `CI` set.
    async fn start(folder: &Path) -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let installed = root.join(".quickstart/model");
        if !installed.join("installed").exists() {
            let missing = "the model server is missing: ./quickstart --once installs it";
            assert!(env::var_os("CI").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        }
        let ready_file = folder.join("model.uri");
        let child = Command::new("python3")
            .arg(root.join("examples/model_server.py"))
            .arg("--folder")
            .arg(installed)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("model.log")).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !ready_file.exists() {
            assert!(started.elapsed() < PATIENCE, "the model server is not ready");
            sleep(Duration::from_millis(20)).await;
        }
        let uri = fs::read_to_string(ready_file).unwrap();
        let addr = uri
            .trim()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap();
        Some(Self { child, addr })
    }

    /// How many answers the server is working on.
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

/// Passes bytes on to the model server, and tells when the router closed a connection.
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

#[tokio::test]
async fn a_real_model_answers_call_after_call_and_stops_when_its_caller_leaves() {
    let pair = Pair::start().await;
    let Some(server) = ModelServer::start(pair.folder.path()).await else {
        return;
    };
    let mut tap = Tap::start(server.addr).await;
    pair.configure(&format!("http://{}/v1", tap.addr), None).await;
    pair.wait_until_routed("code_generations").await;

    // The server closes each connection after its stream, without saying so.
    for _ in 0..3 {
        let mut stream = pair
            .inference()
            .stream_infer(chat("Say hello.", 16))
            .await
            .unwrap()
            .into_inner();
        let (mut text, mut completion) = (String::new(), None);
        while let Some(message) = timeout(PATIENCE, stream.message()).await.unwrap().unwrap() {
            match message.event.unwrap() {
                Event::Selection(selection) => assert_eq!(selection.model, "models/mistral"),
                Event::Delta(delta) => {
                    if let Some(switchboard::pb::router::delta::Kind::Text(piece)) = delta.kind {
                        text.push_str(&piece);
                    }
                }
                Event::Completion(last) => completion = Some(last),
            }
        }
        let completion = completion.unwrap();
        assert!(!text.trim().is_empty());
        assert!(matches!(
            completion.finish_reason(),
            FinishReason::Stop | FinishReason::Length
        ));
        let usage = completion.usage.expect("llama.cpp tells the usage");
        assert!(
            usage.input_tokens > Some(0) && usage.output_tokens > Some(0),
            "{usage:?}"
        );
    }
    while tap.closed.try_recv().is_ok() {}

    let request = chat("Tell a very long story about a telephone switchboard.", 2000);
    let mut stream = pair.inference().stream_infer(request).await.unwrap().into_inner();
    for _ in 0..5 {
        stream.message().await.unwrap().expect("the story goes on");
    }
    assert_eq!(server.busy().await, 1);
    let left = Instant::now();
    drop(stream);
    let closed = timeout(PATIENCE, tap.closed.recv()).await.unwrap().unwrap();
    let late = closed.saturating_duration_since(left);
    assert!(late < Duration::from_millis(100), "closed after {late:?}");
    let started = Instant::now();
    while server.busy().await > 0 {
        assert!(started.elapsed() < PATIENCE, "the model goes on for nobody");
    }
    pair.finish().await;
}

#[tokio::test]
async fn a_real_server_passes_every_step_of_a_check() {
    let pair = Pair::start().await;
    let Some(server) = ModelServer::start(pair.folder.path()).await else {
        return;
    };
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
