//! A Ruby client, as GitLab has one: Ruby's gRPC library with stubs that its tools generate from the contract.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use switchboard::pb::FILE_DESCRIPTOR_SET;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::Pair,
    runner::Requirement,
};

const INSTALL: &str = "apt-get install ruby-grpc ruby-grpc-tools ruby-googleapis-common-protos-types";
pub(crate) const RUBY: Requirement = Requirement::Program {
    name: "ruby",
    remedy: INSTALL,
};
/// Generates Ruby stubs from the contract.
pub(crate) const RUBY_STUBS: Requirement = Requirement::Program {
    name: "grpc_tools_ruby_protoc",
    remedy: INSTALL,
};

/// A pair with a model, and the stubs for the Ruby client.
struct Ruby {
    pair: Pair,
    stubs: PathBuf,
}

impl Ruby {
    async fn start(upstream: &FakeUpstream) -> Self {
        let pair = Pair::start().await;
        pair.configure(&upstream.url(), None).await;
        pair.wait_until_routed("code_generations").await;
        let stubs = pair.folder.path().join("stubs");
        generate(&RUBY_STUBS.path(), &stubs);
        Self { pair, stubs }
    }

    /// Runs a scenario of the Ruby client and returns its observations.
    async fn run(&self, scenario: &'static str) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ruby/client.rb");
        let mut command = Command::new(RUBY.path());
        command
            .arg("-I")
            .arg(&self.stubs)
            .arg(script)
            .arg(self.pair.router.listen_addr.to_string())
            .arg(scenario);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{scenario}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Generates the stubs that a client of the inference API needs: one file.
///
/// The input is the compiled contract, because a protoc older than 22, such as the one of Debian 12, cannot parse the
/// option `debug_redact` in the source files.
pub(crate) fn generate(generator: &Path, stubs: &Path) {
    std::fs::create_dir(stubs).unwrap();
    let contract = stubs.with_extension("binpb");
    std::fs::write(&contract, FILE_DESCRIPTOR_SET).unwrap();
    let output = Command::new(generator)
        .arg(format!("--descriptor_set_in={}", contract.display()))
        .arg(format!("--ruby_out={}", stubs.display()))
        .arg(format!("--grpc_out={}", stubs.display()))
        .arg("switchboard/router/v1/inference.proto")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn ruby_reads_a_streamed_answer_and_exchanges_metadata() {
    let upstream = FakeUpstream::always(Script::answer(["a board", " of switches"])).await;
    let ruby = Ruby::start(&upstream).await;
    let seen = ruby.run("stream").await;
    assert_eq!(seen["order"], json!(["selection", "delta", "completion"]), "{seen}");
    assert_eq!(seen["text"], "a board of switches");
    assert_eq!(seen["model"], "models/mistral");
    assert_eq!(seen["finish_reason"], "FINISH_REASON_STOP");
    assert_eq!(seen["output_tokens"], 2);
    assert_eq!(seen["metadata"]["x-request-id"], "from-ruby");
    assert_eq!(seen["metadata"]["x-switchboard-model"], "models/mistral");
    assert_eq!(seen["metadata"]["x-switchboard-reason"], "ASSIGNED");
    ruby.pair.finish().await;
}

async fn ruby_reads_a_unary_answer() {
    let answer = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a board"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let upstream = FakeUpstream::always(Script::response(200, &[("content-type", "application/json")], answer)).await;
    let ruby = Ruby::start(&upstream).await;
    let seen = ruby.run("unary").await;
    assert_eq!(seen["text"], "a board", "{seen}");
    assert_eq!(seen["role"], "ROLE_ASSISTANT");
    assert_eq!(seen["model"], "models/mistral");
    assert_eq!(seen["finish_reason"], "FINISH_REASON_STOP");
    assert_eq!(seen["metadata"]["x-request-id"], "from-ruby");
    ruby.pair.finish().await;
}

async fn a_deadline_and_a_cancellation_from_ruby_reach_the_model_server() {
    let upstream = FakeUpstream::start().await;
    let ruby = Ruby::start(&upstream).await;
    for (scenario, code) in [("deadline", "GRPC::DeadlineExceeded"), ("cancel", "GRPC::Cancelled")] {
        let asked = upstream.requests().len();
        upstream.then(Script::stream().text("so far").hang());
        let seen = ruby.run(scenario).await;
        assert_eq!(
            (&seen["code"], &seen["text"]),
            (&json!(code), &json!("so far")),
            "{seen}"
        );
        upstream.closed(upstream.request(asked).await.connection).await;
    }
    ruby.pair.finish().await;
}

async fn ruby_reads_the_reason_of_a_failed_call() {
    let upstream = FakeUpstream::start().await;
    let ruby = Ruby::start(&upstream).await;
    let seen = ruby.run("errors").await;
    let unknown = &seen["telepathy"];
    assert_eq!(unknown["code"], "GRPC::NotFound", "{seen}");
    assert_eq!(unknown["details"]["ErrorInfo"]["reason"], "FEATURE_UNKNOWN");
    assert_eq!(unknown["details"]["ErrorInfo"]["domain"], "switchboard");
    assert_eq!(unknown["details"]["ErrorInfo"]["metadata"]["request_id"], "from-ruby");
    let wrong = &seen["code_generations"];
    assert_eq!(wrong["code"], "GRPC::InvalidArgument", "{seen}");
    let fields: Vec<&str> = wrong["details"]["BadRequest"]["field_violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| violation["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["options.temperature", "options.top_p"]);
    ruby.pair.finish().await;
}

tests! {
    ruby_reads_a_streamed_answer_and_exchanges_metadata needs RUBY needs RUBY_STUBS,
    ruby_reads_a_unary_answer needs RUBY needs RUBY_STUBS,
    a_deadline_and_a_cancellation_from_ruby_reach_the_model_server needs RUBY needs RUBY_STUBS,
    ruby_reads_the_reason_of_a_failed_call needs RUBY needs RUBY_STUBS,
}
