//! The quickstart script: it reports wrong arguments and a machine that lacks something before it builds anything, and it
//! leaves no process and no API token when it ends.
//!
//! It runs in a folder of its own, with a `PATH` whose `cargo` is a stub. `.ci/run quickstart` runs it for real.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    harness::{PATIENCE, binary},
    runner::Requirement,
};

/// Without curl the script only opens a connection to the endpoint.
const CURL: Requirement = Requirement::Program {
    name: "curl",
    remedy: "apt-get install curl",
};

/// The programs that the script may use, besides those that have stubs.
const TOOLS: [&str; 21] = [
    "awk", "basename", "bash", "cat", "curl", "date", "dirname", "env", "find", "grep", "mkdir", "mktemp", "mv", "rm",
    "sed", "seq", "sleep", "tail", "timeout", "touch", "tr",
];

/// A `cargo` that writes down each call except for `--version`, and builds nothing.
const CARGO: &str = r#"
case $1 in
--version) echo "cargo 1.95.0" ;;
*) echo "$*" >>"$CALLS"; echo "error: the stub builds nothing" >&2; exit 101 ;;
esac"#;

/// A copy of the script with the files that it reads, and a folder of programs that is its whole `PATH`.
struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "quickstart",
            "Cargo.toml",
            "src/catalogue/features.toml",
            "examples/model_server.py",
        ] {
            let copy = folder.path().join("repository").join(file);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(root.join(file), copy).unwrap();
        }
        let sandbox = Self { folder };
        fs::create_dir(sandbox.path("programs")).unwrap();
        for tool in TOOLS {
            if let Some(program) = find_program(tool) {
                symlink(program, sandbox.path("programs").join(tool)).unwrap();
            }
        }
        sandbox.stub("cargo", CARGO);
        sandbox.stub("cc", "");
        sandbox.stub("python3", "echo 3.11");
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a shell script on the `PATH`, in place of the program of this name.
    fn stub(&self, name: &str, script: &str) {
        let file = self.path("programs").join(name);
        fs::write(&file, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Lets `cargo build` provide the real services, and this shell script as the client.
    fn stub_build(&self, client: &str) {
        self.stub("switchboard-ask", client);
        let programs = [
            binary("switchboard-registry"),
            binary("switchboard-router"),
            self.path("programs").join("switchboard-ask"),
        ];
        let lines = programs.map(|program| format!(r#"echo '{{"executable":"{}"}}'"#, program.display()));
        let version = r#"[ "$1" != --version ] || { echo "cargo 1.95.0"; exit; }"#;
        self.stub("cargo", &format!("{version}\n{}", lines.join("\n")));
    }

    fn remove(&self, program: &str) {
        fs::remove_file(self.path("programs").join(program)).unwrap();
    }

    /// Writes a file for `--api-token-file`, and returns its path.
    fn token_file(&self, text: &str) -> String {
        let file = self.path("token");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("PATH", self.path("programs")),
            ("HOME", self.path("home")),
            ("CALLS", self.path("calls")),
        ]
    }

    /// Runs the script to its end.
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.path("repository/quickstart"));
        command
            .args(args)
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Runs the script, which must fail with this exit code and a message that contains this text, before it builds or
    /// writes anything.
    async fn refuses(&self, args: &[&str], code: i32, text: &str) {
        let output = self.run(args).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.starts_with("quickstart: "), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
        assert!(errors.lines().count() <= 2, "{args:?}: {errors}");
        assert!(!errors.contains("sk-"), "the message shows the API token: {errors}");
        assert!(!self.path("calls").exists(), "{args:?} built something");
        assert!(
            !self.path("repository/.quickstart").exists(),
            "{args:?} wrote something"
        );
    }

    /// The names of the files of all runs.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for folder in self.runs() {
            for file in fs::read_dir(&folder).unwrap() {
                files.push(file.unwrap().file_name().into_string().unwrap());
            }
        }
        files.sort();
        files
    }

    /// The folders of all runs.
    fn runs(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.path("repository/.quickstart")).unwrap();
        let paths = folder.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_string_lossy().contains("/run-")).collect()
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = env::split_paths(&path).map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Answers every request with 401 unless it has this API token. Stops when the set is dropped.
async fn model_server(api_token: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = caller.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
            let status = if request.contains(&format!("authorization: bearer {api_token}\r\n")) {
                "200 OK"
            } else {
                "401 Unauthorized"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // A caller that only opens a connection does not read the answer.
            drop(caller.write_all(answer.as_bytes()).await);
        }
    });
    (addr, tasks)
}

