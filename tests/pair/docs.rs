//! The README and the pages of `docs/`: every command runs as a reader would paste it, in order, on new services for each
//! page.
//!
//! The first line of a fenced block says what checks the block:
//!
//! | first line | check |
//! | --- | --- |
//! | `console` | bash runs it, and every command succeeds |
//! | `console service` | it is one command, which starts a service that runs until the end of the page |
//! | `console stopped=registry` | as `console`, while the registry is stopped |
//! | `console fails` | as `console`, but the last command fails |
//! | `ruby run` | Ruby runs it, with stubs of the router's API |
//! | `... output` | the block of commands before it printed this; a line `...` stands for any lines |
//! | `... help=PROGRAM` | `PROGRAM --help` prints this |
//! | `... ci=PART` | the part of `.ci/run` or `.ci/long` runs it |
//! | `... test=FILE` | the file contains these lines |
//! | `... picture` | nothing: it has no command and no output |
//!
//! A comment `<!-- shows` after a block of commands lists JSON pointers, and the values that the first answer has there.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs, iter,
    os::unix,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    administrator::GRPCURL,
    fake_upstream::{FakeUpstream, Script},
    harness::{PATIENCE, Service, binary},
    ruby::{self, RUBY, RUBY_STUBS},
    runner::{self, Requirement},
};

const CURL: Requirement = Requirement::Program {
    name: "curl",
    remedy: "apt-get install curl",
};
const OPENSSL: Requirement = Requirement::Program {
    name: "openssl",
    remedy: "apt-get install openssl",
};

/// If it is set, blocks `help=` are rewritten instead of compared.
const UPDATE: &str = "SWITCHBOARD_UPDATE_LISTING";
/// The address of the model server in all pages.
const MODEL_SERVER: &str = "http://127.0.0.1:8000";

/// A service that pages start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Registry,
    Router,
}

impl Program {
    const ALL: [Self; 2] = [Self::Registry, Self::Router];

    const fn name(self) -> &'static str {
        match self {
            Self::Registry => "switchboard-registry",
            Self::Router => "switchboard-router",
        }
    }

    const fn variables(self) -> &'static str {
        match self {
            Self::Registry => "SWITCHBOARD_REGISTRY",
            Self::Router => "SWITCHBOARD_ROUTER",
        }
    }

    /// The default addresses, gRPC and admin, which all pages use.
    const fn documented(self) -> [&'static str; 2] {
        match self {
            Self::Registry => ["127.0.0.1:50051", "127.0.0.1:9051"],
            Self::Router => ["127.0.0.1:50052", "127.0.0.1:9052"],
        }
    }

    /// The command that starts it on a page that does not start it itself.
    const fn usual(self) -> &'static str {
        match self {
            Self::Registry => "switchboard-registry",
            Self::Router => "switchboard-router --registry-addr http://127.0.0.1:50051",
        }
    }

    /// The service that a command starts. `None`: it starts another program.
    fn of(command: &str) -> Option<Self> {
        let program = Path::new(command.split_whitespace().next()?).file_name()?;
        Self::ALL.into_iter().find(|service| program == service.name())
    }
}

/// What checks a block.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    Commands { stopped: Option<Program> },
    FailingCommands,
    Ruby,
    Service,
    Output,
    Help(String),
    Ci(String),
    Test(String),
    Picture,
}

