//! Host names of model servers: resolvers that fail or hang, and names with several addresses.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use switchboard::resource::model::{Limits, Timeout};
use switchboard_router::upstream::names::Names;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, prompt},
};

pub(crate) const NAME: &str = "gpu.test";

/// Builds a resolver for a name with these loopback addresses, given by their last number. It answers while `is_up` is
/// set.
pub(crate) fn names(addresses: &[u8], is_up: &Arc<AtomicBool>) -> Names {
    let addresses: Vec<IpAddr> = addresses.iter().copied().map(loopback).collect();
    let is_up = Arc::clone(is_up);
    Names::new(Box::new(move |host| {
        let is_known = &*host == NAME && is_up.load(Ordering::Relaxed);
        let found = is_known.then(|| addresses.clone());
        Box::pin(async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }))
}

fn loopback(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

pub(crate) fn up() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

#[tokio::test]
async fn a_server_whose_name_no_longer_resolves_is_called_at_its_last_address() {
    // The server keeps no connection open, so each call opens a new one.
    let answer = Script::answer(["hello"]).close();
    let upstream = FakeUpstream::always(answer).await;
    let is_up = up();
    let setup = Setup::at(upstream.url_by(NAME)).names(names(&[1], &is_up));
    let router = setup.start().await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    router.settled().await;
    is_up.store(false, Ordering::Relaxed);
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    let connections: Vec<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 1]);
}

#[tokio::test]
async fn an_unknown_or_slow_name_is_a_dns_failure() {
    let hangs = Names::new(Box::new(|_| Box::pin(std::future::pending())));
    let unknown = names(&[], &Arc::default());
    for names in [unknown, hangs] {
        let limits = Limits {
            connect_timeout: Timeout::parse(std::time::Duration::from_millis(200)).ok(),
            ..Default::default()
        };
        let setup = Setup::at(format!("http://{NAME}:9")).names(names).model_limits(limits);
        let told = setup.start().await.ask(prompt("hi")).await.told();
        assert_eq!(told.reason, "UPSTREAM_DNS_FAILED");
    }
}

#[tokio::test]
async fn a_name_with_several_addresses_is_several_servers_with_that_host_name() {
    let ill = FakeUpstream::always(Script::response(500, &[], "")).await;
    let well = ill.beside(Script::answer(["hello"])).await;
    let setup = Setup::at(ill.url_by(NAME)).names(names(&[1, 2], &up()));
    let router = setup.start().await;
    // The first call connects by name, finds two servers, and continues with the other one.
    for _ in 0..5 {
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
        router.settled().await;
    }
    assert!(!ill.requests().is_empty());
    let requests = well.requests();
    assert_eq!(requests.len(), 5);
    for request in requests {
        assert_eq!(request.connection, 0, "each server has a pool of its own");
        assert!(request.headers["host"].starts_with(NAME));
    }
    let servers = router.servers();
    let addresses: Vec<_> = servers.iter().map(|server| server.identity.address).collect();
    assert_eq!(addresses, [Some(loopback(1)), Some(loopback(2))]);
}
