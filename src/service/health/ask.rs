//! The subcommand `health`: asks a running service whether it is serving.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

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
    /// Address of the service to ask, `host:port` [default: the address of --listen-addr]
    #[arg(long, value_name = "ADDR")]
    pub addr: Option<String>,

    /// Listen address of the service; instead of `0.0.0.0` or `[::]`, the loopback address is asked
    // Each service sets the default of its own `--listen-addr`. The two flags have the same environment variable.
    #[arg(long, value_name = "ADDR", required = false)]
    pub listen_addr: SocketAddr,

    /// Ask only about this gRPC service, for example `switchboard.router.v1.InferenceService` [default: all of them]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub service: String,
}

impl HealthQuestion {
    /// Returns the address to ask.
    fn addr(&self) -> String {
        match &self.addr {
            Some(addr) => addr.clone(),
            None => reachable(self.listen_addr).to_string(),
        }
    }
}

/// Returns the address at which this machine reaches a service that listens on `listen_addr`.
fn reachable(mut listen_addr: SocketAddr) -> SocketAddr {
    if listen_addr.ip().is_unspecified() {
        listen_addr.set_ip(match listen_addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen_addr
}

/// Asks the service for its health, prints the result as one line, and returns the exit code: 0 if it is serving,
/// otherwise 1.
#[must_use]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of a subcommand")]
pub fn ask(question: &HealthQuestion) -> ExitCode {
    let addr = question.addr();
    let runtime = Builder::new_current_thread().enable_all().build();
    let answer = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(answer(&addr, &question.service)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listen_address_is_asked_unless_another_one_is_given() {
        for (listen_addr, asked) in [
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("0.0.0.0:7", "127.0.0.1:7"),
            ("[::]:7", "[::1]:7"),
        ] {
            let mut question = HealthQuestion {
                addr: None,
                listen_addr: listen_addr.parse().unwrap(),
                service: String::new(),
            };
            assert_eq!(question.addr(), asked);
            question.addr = Some("router:8".to_owned());
            assert_eq!(question.addr(), "router:8");
        }
    }
}
