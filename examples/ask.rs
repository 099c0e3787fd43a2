//! Asks a self-hosted model through Switchboard, and configures one first: the smallest client of both services.
//!
//! ```text
//! cargo run --example ask -- configure --registry 127.0.0.1:50051 --endpoint http://gpu1:8000/v1 --name Llama --family llama3
//! cargo run --example ask -- --router 127.0.0.1:50052 "What is a telephone switchboard?"
//! ```
//!
//! The answer goes to stdout as it is written; which model was selected, and what it cost, goes to stderr.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use tokio::time::{Instant, sleep};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use switchboard::{
    pb::{
        registry::{self, feature_service_client::FeatureServiceClient, model_service_client::ModelServiceClient},
        router::{
            self, StreamInferResponse, delta::Kind, inference_service_client::InferenceServiceClient,
            stream_infer_response::Event,
        },
        types::Provider,
    },
    reason::Reason,
};

/// Asks a self-hosted model through Switchboard.
#[derive(Debug, Parser)]
#[command(name = "ask", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Registers a model and lets it answer a feature.
    Configure(Configuration),
}

#[derive(Debug, Args)]
struct Configuration {
    /// Address of the registry, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:50051")]
    registry: String,
    /// Base URL of an OpenAI-compatible server.
    #[arg(long)]
    endpoint: String,
    /// The name that people see.
    #[arg(long)]
    name: String,
    /// Machine name of the model's family.
    #[arg(long)]
    family: String,
    /// The name by which the server knows the model. Left out: the model's id.
    #[arg(long)]
    identifier: Option<String>,
    /// File that holds the API token that the server wants.
    #[arg(long)]
    api_token_file: Option<PathBuf>,
    /// Machine name of the feature that the model shall answer.
    #[arg(long, default_value = "duo_chat")]
    feature: String,
}

#[derive(Debug, Args)]
struct Question {
    /// Address of the router, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:50052")]
    router: String,
    /// Machine name of the feature to ask.
    #[arg(long, default_value = "duo_chat")]
    feature: String,
    /// The most tokens that the answer may have.
    #[arg(long, default_value_t = 256)]
    max_output_tokens: i32,
    /// Seconds to wait for the router to learn what was configured a moment ago.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// What to ask.
    #[arg(required = true)]
    question: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Configure(configuration)) => configure(configuration).await,
        None => ask(cli.question).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn configure(configuration: Configuration) -> anyhow::Result<()> {
    let channel = connect(&configuration.registry).await?;
    let api_token = match &configuration.api_token_file {
        Some(path) => Some(read_token(path).await?),
        None => None,
    };
    let model = ModelServiceClient::new(channel.clone())
        .create_model(registry::CreateModelRequest {
            model: Some(registry::Model {
                display_name: Some(configuration.name),
                family: Some(configuration.family),
                endpoint: Some(configuration.endpoint),
                identifier: configuration.identifier,
                api_token,
                ..Default::default()
            }),
            ..Default::default()
        })
        .await
        .map_err(readable)?
        .into_inner();
    let feature = FeatureServiceClient::new(channel)
        .update_feature(registry::UpdateFeatureRequest {
            feature: Some(registry::Feature {
                name: format!("features/{}", configuration.feature),
                provider: Some(Provider::SelfHosted.into()),
                model: Some(model.name.clone()),
                ..Default::default()
            }),
            ..Default::default()
        })
        .await
        .map_err(readable)?
        .into_inner();
    eprintln!(
        "{} answers {} from revision {} on",
        model.name, feature.name, feature.revision
    );
    Ok(())
}

async fn ask(question: Question) -> anyhow::Result<()> {
    let mut client = InferenceServiceClient::new(connect(&question.router).await?);
    let request = router::InferRequest {
        feature: question.feature,
        input: question.question.map(router::infer_request::Input::Prompt),
        options: Some(router::InferOptions {
            max_output_tokens: Some(question.max_output_tokens),
            ..Default::default()
        }),
        ..Default::default()
    };
    let deadline = Instant::now() + Duration::from_secs(question.wait);
    loop {
        match client.stream_infer(request.clone()).await {
            Ok(answer) => return print(answer.into_inner()).await,
            Err(status) if is_not_known_yet(&status) && Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(status) => return Err(readable(status)),
        }
    }
}

/// Prints an answer as it comes.
async fn print(mut answer: Streaming<StreamInferResponse>) -> anyhow::Result<()> {
    let mut text_seen = false;
    while let Some(message) = answer.message().await.map_err(readable)? {
        match message.event {
            Some(Event::Selection(selection)) => eprintln!(
                "{} ({}) answers {}: {} by {} at revision {}\n",
                selection.model,
                selection.family,
                selection.feature,
                short(selection.reason().as_str_name(), "SELECTION_REASON_"),
                selection.source_feature,
                selection.config_revision,
            ),
            Some(Event::Delta(delta)) => {
                if let Some(Kind::Text(text)) = delta.kind {
                    text_seen |= !text.trim().is_empty();
                    print!("{text}");
                    io::stdout().flush()?;
                }
            }
            Some(Event::Completion(completion)) => {
                println!();
                let usage = completion.usage.unwrap_or_default();
                eprintln!(
                    "\n{}, {} tokens in, {} tokens out",
                    short(completion.finish_reason().as_str_name(), "FINISH_REASON_"),
                    told(usage.input_tokens),
                    told(usage.output_tokens),
                );
                if !text_seen {
                    bail!("the answer has no text");
                }
                return Ok(());
            }
            // A kind of event that is newer than this program.
            None => {}
        }
    }
    bail!("the answer ended without a completion")
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await
        .with_context(|| format!("connect to {address}"))
}

async fn read_token(path: &PathBuf) -> anyhow::Result<String> {
    let text = tokio::fs::read_to_string(path)
        .await
        .with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Whether a router may answer otherwise in a moment: changes reach it after the registry has answered the write.
fn is_not_known_yet(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| {
        [
            Reason::ConfigNotLoaded,
            Reason::FeatureUnassigned,
            Reason::ModelNotReady,
        ]
        .iter()
        .any(|reason| reason.as_str() == info.reason)
    })
}

/// A status as a person wants to read it, with the reason that programs match on.
fn readable(status: Status) -> anyhow::Error {
    match status.get_details_error_info() {
        Some(info) => anyhow::anyhow!("{} ({})", status.message(), info.reason),
        None => anyhow::anyhow!("{} ({:?})", status.message(), status.code()),
    }
}

fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn told(count: Option<i32>) -> String {
    count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}
