//! The table of faults: each is told by its own reason and by nothing else, is counted against whom it should, and costs
//! the caller nothing that another model could save. `docs/faults.md` has the numbers.

mod caller;
mod place;
mod rows;

use std::{collections::BTreeSet, time::Duration};

use switchboard::{
    pb::{
        router::{self, SelectionReason},
        types::EndpointState,
    },
    resource::model::{self, Timeout},
};
use tonic::Code;

use self::{caller::Caller, place::Place};
use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, Router, Setup, TOKEN},
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
    caller: Caller,
    /// Code and reason. `None`: nobody is there to be told.
    told: Option<(Code, &'static str)>,
    /// How many pieces the caller got before. `None`: as many as came in the time.
    sent: Option<usize>,
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
    /// It takes the connection, and nobody is there.
    HalfOpen,
    /// Its name is nobody's.
    NoName,
    /// Its name is not told in time.
    SlowName,
    /// The router itself makes a mistake on the way there.
    Panic,
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
    /// A fault that one attempt of one server shows.
    fn new(number: u8, name: &'static str, fault: impl Into<Fault>, code: Code, reason: &'static str) -> Self {
        Self {
            number,
            name,
            fault: fault.into(),
            caller: Caller::Reads,
            told: Some((code, reason)),
            sent: Some(0),
            against: Against::Server,
            metadata: &[],
            fields: &[],
            retry: None,
        }
    }

    fn against(self, against: Against) -> Self {
        Self { against, ..self }
    }

    /// After so many pieces.
    fn sent(self, sent: usize) -> Self {
        Self {
            sent: Some(sent),
            ..self
        }
    }

    /// With a caller that does this, after pieces whose number depends on time.
    fn to(self, caller: Caller) -> Self {
        Self {
            caller,
            sent: None,
            ..self
        }
    }

    fn with(self, metadata: &'static [(&'static str, &'static str)]) -> Self {
        Self { metadata, ..self }
    }

    /// With a violation at these fields.
    fn blames(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }

    /// To be repeated after so many seconds.
    fn retry(self, seconds: u64) -> Self {
        Self {
            retry: Some(seconds),
            ..self
        }
    }
}

impl Row {
    /// A router whose model has this fault.
    fn setup(&self, place: &Place) -> Setup {
        let origin = place.url();
        Setup::at(origin)
            .token_for(&[origin])
            .names(place.names())
            .limits(|limits| {
                // Above the second in which a refusal is read.
                limits.first_token = Duration::from_millis(1500);
                limits.patience.idle = Duration::from_secs(1);
                limits.patience.slow_caller = Duration::from_secs(1);
            })
            .model_limits(model::Limits {
                connect_timeout: Timeout::parse(Duration::from_millis(300)).ok(),
                ..model::Limits::default()
            })
    }

    /// It says which model it is about.
    fn reaches_a_model(&self) -> bool {
        self.caller.is_heard() && !matches!(self.fault, Fault::Panic)
    }

    /// Another server may answer in its stead.
    fn can_be_repeated(&self) -> bool {
        self.sent == Some(0) && self.against != Against::Nobody
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
        Some(EndpointState::Unspecified | EndpointState::Healthy) => Against::Nobody,
        other => panic!("one fault makes no server {other:?}"),
    }
}

/// Checks all that the caller got.
fn check(row: &Row, name: &str, answer: &Answer) {
    let Some((code, reason)) = row.told else {
        assert!(answer.failure.is_none() && answer.completion.is_none(), "{name}");
        return;
    };
    let told = answer.told();
    assert_eq!((told.code, told.reason.as_str()), (code, reason), "{name}");
    if let Some(sent) = row.sent {
        assert_eq!(answer.deltas, sent, "{name}: what was sent stays sent");
    }
    let is_partial = answer.deltas > 0;
    let tokens_sent = is_partial.then(|| answer.deltas.to_string());
    assert_eq!(told.metadata.get("tokens_sent"), tokens_sent.as_ref(), "{name}");
    assert_eq!(told.metadata.contains_key("partial"), is_partial, "{name}");
    let has_headers = answer.metadata.is_some();
    assert_eq!(has_headers, is_partial, "{name}: no headers before the first token");
    if row.caller.is_heard() {
        assert_eq!(told.metadata["feature"], "features/duo_chat", "{name}");
    }
    if row.reaches_a_model() {
        assert_eq!(told.metadata["model"], "models/m", "{name}");
    }
    for (key, value) in row.metadata {
        assert_eq!(told.metadata[*key], *value, "{name}");
    }
    assert_eq!(told.fields, row.fields, "{name}");
    assert_eq!(told.retry, row.retry.map(Duration::from_secs), "{name}");
    let shown = answer.failure.as_ref().map(|status| {
        let details = String::from_utf8_lossy(status.details()).into_owned();
        format!("{status:?}{details}")
    });
    for secret in [CANARY, TOKEN, "127.0.0.1"] {
        assert!(
            !shown.iter().any(|shown| shown.contains(secret)),
            "{name} shows {secret}"
        );
    }
}

#[tokio::test]
async fn every_fault_is_told_and_counted_as_what_it_is() {
    for row in rows::rows() {
        let name = format!("{}, {}", row.number, row.name);
        let place = Place::with(&row.fault).await;
        let router = row.setup(&place).start().await.narrow().await;
        check(&row, &name, &row.caller.ask(&router).await);
        assert_eq!(against(&router).await, row.against, "{name}: whom it counts against");
        router.settled().await;
        // With the router goes the pool, and with it what lay there unused.
        drop(router);
        if row.caller.is_heard() {
            place.was_asked_once(&name).await;
        } else {
            place.was_not_asked(&name);
        }
    }
}

/// The numbers of the faults between router, model and caller.
fn numbers() -> BTreeSet<u8> {
    (1..=23).collect()
}

#[test]
fn the_table_and_its_document_have_every_fault_and_no_other() {
    let in_table: BTreeSet<u8> = rows::rows().iter().map(|row| row.number).collect();
    assert_eq!(in_table, numbers());
    let document = include_str!("../../docs/faults.md");
    let cells = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let in_document: Vec<u8> = cells.filter_map(|number| number.parse().ok()).collect();
    assert_eq!(in_document, numbers().into_iter().collect::<Vec<_>>(), "in this order");
}

#[tokio::test]
async fn another_model_answers_in_the_stead_of_every_fault_that_is_not_the_callers() {
    let spare = FakeUpstream::start().await;
    let mut answered = 0;
    for row in rows::rows() {
        let name = format!("{}, {}", row.number, row.name);
        let place = Place::with(&row.fault).await;
        let router = row
            .setup(&place)
            .other("spare", spare.url())
            .fallbacks(&["spare"])
            .start()
            .await
            .narrow()
            .await;
        let answer = row.caller.ask(&router).await;
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
            check(&row, &name, &answer);
            assert!(spare.requests().len() == answered, "{name}: is not repeated");
        }
        answered = spare.requests().len();
    }
}
