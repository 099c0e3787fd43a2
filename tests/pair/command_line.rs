//! The command line of both programs: help, environment variables, and what a service logs about its flags.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    harness::{Pair, Service},
    process::{BINARIES, run},
};

/// Secret of the key that [`write_key`] writes, in hexadecimal.
const SECRET: &str = "0f1e2d3c4b5a69780f1e2d3c4b5a69780f1e2d3c4b5a69780f1e2d3c4b5a6978";

/// Writes a file with a key for snapshots, and returns its path.
fn write_key(folder: &Path) -> String {
    let path = folder.join("router.key");
    fs::write(&path, format!("k1:{SECRET}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Returns the part of a help that follows `heading` and ends with `end`.
fn section<'a>(help: &'a str, heading: &str, end: &str) -> &'a str {
    let (_, section) = help.split_once(heading).unwrap();
    section.split_once(end).unwrap().0
}

fn the_help_of_a_program_lists_its_subcommands_and_the_flags_of_serve() {
    let abouts = ["The Switchboard registry: ", "The Switchboard router: "];
    for (name, about) in BINARIES.into_iter().zip(abouts) {
        let help = |args: &[&str]| {
            let output = run(name, args, &[]);
            assert!(output.status.success(), "{name} {args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let text = help(&["--help"]);
        assert!(text.starts_with(about), "{text}");
        let subcommands: Vec<&str> = section(&text, "\nCommands:\n", "\n\n")
            .lines()
            .filter(|line| !line.starts_with("   "))
            .map(|line| line.split_whitespace().next().unwrap())
            .filter(|subcommand| *subcommand != "help")
            .collect();
        assert!(subcommands.starts_with(&["serve", "health"]), "{subcommands:?}");
        for subcommand in subcommands {
            let usage = format!("Usage: {name} {subcommand} ");
            assert!(help(&["help", subcommand]).contains(&usage), "{name} {subcommand}");
        }
        let flags = |help: &str| section(help, "\nOptions:\n", "  -h, --help").to_owned();
        assert_eq!(flags(&text), flags(&help(&["serve", "--help"])), "{name}");
    }
}

fn a_variable_applies_only_to_commands_that_have_its_flag() {
    let invalid = [("SWITCHBOARD_REGISTRY_DRAIN_TIMEOUT", "soon")];
    for (args, code) in [
        (&[][..], 2),
        (&["serve"], 2),
        (&["verify", "/nowhere/backup.db"], 1),
        (&["health", "--addr=127.0.0.1:1"], 1),
    ] {
        let output = run("switchboard-registry", args, &invalid);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    let database = [("SWITCHBOARD_REGISTRY_DATABASE_URL", "sqlite:///nowhere/own.db")];
    for args in [&["verify"][..], &["accept-history"]] {
        let output = run("switchboard-registry", args, &database);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("/nowhere/own.db"), "{args:?}: {error}");
    }
}

fn an_unwritable_snapshot_file_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = write_key(folder.path());
    // Not even root can create a file in /proc.
    for file in ["/nowhere/router.snapshot", "/proc/router.snapshot"] {
        let flags = ["--snapshot-file", file, "--snapshot-key-file", &key_file];
        let output = run("switchboard-router", &flags, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        let (flag, path) = ("error: --snapshot-file: ", format!("`{file}`"));
        assert!(error.starts_with(flag) && error.contains(&path), "{error}");
        assert!(output.stdout.is_empty());
    }
}

/// Starts and stops a service, and returns the line of its log with the configuration.
async fn start_line(name: &'static str, flags: &[String]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let args = [&["--listen-addr=127.0.0.1:0".to_owned()][..], flags].concat();
    let mut service = Service::start(name, folder.path(), &args).await;
    assert!(service.terminate().await.success());
    let log = service.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("starting") && line.contains("listen_addr"));
    line.unwrap_or_else(|| panic!("{log}")).to_owned()
}

async fn the_start_line_has_the_configuration_as_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let registry = [
        format!("--database-url=sqlite://{}", path("own.db")),
        "--drain-timeout=90s".to_owned(),
    ];
    let router = [
        "--registry-addr=http://127.0.0.1:1,http://127.0.0.1:2".to_owned(),
        "--router-id=router-1".to_owned(),
        "--pad-messages".to_owned(),
        format!("--snapshot-file={}", path("router.snapshot")),
        format!("--snapshot-key-file={}", write_key(folder.path())),
    ];
    let (database, snapshot_file) = (path("own.db"), path("router.snapshot"));
    let of_registry: &[(&str, &str)] = &[
        ("listen_addr", "127.0.0.1:0"),
        ("admin_addr", "127.0.0.1:0"),
        ("database", &database),
        ("drain_timeout", "1m 30s"),
        ("heartbeat", "15s"),
        ("reflection", "true"),
        ("revision", "1"),
    ];
    let of_router: &[(&str, &str)] = &[
        ("listen_addr", "127.0.0.1:0"),
        ("registry_addr", "http://127.0.0.1:1/,http://127.0.0.1:2/"),
        ("router_id", "router-1"),
        ("drain_timeout", "1m 50s"),
        ("pad_messages", "true"),
        ("snapshot_file", &snapshot_file),
    ];
    for (name, flags, fields, absent) in [
        (BINARIES[0], &registry[..], of_registry, "store_id"),
        (BINARIES[1], &router, of_router, "group"),
    ] {
        let text = start_line(name, flags).await;
        let json = start_line(name, &[flags, &["--log-format=json".to_owned()][..]].concat()).await;
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["message"], "starting");
        for (field, value) in fields {
            assert!(text.contains(&format!(" {field}={value}")), "{field}: {text}");
            let shown = match &parsed[field] {
                Value::String(shown) => shown.clone(),
                other => other.to_string(),
            };
            assert_eq!(shown, *value, "{field}: {json}");
        }
        assert!(parsed.get(absent).is_none(), "{json}");
        assert!(!text.contains(&format!(" {absent}=")), "{text}");
        for line in [text, json] {
            assert!(!line.contains("Config {") && !line.contains("Some("), "{line}");
            assert!(!line.contains(SECRET), "{line}");
        }
    }
}

async fn successful_reflection_is_logged_at_debug() {
    const METHOD: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let pair = Pair::start().await;
    let mut client = Grpc::new(pair.registry().channel());
    client.ready().await.unwrap();
    let questions = tonic::Request::new(tokio_stream::empty::<String>());
    let path: PathAndQuery = format!("/{METHOD}").parse().unwrap();
    let answers = client
        .streaming(questions, path, ProstCodec::<String, ()>::default())
        .await;
    assert!(answers.unwrap().into_inner().message().await.unwrap().is_none());
    let mut line = None;
    pair.wait_until(async || {
        let log = pair.registry().log();
        line = log.lines().find(|line| line.contains(METHOD)).map(str::to_owned);
        line.is_some()
    })
    .await;
    let line = line.unwrap();
    assert!(line.contains("DEBUG switchboard::access"), "{line}");
    pair.finish().await;
}

tests! {
    the_help_of_a_program_lists_its_subcommands_and_the_flags_of_serve (sync),
    a_variable_applies_only_to_commands_that_have_its_flag (sync),
    an_unwritable_snapshot_file_is_refused_at_start (sync),
    the_start_line_has_the_configuration_as_fields,
    successful_reflection_is_logged_at_debug,
}