/// A port of this machine on which nothing listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn wrong_arguments_are_refused_before_anything_is_built() {
    let sandbox = Sandbox::new();
    for (args, text) in [
        (&["--frobnicate"][..], "unknown option --frobnicate"),
        (&["--api-token=sk-1"], "unknown option --api-token"),
        (&["-x"], "unknown option -x"),
        (&["later"], "unexpected argument later"),
        (&["--once=yes"], "--once takes no value"),
        (&["--endpoint"], "--endpoint needs a value"),
        (&["--endpoint", ""], "--endpoint needs a value"),
        (&["--endpoint="], "--endpoint needs a value"),
        (&["--endpoint", "--once"], "--endpoint needs a value"),
        (&["--identifier", "x"], "--identifier needs --endpoint"),
        (&["--family", "qwen"], "--family needs --endpoint"),
        (&["--api-token-file", "x"], "--api-token-file needs --endpoint"),
    ] {
        sandbox.refuses(args, 2, text).await;
    }
    for (endpoint, text) in [
        ("gpu1:8000", "must begin with http:// or https://"),
        ("ftp://gpu1", "must begin with http:// or https://"),
        ("http://user:sk-1@gpu1", "--api-token-file"),
        ("http://gpu1/v1?key=sk-1", "query"),
        ("http://gpu1/v1#top", "fragment"),
        ("http://gpu1/v1/chat/completions", "give the base URL"),
        ("http://gpu1 /v1", "blanks"),
        ("http:///v1", "is not a URL"),
        ("http://gpu1:web", "is not a URL"),
        ("http://::1:8000", "is not a URL"),
        ("http://gpu1:0", "port"),
        ("http://gpu1:65536", "port"),
    ] {
        sandbox.refuses(&["--endpoint", endpoint], 2, text).await;
    }
    for family in ["unheard-of", "starcoder"] {
        sandbox
            .refuses(&["--endpoint", "http://gpu1", "--family", family], 2, "mistral")
            .await;
    }
    for (token, text) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("sk-1\nsk-2\n", "more than one line"),
        ("sk-1 sk-2\n", "has blanks"),
        ("sk-\u{e9}\n", "not visible ASCII"),
    ] {
        let file = sandbox.token_file(token);
        sandbox
            .refuses(&["--endpoint", "http://gpu1", "--api-token-file", &file], 2, text)
            .await;
    }
    for (file, text) in [
        (sandbox.path("missing"), "does not exist"),
        (sandbox.path("programs"), "is not a regular file"),
    ] {
        let file = file.display().to_string();
        sandbox
            .refuses(&["--endpoint", "http://gpu1", "--api-token-file", &file], 2, text)
            .await;
    }
}

async fn an_unreachable_endpoint_is_reported_with_the_cause_before_anything_is_built() {
    let sandbox = Sandbox::new();
    sandbox.remove("python3");
    sandbox
        .refuses(&["--endpoint", &closed_port()], 1, "Connection refused")
        .await;
    sandbox
        .refuses(
            &["--endpoint=http://switchboard.invalid/v1"],
            1,
            "switchboard.invalid port 80",
        )
        .await;
}

async fn an_endpoint_that_refuses_the_api_token_is_reported_before_anything_is_built() {
    let sandbox = Sandbox::new();
    let (addr, _tasks) = model_server("sk-good").await;
    let endpoint = format!("http://{addr}/v1");
    sandbox
        .refuses(&["--endpoint", &endpoint], 1, "give it with --api-token-file")
        .await;
    let args = [
        "--endpoint",
        &endpoint,
        "--api-token-file",
        &sandbox.token_file("sk-bad\n"),
    ];
    sandbox.refuses(&args, 1, "refuses the API token").await;

    sandbox.token_file("sk-good\r\n");
    let output = sandbox.run(&args).await;
    assert_eq!(output.status.code(), Some(1));
    let calls = fs::read_to_string(sandbox.path("calls")).unwrap();
    assert!(calls.starts_with("build --locked"), "{calls}");
}

async fn a_missing_or_old_program_is_reported_before_anything_is_built() {
    let sandbox = Sandbox::new();
    sandbox.stub("python3", "[[ $2 != *ensurepip* ]] && echo 3.11");
    sandbox.refuses(&[], 1, "has no venv").await;
    sandbox.stub("python3", "echo 3.9");
    sandbox.refuses(&[], 1, "this is Python 3.9").await;
    sandbox.stub("python3", "echo broken >&2; exit 1");
    sandbox.refuses(&[], 1, "python3 does not run: broken").await;
    sandbox.remove("python3");
    sandbox.refuses(&[], 1, "python3 is missing").await;
    sandbox.remove("cc");
    sandbox.refuses(&[], 1, "C compiler").await;
    sandbox.stub("cargo", "echo cargo 1.80.1");
    sandbox.refuses(&[], 1, "Rust 1.80.1 is too old").await;
    sandbox.stub("cargo", "echo no toolchain >&2; exit 1");
    sandbox.refuses(&[], 1, "cargo does not run: no toolchain").await;
    sandbox.remove("cargo");
    sandbox.refuses(&[], 1, "cargo is missing").await;
}