impl Check {
    /// `None`: nothing checks the block.
    fn parse(first_line: &str) -> Option<Self> {
        let words: Vec<&str> = first_line.split_whitespace().collect();
        match *words.as_slice() {
            ["console"] => Some(Self::Commands { stopped: None }),
            ["console", "stopped=registry"] => Some(Self::Commands {
                stopped: Some(Program::Registry),
            }),
            ["console", "fails"] => Some(Self::FailingCommands),
            ["console", "service"] => Some(Self::Service),
            ["ruby", "run"] => Some(Self::Ruby),
            [_, "output"] => Some(Self::Output),
            [_, "picture"] => Some(Self::Picture),
            [_, mark] => match mark.split_once('=')? {
                ("help", program) => Some(Self::Help(program.to_owned())),
                ("ci", part) => Some(Self::Ci(part.to_owned())),
                ("test", file) => Some(Self::Test(file.to_owned())),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A fenced block.
#[derive(Debug)]
struct Block {
    /// The number of its first line in the file, from 1.
    line: usize,
    first_line: String,
    text: String,
    /// Pointers into the first answer, and the values there, as JSON.
    shows: Vec<(String, String)>,
}

impl Block {
    fn all_of(page: &str) -> Vec<Self> {
        let mut blocks: Vec<Self> = Vec::new();
        let mut lines = page.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if let Some(first_line) = line.trim_start().strip_prefix("```") {
                let rest = lines.by_ref().map(|(_, line)| line);
                let mut is_closed = false;
                let inside = rest.take_while(|line| {
                    is_closed = line.trim() == "```";
                    !is_closed
                });
                let text = inside.collect::<Vec<_>>().join("\n");
                assert!(is_closed, "the block of line {} is not closed", index + 1);
                blocks.push(Self {
                    line: index + 1,
                    first_line: first_line.to_owned(),
                    text,
                    shows: Vec::new(),
                });
            } else if line == "<!-- shows" {
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "-->");
                let shows = inside.map(|line| line.split_once(" = ").expect("a pointer and a value"));
                let shows: Vec<_> = shows
                    .map(|(pointer, value)| (pointer.to_owned(), value.to_owned()))
                    .collect();
                let block = blocks.last_mut().expect("a block stands before what it shows");
                block.shows = shows;
            }
        }
        blocks
    }
}

/// A page while its commands run.
struct Reader {
    folder: TempDir,
    path: OsString,
    model_server: FakeUpstream,
    services: BTreeMap<Program, (Service, String)>,
    /// What the last commands printed.
    printed: String,
}

impl Reader {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = binary(Program::Registry.name()).parent().unwrap().to_owned();
        fs::create_dir(folder.path().join("target")).unwrap();
        unix::fs::symlink(&programs, folder.path().join("target/release")).unwrap();
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(iter::once(programs).chain(env::split_paths(&inherited))).unwrap();
        let answer = Script::answer(["def add", "(a, b):", " return a + b"]);
        Self {
            folder,
            path,
            model_server: FakeUpstream::always(answer).await,
            services: BTreeMap::new(),
            printed: String::new(),
        }
    }

    /// A command with the addresses that are in use here.
    fn translated(&self, text: &str) -> String {
        let mut text = text.replace(MODEL_SERVER, self.model_server.url().trim_end_matches("/v1"));
        for (program, (service, _)) in &self.services {
            let [listen_addr, admin_addr] = program.documented();
            text = text.replace(listen_addr, &service.listen_addr.to_string());
            text = text.replace(admin_addr, &service.admin_addr.to_string());
        }
        text
    }

    /// A shell that runs commands, and is stopped if they do not end.
    fn bash(&self, text: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(PATIENCE.as_secs().to_string())
            .args(["bash", "-euo", "pipefail", "-c", &self.translated(text)]);
        self.surround(&mut command);
        command
    }

    /// Sets the folder and the environment in which a reader works.
    fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            .env("HOME", self.folder.path());
    }

    /// Starts a service. One that runs already ends first.
    async fn start(&mut self, program: Program, command: &str) {
        self.stop(program).await;
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec {}", self.translated(command))]);
        self.surround(&mut bash);
        bash.env(format!("{}_LISTEN_ADDR", program.variables()), "127.0.0.1:0");
        let service = Service::launch(program.name(), self.folder.path(), &mut bash).await;
        self.services.insert(program, (service, command.to_owned()));
    }

    /// Stops a service. Returns the command that had started it.
    async fn stop(&mut self, program: Program) -> Option<String> {
        let (mut service, command) = self.services.remove(&program)?;
        assert!(service.terminate().await.success());
        Some(command)
    }

