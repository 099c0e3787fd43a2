//! Runs every command of the README's table of tasks exactly as written, with the real grpcurl.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use switchboard::pb::registry::{CreateModelRequest, Endpoint, Model};
use tokio::time::Instant;

use crate::{administrator::GRPCURL, harness::Pair};

/// The README's placeholder for a text that only the reader knows.
const PLACEHOLDER: &str = "…";

/// One row of the table.
#[derive(Debug, Clone)]
struct Task {
    name: String,
    /// Service and method, without the package.
    method: String,
    /// The request. Empty if the command sends an empty request.
    data: String,
}

impl Task {
    fn is_of_router(&self) -> bool {
        self.method.starts_with("RoutingService/")
    }
}

/// One step of the test: the command to run, and JSON pointers into its answer with the expected values.
struct Step {
    task: &'static str,
    shows: &'static [(&'static str, &'static str)],
}

const fn step(task: &'static str, shows: &'static [(&'static str, &'static str)]) -> Step {
    Step { task, shows }
}

/// All commands, in an order in which each finds the resources that it needs. Values are JSON.
const STEPS: [Step; 51] = [
    step("allow families and features in beta", &[("/betaEnabled", "true")]),
    step("turn all self-hosted inference off", &[("/inferencePaused", "true")]),
    step(
        "and on again",
        &[("/inferencePaused", "false"), ("/betaEnabled", "true")],
    ),
    step("which families there are", &[("/families/0/family", r#""mistral""#)]),
    step(
        "add a model, with two replicas",
        &[
            ("/name", r#""models/mistral""#),
            ("/endpoints/1/uri", r#""http://gpu2:8000""#),
        ],
    ),
    step("list models", &[("/totalSize", "4")]),
    step("look at one", &[("/displayName", r#""Mistral""#)]),
    step(
        "rename",
        &[("/displayName", r#""Mistral Small""#), ("/name", r#""models/mistral""#)],
    ),
    step(
        "test before saving",
        &[
            ("/checks/0/router", r#""pair""#),
            ("/checks/0/steps/0/step", r#""dns""#),
            ("/checks/0/steps/0/outcome", r#""CHECK_OUTCOME_FAILED""#),
        ],
    ),
    step(
        "test what is saved, from every router",
        &[
            ("/checks/0/endpoint", r#""http://gpu1:8000""#),
            ("/checks/1/steps/0/reason", r#""UPSTREAM_DNS_FAILED""#),
        ],
    ),
    step("replace the API token", &[("/apiTokenSet", "true")]),
    step("clear the API token", &[("/apiTokenSet", "null")]),
    step(
        "add, remove, drain a replica: the whole list",
        &[("/endpoints/0/weight", "1"), ("/endpoints/1/weight", "0")],
    ),
    step(
        "replicas in zones: routers prefer the zone that their `--group` names",
        &[
            ("/endpoints/0/zone", r#""east""#),
            ("/endpoints/1/zone", r#""west""#),
            ("/endpoints/1/weight", "1"),
        ],
    ),
    step(
        "move a model of one server to another host",
        &[
            ("/endpoints/0/uri", r#""http://gpu3:8000""#),
            ("/apiTokenSet", "true"),
            ("/apiTokenDropped", "null"),
        ],
    ),
    step("take out", &[("/disabled", "true")]),
    step("bring back", &[("/disabled", "false")]),
    step(
        "limit",
        &[("/limits/maxConcurrency", "8"), ("/limits/queueTimeout", r#""2s""#)],
    ),
    step(
        "what is assigned",
        &[("/features/0/name", r#""features/code_generations""#)],
    ),
    step("assign a feature", &[("/model", r#""models/mistral""#)]),
    step(
        "reserve places of its model for a feature",
        &[("/limits/reservedConcurrency", "2"), ("/limits/maxConcurrency", "null")],
    ),
    step(
        "limit a feature",
        &[("/limits/reservedConcurrency", "2"), ("/limits/maxConcurrency", "20")],
    ),
    step("take its limit and its places back", &[("/limits", "null")]),
    step(
        "take a limit back",
        &[("/limits/maxConcurrency", "null"), ("/limits/queueTimeout", r#""2s""#)],
    ),
    step("look at one feature", &[("/model", r#""models/mistral""#)]),
    step(
        "assign a group at once",
        &[
            ("/features/0/name", r#""features/code_generations""#),
            ("/features/1/model", r#""models/mistral""#),
        ],
    ),
    step(
        "switch a feature off",
        &[
            ("/provider", r#""PROVIDER_DISABLED""#),
            ("/model", r#""models/mistral""#),
        ],
    ),
    step(
        "on again",
        &[
            ("/provider", r#""PROVIDER_SELF_HOSTED""#),
            ("/model", r#""models/mistral""#),
        ],
    ),
    step(
        "try another server when no token has come in time",
        &[("/hedgeDelay", r#""0.300s""#), ("/model", r#""models/mistral""#)],
    ),
    step("fallbacks", &[("/fallbackModels", r#"["models/mixtral"]"#)]),
    step(
        "a pilot for one group and a tenth of the rest",
        &[
            ("/rules/0/match/namespaceIds", r#"["42"]"#),
            ("/rules/1/match/percent", "10.0"),
            ("/model", r#""models/mistral""#),
        ],
    ),
    step(
        "who would answer, and why",
        &[
            ("/selection/model", r#""models/new""#),
            ("/selection/reason", r#""SELECTION_REASON_RULE""#),
        ],
    ),
    step(
        "end the pilot",
        &[("/rules", "null"), ("/fallbackModels/0", r#""models/mixtral""#)],
    ),
    step(
        "add a model of Azure OpenAI",
        &[
            ("/name", r#""models/gpt""#),
            ("/platform", r#""PLATFORM_AZURE_OPENAI""#),
            ("/platformOptions/apiVersion", r#""2024-10-21""#),
            ("/apiTokenSet", "true"),
        ],
    ),
    step(
        "add a model of Anthropic",
        &[
            ("/name", r#""models/claude""#),
            ("/platform", r#""PLATFORM_ANTHROPIC""#),
            ("/endpoints", "null"),
            ("/apiTokenSet", "true"),
        ],
    ),
    step("which features can be answered now", &[("/routes/0/available", "true")]),
    step(
        "what a router has applied, and what it holds back",
        &[("/applied/format", "1"), ("/held", "null")],
    ),
    step(
        "try without doing: any write with `validate_only`",
        &[("/revision", "null")],
    ),
    step("delete", &[("/reassignedFeatures", "null")]),
    step(
        "delete, and move its features",
        &[(
            "/reassignedFeatures",
            r#"["features/code_generations","features/code_completions","features/duo_chat"]"#,
        )],
    ),
    step(
        "only if nobody else changed it: any write with the `etag` that was read",
        &[
            ("/provider", r#""PROVIDER_DISABLED""#),
            ("/model", r#""models/codestral""#),
        ],
    ),
    step(
        "watch the configuration change",
        &[("/welcome/mode", r#""MODE_SNAPSHOT""#)],
    ),
    step("is it live on every router", &[("/routerIds", r#"["pair"]"#)]),
    step(
        "who lags, and why",
        &[
            ("/routers/0/routerId", r#""pair""#),
            ("/routers/0/lag", r#""0""#),
            ("/totalSize", "1"),
        ],
    ),
    step(
        "what was changed, and by whom",
        &[
            ("/changes/0/resource", r#""features/duo_chat""#),
            ("/changes/0/fields", r#"["provider"]"#),
        ],
    ),
    step(
        "what was changed of one model",
        &[
            ("/changes/0/resource", r#""models/mistral""#),
            ("/changes/0/after", "null"),
            ("/changes/0/before/model/displayName", r#""Mistral Small""#),
        ],
    ),
    step(
        "what going back to a revision would change",
        &[
            ("/revision", "null"),
            ("/changes/0/resource", r#""features/code_completions""#),
        ],
    ),
    step(
        "go back to a revision",
        &[("/changes/0/resource", r#""features/code_completions""#)],
    ),
    step(
        "export the whole configuration",
        &[("/config/settings/betaEnabled", "true")],
    ),
    step(
        "what applying a whole configuration would change",
        &[("/revision", "null"), ("/changes/0/after/model", r#""models/mistral""#)],
    ),
    step(
        "apply a whole configuration: what it does not have is deleted or set back",
        &[("/changes/0/after/model", r#""models/mistral""#)],
    ),
];

/// Returns the rows of the README's table by their names.
fn tasks() -> BTreeMap<String, Task> {
    let readme = include_str!("../../README.md");
    let rows = readme
        .lines()
        .skip_while(|line| !line.starts_with("## Every administrator's task"))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .filter(|row| row.contains('/') && row.contains("Service"));
    rows.map(|row| {
        let cells: Vec<&str> = row.splitn(3, " | ").map(str::trim).collect();
        let unquoted = |cell: &str| cell.trim_matches(['`', '|', ' ']).to_owned();
        let task = Task {
            name: cells[0].to_owned(),
            method: unquoted(cells[1]),
            data: unquoted(cells.get(2).copied().unwrap_or_default()),
        };
        (task.name.clone(), task)
    })
    .collect()
}

/// Runs a command of the table and returns its first answer.
fn run(program: &Path, pair: &Pair, task: &Task, secret: &str) -> Result<Value, String> {
    let (address, package) = if task.is_of_router() {
        (pair.router.listen_addr, "router")
    } else {
        (pair.registry().listen_addr, "registry")
    };
    let data = task.data.replace(PLACEHOLDER, secret);
    let is_endless = task.method == "ConfigService/Watch";
    let mut command = Command::new(program);
    command.args(["-plaintext", "-max-time", if is_endless { "2" } else { "20" }]);
    if !data.is_empty() {
        command.args(["-d", &data]);
    }
    command.arg(address.to_string());
    command.arg(format!("switchboard.{package}.v1.{}", task.method));
    let output = command.output().expect("grpcurl runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_done = output.status.success() || (is_endless && errors.contains("DeadlineExceeded"));
    if !is_done {
        return Err(errors);
    }
    let mut answers = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    answers
        .next()
        .unwrap_or(Ok(Value::Null))
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Describes how an answer differs from the expected values. Empty if it does not differ.
fn missing(answer: &Value, shows: &[(&str, &str)]) -> String {
    let differ = shows.iter().filter_map(|(place, expected)| {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let shown = answer.pointer(place).unwrap_or(&Value::Null);
        let number = |value: &Value| value.as_f64().map(|number| json!(number));
        let is_same = *shown == expected || (number(shown).is_some() && number(shown) == number(&expected));
        (!is_same).then(|| format!("{place} is {shown}, not {expected}"))
    });
    differ.collect::<Vec<_>>().join("; ")
}

async fn create(pair: &Pair, id: &str, family: &str) {
    let model = Model {
        display_name: Some(format!("The {id}")),
        family: Some(family.to_owned()),
        endpoint: Some("http://gpu9:8000".to_owned()),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        model_id: id.to_owned(),
        ..Default::default()
    };
    pair.models().create_model(request).await.unwrap();
}

/// Creates the state that a command needs in addition to the effects of earlier commands. Returns the text that
/// replaces its placeholder.
async fn prepare(pair: &Pair, program: &Path, task: &Task) -> String {
    match task.name.as_str() {
        "move a model of one server to another host" => {
            let one = Endpoint {
                uri: "http://gpu1:8000".to_owned(),
                ..Default::default()
            };
            let model = Model {
                endpoints: vec![one],
                ..Default::default()
            };
            pair.update_model(model).await.unwrap();
        }
        _ if task.data.contains(r#""etag":"#) => {
            let feature = Task {
                method: "FeatureService/GetFeature".to_owned(),
                data: r#"{"name":"features/duo_chat"}"#.to_owned(),
                ..task.clone()
            };
            let feature = run(program, pair, &feature, "").unwrap_or_default();
            return feature["etag"].as_str().unwrap_or_default().to_owned();
        }
        _ => {}
    }
    "sk-readme".to_owned()
}

async fn every_task_of_the_readme_works_as_written() {
    let program = GRPCURL.path();
    let tasks = tasks();
    let listed: Vec<&String> = tasks.keys().collect();
    let mut tried: Vec<&str> = STEPS.iter().map(|step| step.task).collect();
    tried.sort_unstable();
    assert_eq!(
        listed, tried,
        "the README's table and the steps of this test have the same tasks"
    );

    let pair = Pair::start().await;
    for (id, family) in [("codestral", "codestral"), ("mixtral", "mixtral"), ("new", "llama3")] {
        create(&pair, id, family).await;
    }
    let mut failed = Vec::new();
    for step in &STEPS {
        let task = &tasks[step.task];
        let secret = prepare(&pair, &program, task).await;
        let began = Instant::now();
        loop {
            let wrong = match run(&program, &pair, task, &secret) {
                Ok(answer) => missing(&answer, step.shows),
                Err(error) => error,
            };
            if wrong.is_empty() {
                break;
            }
            // The router may not have received the newest write yet.
            if !task.is_of_router() || began.elapsed() > Duration::from_secs(5) {
                failed.push(format!("{}: {wrong}", step.task));
                break;
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} fail:\n{}",
        failed.len(),
        STEPS.len(),
        failed.join("\n")
    );
    pair.finish().await;
}

tests! {
    every_task_of_the_readme_works_as_written needs GRPCURL,
}
