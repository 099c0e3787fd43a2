//! The steps up to the connection: DNS, TCP and TLS. Each is run separately, so that each has its own time and its own
//! error.

use std::{net::SocketAddr, time::Duration};

use switchboard::service::cause::Cause;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    StepKind, advice,
    steps::{StepFailed, Steps},
};
use crate::upstream::{
    Outgoing, Upstream, UpstreamError,
    connector::DialError,
    names::{LookupError, Names},
};

/// Runs the steps `dns`, `tcp` and `tls`, each within `limit`.
pub(super) async fn walk(
    upstream: &Upstream,
    call: Outgoing<'_>,
    limit: Duration,
    steps: &mut Steps,
) -> Result<(), StepFailed> {
    let origin = call.endpoint.origin();
    let (host, port) = (call.endpoint.host(), origin.port());

    let addresses = if let Ok(address) = origin.host_and_port().parse() {
        steps.skipped(StepKind::Dns, "the endpoint has an IP address, not a host name");
        vec![address]
    } else {
        let begun = Instant::now();
        let found = resolve(upstream.names(), host, port, limit).await;
        settle(steps, call, StepKind::Dns, begun, found.map_err(UpstreamError::Dial))?
    };

    let begun = Instant::now();
    let connected = match timeout(limit, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(error)) => Err(DialError::Connect(Cause::of(&error))),
        Err(_elapsed) => Err(DialError::TimedOut(limit)),
    };
    settle(
        steps,
        call,
        StepKind::Tcp,
        begun,
        connected.map_err(UpstreamError::Dial),
    )?;

    if !origin.is_tls() {
        steps.skipped(StepKind::Tls, "the endpoint uses `http`, which has no TLS");
        return Ok(());
    }
    let begun = Instant::now();
    let dialled = timeout(limit, upstream.dial(call)).await;
    let dialled = dialled.unwrap_or(Err(UpstreamError::Dial(DialError::TimedOut(limit))));
    settle(steps, call, StepKind::Tls, begun, dialled)
}

/// Resolves a host name in the same way as calls do.
async fn resolve(names: &Names, host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, DialError> {
    let found = timeout(limit, names.resolve(host)).await;
    let found = found.unwrap_or_else(|_elapsed| Err(LookupError::timed_out()));
    let found = found.map_err(DialError::Dns)?;
    Ok(found.iter().map(|&address| (address, port).into()).collect())
}

fn settle<T>(
    steps: &mut Steps,
    call: Outgoing<'_>,
    kind: StepKind,
    begun: Instant,
    found: Result<T, UpstreamError>,
) -> Result<T, StepFailed> {
    let took = Some(begun.elapsed());
    match found {
        Ok(found) => {
            steps.passed(kind, took, "");
            Ok(found)
        }
        Err(error) => Err(steps.failed(kind, took, advice::upstream(&error, call.endpoint, false))),
    }
}