    /// Starts the services that do not run yet.
    async fn start_all(&mut self) {
        for program in Program::ALL {
            if !self.services.contains_key(&program) {
                self.start(program, program.usual()).await;
            }
        }
    }

    /// Runs a block of commands, and keeps what they print. Returns why they failed. `None`: they succeeded.
    async fn run(&mut self, text: &str, stopped: Option<Program>) -> Option<String> {
        self.start_all().await;
        let mut again = None;
        if let Some(program) = stopped {
            again = self.stop(program).await.map(|command| (program, command));
        }
        let failure = self.execute(self.bash(text)).await;
        if let Some((program, command)) = again {
            self.start(program, &command).await;
        }
        failure
    }

    async fn execute(&mut self, mut command: Command) -> Option<String> {
        command.stdin(Stdio::null());
        let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        self.printed = format!("{}{errors}", String::from_utf8_lossy(&output.stdout));
        (!output.status.success()).then(|| format!("{}: {}", output.status, self.printed))
    }

    /// Runs a block of Ruby as `run` does a block of commands.
    async fn run_ruby(&mut self, text: &str) -> Option<String> {
        self.start_all().await;
        let stubs = self.folder.path().join("stubs");
        if !stubs.exists() {
            ruby::generate(&RUBY_STUBS.path(), &stubs);
        }
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).arg(RUBY.path());
        command.arg("-I").arg(&stubs).args(["-e", &self.translated(text)]);
        self.surround(&mut command);
        self.execute(command).await
    }

    /// Checks a block of a page. Returns what is wrong with it.
    async fn check(&mut self, page: &Path, block: &Block) -> Option<String> {
        let Some(check) = Check::parse(&block.first_line) else {
            return Some("nothing checks this block: mark it as tests/pair/docs.rs says".to_owned());
        };
        let text = &block.text;
        match check {
            Check::Commands { stopped } => {
                let failure = self.run(text, stopped).await;
                failure.or_else(|| missing(&self.printed, &block.shows))
            }
            Check::FailingCommands => match self.run(text, None).await {
                Some(_) => None,
                None => Some("it succeeds".to_owned()),
            },
            Check::Ruby => self.run_ruby(text).await,
            Check::Service => match Program::of(text) {
                Some(program) => {
                    self.start(program, text).await;
                    None
                }
                None => Some("it starts neither service".to_owned()),
            },
            Check::Output => differs(text, &self.printed),
            Check::Help(program) if env::var_os(UPDATE).is_some() => {
                let fenced = |text: &str| match text {
                    "" => format!("```{}\n```", block.first_line),
                    text => format!("```{}\n{text}\n```", block.first_line),
                };
                let whole = fs::read_to_string(page).unwrap();
                fs::write(page, whole.replacen(&fenced(text), &fenced(&help(&program)), 1)).unwrap();
                None
            }
            Check::Help(program) => differs(text, &help(&program))
                .map(|difference| format!("run the test with {UPDATE}=1 to renew it: {difference}")),
            Check::Ci(part) => (!has_part(&part)).then(|| format!("neither .ci/run nor .ci/long has a part `{part}`")),
            Check::Test(file) => (!has_lines(&file, text)).then(|| format!("{file} does not have these lines")),
            Check::Picture => None,
        }
    }
}

/// Why an output does not have the expected lines, of which `...` stands for any. `None`: it has.
fn differs(expected: &str, printed: &str) -> Option<String> {
    let mut lines = printed.lines().map(str::trim_end);
    let mut may_skip = false;
    for line in expected.lines().map(str::trim_end) {
        if line.trim() == "..." {
            may_skip = true;
            continue;
        }
        let is_found = if may_skip {
            lines.any(|found| found == line)
        } else {
            lines.next() == Some(line)
        };
        if !is_found {
            return Some(format!("there is no line `{line}` in\n{printed}"));
        }
        may_skip = false;
    }
    (!may_skip && lines.next().is_some()).then(|| format!("more lines than shown in\n{printed}"))
}

