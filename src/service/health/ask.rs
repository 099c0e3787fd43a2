//! The subcommand `health`: asks a running service whether it is serving.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use tokio::{runtime::Builder, time::timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::service::cause::Cause;

/// The time limit for the response, including the connection.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The arguments of the subcommand `health`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct HealthQuestion {
    /// Address of the service to ask, `host:port` [default: the default listen address of this service]
    #[arg(long, value_name = "ADDR")]
    pub addr: Option<String>,

    /// Ask only about this gRPC service, for example `switchboard.router.v1.InferenceService` [default: all of them]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub service: String,
}

/// Asks the service for its health, prints the result as one line, and returns the exit code: 0 if it is serving,
/// otherwise 1.
#[must_use]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of a subcommand")]
pub fn ask(question: &HealthQuestion, default_addr: &str) -> ExitCode {
    let addr = question.addr.as_deref().unwrap_or(default_addr);
    let runtime = Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(answer(addr, &question.service)));
    match answer {
        Ok(ServingStatus::Serving) => {
            println!("{addr}: SERVING");
            ExitCode::SUCCESS
        }
        Ok(status) => {
            println!("{addr}: {}", status.as_str_name());
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{addr}: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn answer(addr: &str, service: &str) -> Result<ServingStatus, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{addr}")).map_err(|_not_an_address| "not an address".to_owned())?;
    let answer = async {
        let channel: Channel = endpoint
            .connect()
            .await
            .map_err(|error| format!("could not connect: {}", Cause::of(&error)))?;
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        match HealthClient::new(channel).check(request).await {
            Ok(response) => Ok(response.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => Ok(ServingStatus::ServiceUnknown),
            Err(status) => Err(format!("{}: {}", status.code(), status.message())),
        }
    };
    let answer = timeout(TIMEOUT, answer).await;
    answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {TIMEOUT:?}")))
}
