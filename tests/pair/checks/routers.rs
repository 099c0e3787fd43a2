//! Which router makes a check, and the result if a router cannot make it.

use std::time::Duration;

use switchboard::pb::registry::{CheckModelRequest, Fault, ListRoutersRequest};
use tonic::Request;

use super::{check, failed, only, refusal, told, unsaved};
use crate::{
    fake_upstream::{FakeUpstream, Script},
    fleet::Other,
    harness::{Pair, reason_of},
    peer::Peer,
};

async fn every_router_reports_its_check_and_a_router_without_checks_delays_no_other() {
    let pair = Pair::start().await;
    let server = FakeUpstream::start().await;
    server.listing(refusal(401));
    let other = Other::start(&pair, "other", &[]).await;
    // A router of a release without checks.
    let mut old = Peer::new(pair.registry(), "old");
    let _stream = old.open().await.unwrap();
    pair.wait_until(async || {
        let listed = pair.config().list_routers(ListRoutersRequest::default()).await;
        listed.unwrap().into_inner().total_size == 3
    })
    .await;
    let request = |router: &str, all_routers| CheckModelRequest {
        model: Some(unsaved(&server.url())),
        router: router.to_owned(),
        all_routers,
        ..Default::default()
    };
    let checks = check(&pair, request("", true)).await.unwrap();
    let told_by: Vec<(&str, &str)> = checks
        .iter()
        .map(|check| (check.router.as_str(), failed(check).reason.as_str()))
        .collect();
    assert_eq!(
        told_by,
        [
            ("old", "METHOD_UNKNOWN"),
            ("other", "UPSTREAM_CREDENTIAL_REJECTED"),
            ("pair", "UPSTREAM_CREDENTIAL_REJECTED")
        ]
    );
    assert_eq!(failed(&checks[0]).fault(), Fault::Switchboard);
    let chosen = only(check(&pair, request("other", false)).await.unwrap());
    assert_eq!(chosen.router, "other");
    let any = only(check(&pair, request("", false)).await.unwrap());
    assert_ne!(any.router, "old", "a router that supports checks is chosen");
    assert_eq!(
        reason_of(&check(&pair, request("nobody", false)).await).as_deref(),
        Some("NO_ROUTER_CONNECTED")
    );
    assert_eq!(
        reason_of(&check(&pair, request("other", true)).await).as_deref(),
        Some("VALIDATION_FAILED")
    );

    other.service.freeze();
    let mut frozen = Request::new(request("other", false));
    frozen.set_timeout(Duration::from_secs(2));
    let late = only(pair.models().check_model(frozen).await.unwrap().into_inner().checks);
    assert_eq!(told(failed(&late)), ("router", Fault::Switchboard, "DEADLINE_EXCEEDED"));
    other.service.thaw();
    pair.finish().await;
}

async fn a_check_without_a_router_is_refused_and_a_router_that_dies_is_a_failed_check() {
    let mut pair = Pair::start().await;
    let server = FakeUpstream::start().await;
    server.listing(Script::silence());
    let request = CheckModelRequest {
        model: Some(unsaved(&server.url())),
        ..Default::default()
    };
    let asked = request.clone();
    let mut models = pair.models();
    let (checked, ()) = tokio::join!(models.check_model(asked), async {
        server.is_probed().await;
        pair.kill_router();
    });
    let gone = only(checked.unwrap().into_inner().checks);
    assert_eq!(
        told(failed(&gone)),
        ("router", Fault::Switchboard, "NO_ROUTER_CONNECTED")
    );
    assert_eq!(
        reason_of(&check(&pair, request).await).as_deref(),
        Some("NO_ROUTER_CONNECTED")
    );
}

tests! {
    every_router_reports_its_check_and_a_router_without_checks_delays_no_other,
    a_check_without_a_router_is_refused_and_a_router_that_dies_is_a_failed_check,
}
