//! Registers a self-hosted model and asks it a question: the smallest client of both services.
//!
//! ```text
//! cargo run -p switchboard-ask -- configure --endpoint http://gpu1:8000/v1 --name Llama --family llama3
//! cargo run -p switchboard-ask -- "What is a telephone switchboard?"
//! cargo run -p switchboard-ask -- --feature code_completions --infill "def add(a, b):" "print(add(1, 2))"
//! ```
//!
//! The answer is written to stdout piece by piece as it arrives. The selected model, the finish reason and the number of
//! tokens are written to stderr.

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
        registry::{
            self, feature_service_client::FeatureServiceClient, model_service_client::ModelServiceClient,
            settings_service_client::SettingsServiceClient,
        },
        router::{
            self, StreamInferResponse, delta::Kind, infer_request::Input,
            inference_service_client::InferenceServiceClient, stream_infer_response::Event,
        },
        types::Provider,
    },
    reason::Reason,
};

/// Asks a self-hosted model through Switchboard.
#[derive(Debug, Parser)]
#[command(
    name = "switchboard-ask",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Registers a model and assigns features to it.
    Configure(Configuration),
}

#[derive(Debug, Args)]
struct Configuration {
    /// Address of the registry, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:50051")]
    registry: String,
    /// Base URL of the OpenAI-compatible server that serves the model.
    #[arg(long)]
    endpoint: String,
    /// Display name of the model.
    #[arg(long)]
    name: String,
    /// Machine name of the model's family.
    #[arg(long)]
    family: String,
    /// Name of the model on its server [default: the only model that the server lists].
    #[arg(long)]
    identifier: Option<String>,
    /// File with the API token for the server.
    #[arg(long)]
    api_token_file: Option<PathBuf>,
    /// Machine name of a feature to assign to the model. May be given several times.
    #[arg(long = "feature", default_value = "duo_chat")]
    features: Vec<String>,
    /// Turn on `beta_enabled` in the registry's settings if the family is not generally available.
    #[arg(long)]
    allow_beta: bool,
}

#[derive(Debug, Args)]
struct Question {
    /// Address of the router, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:50052")]
    router: String,
    /// Machine name of the feature to ask.
    #[arg(long, default_value = "duo_chat")]
    feature: String,
    /// Maximum number of tokens in the answer.
    #[arg(long, default_value_t = 256)]
    max_output_tokens: i32,
    /// Text at which the answer ends. May be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// Seconds to wait until the router has received a configuration that was written a moment ago.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// Ask for the code between PREFIX and SUFFIX instead of an answer to a question.
    #[arg(long, num_args = 2, value_names = ["PREFIX", "SUFFIX"], conflicts_with = "question")]
    infill: Vec<String>,
    /// The question.
    #[arg(required_unless_present = "infill")]
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
            eprintln!("switchboard-ask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn configure(configuration: Configuration) -> anyhow::Result<()> {
    let channel = connect("registry", &configuration.registry).await?;
    let api_token = match &configuration.api_token_file {
        Some(path) => Some(read_token(path).await?),
        None => None,
    };
    if configuration.allow_beta {
        enable_beta_for(&configuration.family, &channel).await?;
    }
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
    let mut features = FeatureServiceClient::new(channel);
    for feature in configuration.features {
        let feature = features
            .update_feature(registry::UpdateFeatureRequest {
                feature: Some(registry::Feature {
                    name: format!("features/{feature}"),
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
            "{} is assigned to {} at revision {}",
            feature.name, model.name, feature.revision
        );
    }
    Ok(())
}

/// Turns on `beta_enabled` if the registry refuses new models of this family without it.
async fn enable_beta_for(family: &str, channel: &Channel) -> anyhow::Result<()> {
    let families = ModelServiceClient::new(channel.clone())
        .list_model_families(registry::ListModelFamiliesRequest {
            page_size: 1000,
            ..Default::default()
        })
        .await
        .map_err(readable)?
        .into_inner()
        .families;
    if families.iter().any(|known| known.family == family && !known.assignable) {
        SettingsServiceClient::new(channel.clone())
            .update_settings(registry::UpdateSettingsRequest {
                settings: Some(registry::Settings {
                    beta_enabled: Some(true),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await
            .map_err(readable)?;
        eprintln!("the family {family} is in beta: beta_enabled is now on");
    }
    Ok(())
}

async fn ask(question: Question) -> anyhow::Result<()> {
    let mut client = InferenceServiceClient::new(connect("router", &question.router).await?);
    let input = match question.infill.as_slice() {
        [prefix, suffix] => Some(Input::Infill(router::InfillInput {
            prefix: prefix.clone(),
            suffix: suffix.clone(),
            ..Default::default()
        })),
        _ => question.question.map(Input::Prompt),
    };
    let request = router::InferRequest {
        feature: question.feature,
        input,
        options: Some(router::InferOptions {
            max_output_tokens: Some(question.max_output_tokens),
            stop: question.stop,
            ..Default::default()
        }),
        ..Default::default()
    };
    let deadline = Instant::now() + Duration::from_secs(question.wait);
    loop {
        match client.stream_infer(request.clone()).await {
            Ok(answer) => return print(answer.into_inner()).await,
            Err(status) if may_be_outdated(&status) && Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(status) => return Err(readable(status)),
        }
    }
}

/// Prints an answer piece by piece as it arrives.
async fn print(mut answer: Streaming<StreamInferResponse>) -> anyhow::Result<()> {
    let mut text_seen = false;
    while let Some(message) = answer.message().await.map_err(readable)? {
        match message.event {
            Some(Event::Selection(selection)) => eprintln!(
                "{} (family {}) answers {}: {} by {} at revision {}\n",
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
                    count(usage.input_tokens),
                    count(usage.output_tokens),
                );
                if !text_seen {
                    bail!("the answer has no text");
                }
                return Ok(());
            }
            // An event kind that was added to the contract after this program was built.
            None => {}
        }
    }
    bail!("the answer ended without a completion")
}

async fn connect(service: &str, address: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await
        .with_context(|| format!("could not connect to the {service} at {address}"))
}

async fn read_token(path: &PathBuf) -> anyhow::Result<String> {
    let text = tokio::fs::read_to_string(path)
        .await
        .with_context(|| format!("could not read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Whether the call may have failed only because the router has not received the newest configuration yet: a change reaches
/// the routers after the registry has acknowledged the write.
fn may_be_outdated(status: &Status) -> bool {
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

/// Converts a status into an error: its message, then the reason from its details, or its code if it has no reason.
fn readable(status: Status) -> anyhow::Error {
    match status.get_details_error_info() {
        Some(info) => anyhow::anyhow!("{} ({})", status.message(), info.reason),
        None => anyhow::anyhow!("{} ({:?})", status.message(), status.code()),
    }
}

fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn count(count: Option<i32>) -> String {
    count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}
