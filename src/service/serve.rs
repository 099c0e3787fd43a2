//! Serving gRPC with limits, and ending it inside a bound.
//!
//! tonic hands hyper an explicit "no limit" for what is not set, and so switches hyper's own defences off: every limit is
//! set here. Its graceful end waits without limit for open streams: here the wait has one.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Error, Server},
};

use super::{call::CallLayer, listener::Listener};

/// How long streams may take to end once they were told to.
pub const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What a service takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams on one connection at a time. Clients queue silently above it.
    pub streams_per_connection: u32,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of one request message.
    pub message_bytes: usize,
}

/// How a service ends.
#[derive(Debug)]
pub struct Shutdown {
    /// Cancelled from outside: no new connections, no new calls.
    pub stop: CancellationToken,
    /// How long calls that run may go on.
    pub grace: Duration,
    /// Cancelled here when `grace` is over: what still runs has to end within [`END_TIMEOUT`].
    pub end: CancellationToken,
}

/// Serves `routes` until `shutdown.stop` is cancelled and the calls that run have ended or were ended.
///
/// Returns at the latest `grace` and two [`END_TIMEOUT`]s after `stop`, whatever clients do.
///
/// # Errors
///
/// When the transport fails for good.
pub async fn serve(routes: Routes, listener: Listener, limits: Limits, shutdown: Shutdown) -> Result<(), Error> {
    let Shutdown { stop, grace, end } = shutdown;
    let kill = CancellationToken::new();
    // Whoever leaves this function, also by dropping it, takes the connections along.
    let _kill_on_drop = kill.clone().drop_guard();
    let connections = listener.into_connections(stop.clone(), kill.clone()).into_stream();

    let serving = Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .max_frame_size(16 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(CallLayer::new(limits.message_bytes))
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());

    let out_of_time = async {
        stop.cancelled().await;
        sleep(grace).await;
        end.cancel();
        sleep(END_TIMEOUT).await;
        tracing::warn!("closing connections whose calls did not end in time");
        kill.cancel();
        sleep(END_TIMEOUT).await;
    };
    tokio::select! {
        result = serving => result,
        () = out_of_time => Ok(()),
    }
}
