//! The steps up to the connection: name, TCP, TLS, each by itself, so that each has its own time and its own fault.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};

use super::{Failed, StepKind, Steps, advice};
use crate::upstream::{Outgoing, Upstream, UpstreamError, connector::DialError};

/// Takes the steps `dns`, `tcp` and `tls`, each within `limit`.
pub(super) async fn walk(
    upstream: &Upstream,
    call: Outgoing<'_>,
    limit: Duration,
    steps: &mut Steps,
) -> Result<(), Failed> {
    let origin = call.endpoint.origin();
    let place = origin.host_and_port();
    let fail = |steps: &mut Steps, kind, took, error| {
        steps.failed(kind, Some(took), advice::upstream(&UpstreamError::Dial(error), false))
    };

    let begun = Instant::now();
    let addresses = if let Ok(address) = place.parse::<SocketAddr>() {
        steps.skipped(StepKind::Dns, "the endpoint is an address, not a name");
        vec![address]
    } else {
        match timeout(limit, resolve(&place)).await {
            Ok(Ok(addresses)) => {
                steps.passed(StepKind::Dns, Some(begun.elapsed()), "");
                addresses
            }
            Ok(Err(error)) => return fail(steps, StepKind::Dns, begun.elapsed(), DialError::Dns(Arc::new(error))),
            Err(elapsed) => return fail(steps, StepKind::Dns, begun.elapsed(), DialError::Dns(Arc::new(elapsed))),
        }
    };

    let begun = Instant::now();
    match timeout(limit, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_connection)) => steps.passed(StepKind::Tcp, Some(begun.elapsed()), ""),
        Ok(Err(error)) => {
            return fail(
                steps,
                StepKind::Tcp,
                begun.elapsed(),
                DialError::Connect(Arc::new(error)),
            );
        }
        Err(_elapsed) => return fail(steps, StepKind::Tcp, begun.elapsed(), DialError::TimedOut(limit)),
    }

    if !origin.is_tls() {
        steps.skipped(StepKind::Tls, "the endpoint is http");
        return Ok(());
    }
    let begun = Instant::now();
    match timeout(limit, upstream.dial(call)).await {
        Ok(Ok(())) => steps.passed(StepKind::Tls, Some(begun.elapsed()), ""),
        Ok(Err(error)) => {
            return steps.failed(StepKind::Tls, Some(begun.elapsed()), advice::upstream(&error, false));
        }
        Err(_elapsed) => return fail(steps, StepKind::Tls, begun.elapsed(), DialError::TimedOut(limit)),
    }
    Ok(())
}

async fn resolve(place: &str) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = lookup_host(place).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
