//! What the subscription needs from its environment: a connection to a registry, and a thread for long computations.
//!
//! Everything else is decided by the subscription itself. A simulation replaces the real surroundings with its own.

use std::{fmt::Debug, future::Future, time::Duration};

use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use switchboard::{
    pb::registry::{self, config_service_client::ConfigServiceClient},
    service::cause::Cause,
};
use tokio::task::JoinSet;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    compile::{self, Compiled, Used},
    received::Received,
};

const CONNECT_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_MAX: Duration = Duration::from_secs(20);
/// Maximum size of a message. The largest that a registry sends are a part of 64 KiB and a resource of 256 KiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The messages that a router sends on its stream.
pub trait Upward: Stream<Item = registry::SubscribeRequest> + Send + 'static {}

impl<U: Stream<Item = registry::SubscribeRequest> + Send + 'static> Upward for U {}

/// The messages that a registry sends on the stream, or the error that ends it.
pub type Downward = BoxStream<'static, Result<registry::SubscribeResponse, Status>>;

/// The environment of a subscription.
pub trait Surroundings: Debug + Clone + Send + Sync + 'static {
    /// A connection to a registry.
    type Connection: Connection;

    /// Connects to a registry. The error is the cause in words, for the log.
    fn connect(&self, address: http::Uri) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// Runs a computation that would keep a worker of the runtime busy for too long.
    fn aside<T: Send + 'static>(&self, tasks: &mut JoinSet<T>, work: impl FnOnce() -> T + Send + 'static);

    /// Compiles a received state.
    fn compile(&self, received: &Received, used: &Used, credentials: &compile::CredentialsById) -> Compiled {
        compile::compile(received, used, credentials)
    }
}

/// One connection to a registry.
pub trait Connection: Clone + Send + Sync + 'static {
    /// Opens the change stream.
    fn subscribe(&self, upward: impl Upward) -> impl Future<Output = Result<Downward, Status>> + Send;

    /// Fetches one credential.
    fn credential(
        &self,
        request: registry::GetModelCredentialRequest,
    ) -> impl Future<Output = Result<registry::GetModelCredentialResponse, Status>> + Send;
}

/// The real surroundings: gRPC, and the threads of the runtime.
#[derive(Debug, Clone, Copy)]
pub struct Grpc;

impl Surroundings for Grpc {
    type Connection = Channel;

    async fn connect(&self, address: http::Uri) -> Result<Channel, String> {
        Endpoint::from(address)
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_MAX)
            .connect()
            .await
            .map_err(|error| Cause::of(&error).to_string())
    }

    fn aside<T: Send + 'static>(&self, tasks: &mut JoinSet<T>, work: impl FnOnce() -> T + Send + 'static) {
        tasks.spawn_blocking(work);
    }
}

impl Connection for Channel {
    async fn subscribe(&self, upward: impl Upward) -> Result<Downward, Status> {
        let mut client = ConfigServiceClient::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.subscribe(upward).await?.into_inner().boxed())
    }

    async fn credential(
        &self,
        request: registry::GetModelCredentialRequest,
    ) -> Result<registry::GetModelCredentialResponse, Status> {
        let mut client = ConfigServiceClient::new(self.clone());
        Ok(client.get_model_credential(request).await?.into_inner())
    }
}