async fn failed_runs_keep_only_the_newest_logs() {
    let sandbox = Sandbox::new();
    let (addr, _tasks) = model_server("sk-good").await;
    let args = [
        "--endpoint",
        &format!("http://{addr}"),
        "--api-token-file",
        &sandbox.token_file("sk-good"),
    ];
    sandbox.remove("python3");
    for _ in 0..5 {
        let output = sandbox.run(&args).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        for text in ["the build has failed", "the stub builds nothing", "The logs are in "] {
            assert!(errors.contains(text), "{errors}");
        }
    }
    assert_eq!(sandbox.files(), ["build.log"; 3]);
}

async fn a_run_that_fails_with_both_services_running_leaves_only_logs() {
    let sandbox = Sandbox::new();
    let (addr, _tasks) = model_server("sk-good").await;
    sandbox.remove("python3");
    sandbox.stub_build("exit 1");
    let args = [
        "--endpoint",
        &format!("http://{addr}"),
        "--api-token-file",
        &sandbox.token_file("sk-good"),
    ];
    let output = sandbox.run(&args).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the model could not be configured"), "{errors}");
    assert_eq!(sandbox.files(), ["build.log", "registry.log", "router.log"]);
}

/// Takes a port, once the tests that run at the same time have given it back. `None`: another process keeps it, which is as
/// good.
async fn take_port(addr: &str) -> Option<TcpListener> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Ok(taken) = TcpListener::bind(addr) {
            return Some(taken);
        }
        sleep(Duration::from_millis(5)).await;
    }
    None
}

async fn a_successful_run_leaves_no_files_and_takes_free_ports_if_the_defaults_are_in_use() {
    let sandbox = Sandbox::new();
    let (addr, _tasks) = model_server("sk-good").await;
    sandbox.remove("python3");
    sandbox.stub_build("echo \"$@\" >>\"$CALLS\"");
    let _taken = take_port("127.0.0.1:50051").await;
    let args = [
        "--once",
        "--endpoint",
        &format!("http://{addr}"),
        "--api-token-file",
        &sandbox.token_file("sk-good"),
    ];
    let output = sandbox.run(&args).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    assert!(
        text.contains("port 50051 or 9051 is in use: the registry takes free ports"),
        "{text}"
    );
    assert_eq!(sandbox.runs(), [] as [PathBuf; 0]);
    let calls = fs::read_to_string(sandbox.path("calls")).unwrap();
    assert!(!calls.contains(":50051") && !calls.contains("sk-good"), "{calls}");
}

async fn ctrl_c_ends_everything_that_the_script_has_started() {
    let sandbox = Sandbox::new();
    let (addr, _tasks) = model_server("sk-good").await;
    sandbox.remove("python3");
    sandbox.stub(
        "cargo",
        r#"[ "$1" != --version ] || { echo "cargo 1.95.0"; exit; }
echo $$ >"$CALLS.part"
mv "$CALLS.part" "$CALLS"
exec sleep 600"#,
    );
    let endpoint = format!("http://{addr}");
    let token_file = sandbox.token_file("sk-good");
    // A shell that starts the tests in the background lets them ignore SIGINT, and a script cannot undo that.
    let mut child = Command::new(sandbox.path("programs/env"))
        .arg("--default-signal=INT")
        .arg(sandbox.path("repository/quickstart"))
        .args(["--endpoint", &endpoint, "--api-token-file", &token_file])
        .env_clear()
        .envs(sandbox.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !sandbox.path("calls").exists() {
        assert!(started.elapsed() < PATIENCE, "the build has not begun");
        sleep(Duration::from_millis(10)).await;
    }
    let build = fs::read_to_string(sandbox.path("calls")).unwrap();
    let build = Path::new("/proc").join(build.trim());
    assert!(build.exists());
    assert_eq!(sandbox.runs().len(), 1);

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let interrupted = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(interrupted.elapsed() < PATIENCE, "the script does not end");
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status.code(), Some(130));
    assert!(!build.exists(), "the build goes on");
    assert_eq!(sandbox.runs(), [] as [PathBuf; 0]);
}

tests! {
    wrong_arguments_are_refused_before_anything_is_built,
    an_unreachable_endpoint_is_reported_with_the_cause_before_anything_is_built,
    an_endpoint_that_refuses_the_api_token_is_reported_before_anything_is_built needs CURL,
    a_missing_or_old_program_is_reported_before_anything_is_built,
    failed_runs_keep_only_the_newest_logs,
    a_run_that_fails_with_both_services_running_leaves_only_logs,
    a_successful_run_leaves_no_files_and_takes_free_ports_if_the_defaults_are_in_use,
    ctrl_c_ends_everything_that_the_script_has_started,
}
