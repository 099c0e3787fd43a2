//! The table of faults: each is told by its own reason and by nothing else, is counted against whom it should, and costs
//! the caller nothing that another model could save. `docs/faults.md` has the numbers.

mod place;
mod rows;

use std::time::Duration;

use switchboard::pb::{
    router::{self, SelectionReason},
    types::EndpointState,
};
use switchboard_router::catalog;
use tonic::Code;

use self::place::Place;
use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, TOKEN, prompt},
};

/// What must not be seen in any failure.
const CANARY: &str = "canary-prompt-91c2";

/// What happens to one call, and what comes of it.
#[derive(Debug)]
struct Row {
    /// Of `docs/faults.md`.
    number: u8,
    name: &'static str,
    fault: Fault,
    code: Code,
    reason: &'static str,
    /// How many pieces the caller got before.
    sent: usize,
    against: Against,
    metadata: &'static [(&'static str, &'static str)],
    fields: &'static [&'static str],
    /// Seconds after which to come back.
    retry: Option<u64>,
}

/// What is wrong with the model's server.
#[derive(Debug, Clone)]
enum Fault {
    /// It does this.
    Script(Script),
    /// Nobody listens at its port.
    Refused,
    /// Nobody answers what is sent to its port.
    BlackHole,
    /// Its name is nobody's.
    NoName,
    /// It speaks HTTP where TLS is wanted.
    NoTls,
}

impl From<Script> for Fault {
    fn from(script: Script) -> Self {
        Self::Script(script)
    }
}

/// Whom a fault is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    /// The server's health.
    Server,
    /// Its load: it is left alone for a while.
    Load,
    /// What somebody has to change.
    Settings,
    /// The caller, so nobody here.
    Nobody,
}

impl Row {
    /// A router whose model has this fault.
    fn setup(&self, place: &Place) -> Setup {
        let origin = place.url();
        Setup::at(origin)
            .token_for(&[origin])
            .limits(|limits| {
                // Above the second in which a refusal is read.
                limits.first_token = Duration::from_millis(1500);
                limits.patience.idle = Duration::from_secs(1);
            })
            .model_limits(catalog::Limits {
                connect_timeout: Some(Duration::from_millis(300)),
                ..catalog::Limits::default()
            })
    }

    /// Another server may answer in its stead.
    fn can_be_repeated(&self) -> bool {
        self.sent == 0 && self.against != Against::Nobody
    }
}

/// Whom the one call so far was counted against.
#[expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails by panicking")]
async fn against(router: &Router) -> Against {
    let status = router
        .routing
        .clone()
        .get_status(router::GetStatusRequest {})
        .await
        .unwrap();
    match status.into_inner().endpoints.first().map(router::EndpointStatus::state) {
        Some(EndpointState::Recovering) => Against::Server,
        Some(EndpointState::BackingOff) => Against::Load,
        Some(EndpointState::Misconfigured) => Against::Settings,
        Some(EndpointState::Unspecified) => Against::Nobody,
        other => panic!("one fault makes no server {other:?}"),
    }
}

#[tokio::test]
async fn every_fault_of_a_model_server_is_told_and_counted_as_what_it_is() {
    for row in rows::rows() {
        let name = format!("{}, {}", row.number, row.name);
        let place = Place::with(&row.fault).await;
        let router = row.setup(&place).start().await;
        let answer = router.ask(prompt(CANARY)).await;
        let told = answer.told();

        assert_eq!((told.code, told.reason.as_str()), (row.code, row.reason), "{name}");
        assert_eq!(answer.deltas, row.sent, "{name}: what was sent stays sent");
        let tokens_sent = (row.sent > 0).then(|| row.sent.to_string());
        assert_eq!(told.metadata.get("tokens_sent"), tokens_sent.as_ref(), "{name}");
        assert_eq!(told.metadata.contains_key("partial"), row.sent > 0, "{name}");
        assert_eq!(
            answer.metadata.is_some(),
            row.sent > 0,
            "{name}: no headers before the first token"
        );
        assert_eq!(told.metadata["feature"], "features/duo_chat", "{name}");
        assert_eq!(told.metadata["model"], "models/m", "{name}");
        for (key, value) in row.metadata {
            assert_eq!(told.metadata[*key], *value, "{name}");
        }
        assert_eq!(told.fields, row.fields, "{name}");
        assert_eq!(told.retry, row.retry.map(Duration::from_secs), "{name}");
        assert_eq!(against(&router).await, row.against, "{name}: whom it counts against");

        let status = answer.failure.unwrap();
        let shown = format!("{status:?}{}", String::from_utf8_lossy(status.details()));
        for secret in [CANARY, TOKEN, "127.0.0.1"] {
            assert!(!shown.contains(secret), "{name} shows {secret}");
        }
        router.settled().await;
        // With the router goes the pool, and with it what lay there unused.
        drop(router);
        place.was_asked_once(&name).await;
    }
}

#[tokio::test]
async fn another_model_answers_in_the_stead_of_every_fault_that_is_not_the_callers() {
    let spare = FakeUpstream::start().await;
    for row in rows::rows() {
        let name = format!("{}, {}", row.number, row.name);
        let place = Place::with(&row.fault).await;
        let router = row
            .setup(&place)
            .other("spare", spare.url())
            .fallbacks(&["spare"])
            .start()
            .await;
        let answer = router.ask(prompt("hi")).await;
        if row.can_be_repeated() {
            assert_eq!(answer.text, "hello", "{name}: {:?}", answer.failure);
            let selection = answer.selection.unwrap();
            assert_eq!(
                (selection.model.as_str(), selection.attempt_count),
                ("models/spare", 2),
                "{name}"
            );
            assert_eq!(selection.reason(), SelectionReason::Failover, "{name}");
        } else {
            assert!(answer.failure.is_some(), "{name}: is not repeated");
            let told = answer.told();
            assert_eq!((told.code, told.reason.as_str()), (row.code, row.reason), "{name}");
            assert_eq!(told.metadata["attempts"], "1", "{name}");
        }
    }
}