/// Why an answer does not show what it should. `None`: it does.
fn missing(printed: &str, shows: &[(String, String)]) -> Option<String> {
    if shows.is_empty() {
        return None;
    }
    let mut answers = serde_json::Deserializer::from_str(printed).into_iter::<Value>();
    let Some(Ok(answer)) = answers.next() else {
        return Some(format!("no JSON in {printed}"));
    };
    let differ = shows.iter().filter_map(|(pointer, expected)| {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let shown = answer.pointer(pointer).unwrap_or(&Value::Null);
        let number = |value: &Value| value.as_f64().map(|number| json!(number));
        let is_same = *shown == expected || (number(shown).is_some() && number(shown) == number(&expected));
        (!is_same).then(|| format!("{pointer} is {shown}, not {expected}"))
    });
    let differ = differ.collect::<Vec<_>>().join("; ");
    (!differ.is_empty()).then_some(differ)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether `.ci/run` or `.ci/long` has this part.
fn has_part(part: &str) -> bool {
    let scripts = [".ci/run", ".ci/long"].map(|script| fs::read_to_string(root().join(script)).unwrap());
    scripts.iter().any(|script| script.contains(&format!("part_{part}()")))
}

/// Whether a file has these lines one after the other, at any depth of indentation.
fn has_lines(file: &str, text: &str) -> bool {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    fs::read_to_string(root().join(file)).is_ok_and(|found| trimmed(&found).contains(&trimmed(text)))
}

fn help(program: &str) -> String {
    let output = Command::new(binary(program))
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Checks a page. Returns what is wrong with it.
async fn check(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut reader = Reader::new().await;
    let mut wrong = Vec::new();
    for block in Block::all_of(&text) {
        if let Some(problem) = reader.check(page, &block).await {
            wrong.push(format!("{}:{}: {problem}", page.display(), block.line));
        }
    }
    // The router first, because it would otherwise look for the registry.
    for program in Program::ALL.into_iter().rev() {
        reader.stop(program).await;
    }
    wrong
}

/// All pages for users.
fn pages() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn an_unmarked_block_is_checked_by_nothing() {
    for first_line in [
        "",
        "sh",
        "json",
        "console twice",
        "console stopped=router",
        "text maybe=1",
    ] {
        assert_eq!(Check::parse(first_line), None, "{first_line:?}");
    }
    assert_eq!(Check::parse("console"), Some(Check::Commands { stopped: None }));
    assert_eq!(Check::parse("text output"), Some(Check::Output));
}

fn an_output_that_differs_is_noticed() {
    assert_eq!(differs("a\n...\nc", "a\nb\nb\nc\n"), None);
    assert_eq!(differs("a\n...", "a\nb\n"), None);
    for expected in ["a\nc", "a\nb", "a\n...\nd", "b\n..."] {
        assert!(differs(expected, "a\nb\nc\n").is_some(), "{expected:?}");
    }
}

/// One test for each page, and those of the checks themselves.
pub(crate) fn tests() -> Vec<Trial> {
    let pages = pages().into_iter().map(|page| {
        let name = format!("main::docs::{}", page.strip_prefix(root()).unwrap().display());
        runner::test(&name, &[&GRPCURL, &CURL, &OPENSSL, &RUBY, &RUBY_STUBS], move || {
            let mut wrong = Vec::new();
            runner::block_on(&mut tokio::runtime::Builder::new_current_thread(), async {
                wrong = check(&page).await;
            });
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        })
    });
    pages.chain(own::tests()).collect()
}

mod own {
    use super::{an_output_that_differs_is_noticed, an_unmarked_block_is_checked_by_nothing};

    tests! {
        an_unmarked_block_is_checked_by_nothing (sync),
        an_output_that_differs_is_noticed (sync),
    }
}
