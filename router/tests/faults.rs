//! The table of faults: each fault gets its own reason, affects the right part of the server's health, and does not
//! fail a call that a fallback model can answer. `docs/faults.md` has the numbers.

mod caller;
mod place;
mod rows;

use std::{collections::BTreeSet, time::Duration};

use switchboard::{
    endpoint::EndpointUri,
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

/// A prompt that no failure may show.
const CANARY: &str = "canary-prompt-91c2";

/// A fault of one call and its expected effects.
#[derive(Debug)]
struct Row {
    /// The number in `docs/faults.md`.
    number: u8,
    name: &'static str,
    fault: Fault,
    caller: Caller,
    /// Expected code and reason. `None`: the caller has gone.
    told: Option<(Code, &'static str)>,
    /// Number of pieces that the caller receives before the failure. `None`: it depends on timing.
    sent: Option<usize>,
    against: Against,
    /// What the message says about the cause.
    cause: &'static str,
    metadata: &'static [(&'static str, &'static str)],
    fields: &'static [&'static str],
    /// The expected retry delay in seconds.
    retry: Option<u64>,
}

/// The fault of the model's server, or of the way to it.
#[derive(Debug, Clone)]
enum Fault {
    /// The server plays this script.
    Script(Script),
    /// No process listens on its port.
    Refused,
    /// Packets to its port are dropped.
    BlackHole,
    /// The kernel accepts the connection, but no process reads from it.
    HalfOpen,
    /// Its host name does not exist.
    NoName,
    /// The look-up of its host name does not answer in time.
    SlowName,
    /// The router panics on the way to the server.
    Panic,
    /// It speaks plain HTTP although its URL requires TLS.
    NoTls,
}

impl From<Script> for Fault {
    fn from(script: Script) -> Self {
        Self::Script(script)
    }
}

/// The part of the state that a fault counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    /// The server's health.
    Server,
    /// The server's load: it gets no new calls for a while.
    Load,
    /// The configuration, which an administrator has to change.
    Settings,
    /// Nothing, because the fault is the caller's.
    Nobody,
}

impl Row {
    /// A fault of one attempt at one server.
    fn new(number: u8, name: &'static str, fault: impl Into<Fault>, code: Code, reason: &'static str) -> Self {
        Self {
            number,
            name,
            fault: fault.into(),
            caller: Caller::Reads,
            told: Some((code, reason)),
            sent: Some(0),
            against: Against::Server,
            cause: "",
            metadata: &[],
            fields: &[],
            retry: None,
        }
    }

    fn against(self, against: Against) -> Self {
        Self { against, ..self }
    }

    /// Sets the number of pieces that the caller receives before the failure.
    fn sent(self, sent: usize) -> Self {
        Self {
            sent: Some(sent),
            ..self
        }
    }

    /// Sets what the caller does. The number of pieces then depends on timing.
    fn to(self, caller: Caller) -> Self {
        Self {
            caller,
            sent: None,
            ..self
        }
    }

    /// With a message that says this about the cause.
    fn says(self, cause: &'static str) -> Self {
        Self { cause, ..self }
    }

    fn with(self, metadata: &'static [(&'static str, &'static str)]) -> Self {
        Self { metadata, ..self }
    }

    /// Expects a violation at these fields.
    fn blames(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }

    /// Expects a retry delay of this many seconds.
    fn retry(self, seconds: u64) -> Self {
        Self {
            retry: Some(seconds),
            ..self
        }
    }
}

impl Row {
    /// Builds a router whose model has this fault.
    fn setup(&self, place: &Place) -> Setup {
        let origin = place.url();
        Setup::at(origin)
            .token_for(&[origin])
            .names(place.names())
            .limits(|limits| {
                // More than the second in which the body of a refusal is read.
                limits.first_token = Duration::from_millis(1500);
                limits.patience.idle = Duration::from_secs(1);
                limits.patience.slow_caller = Duration::from_secs(1);
            })
            .model_limits(model::Limits {
                connect_timeout: Timeout::parse(Duration::from_millis(300)).ok(),
                ..model::Limits::default()
            })
    }

    /// Whether the failure names the model.
    fn reaches_a_model(&self) -> bool {
        self.caller.is_heard() && !matches!(self.fault, Fault::Panic)
    }

    /// Whether another model may answer instead.
    fn can_be_repeated(&self) -> bool {
        self.sent == Some(0) && self.against != Against::Nobody
    }
}

/// Returns what the only call so far was counted against.
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
        other => panic!("one fault must not make a server {other:?}"),
    }
}

/// Checks everything that the caller received.
fn check(row: &Row, name: &str, answer: &Answer, url: &str) {
    let Some((code, reason)) = row.told else {
        assert!(answer.failure.is_none() && answer.completion.is_none(), "{name}");
        return;
    };
    let told = answer.told();
    assert_eq!((told.code, told.reason.as_str()), (code, reason), "{name}");
    if let Some(sent) = row.sent {
        assert_eq!(answer.deltas, sent, "{name}: number of pieces that the caller received");
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
    for secret in [CANARY, TOKEN] {
        assert!(
            !shown.iter().any(|shown| shown.contains(secret)),
            "{name} shows {secret}"
        );
    }
    check_words(row, name, answer, url);
}

/// Checks that the message names the server and the cause, each once, and that the metadata has the server too.
fn check_words(row: &Row, name: &str, answer: &Answer, url: &str) {
    let (told, message) = (answer.told(), answer.failure.as_ref().map(tonic::Status::message));
    let message = message.unwrap_or_default();
    let is_of_server = told.reason.starts_with("UPSTREAM_") || told.reason == "CONTEXT_LENGTH_EXCEEDED";
    let origin = EndpointUri::parse(url).map(|endpoint| endpoint.origin().to_string());
    let server = origin.ok().filter(|_| is_of_server);
    assert_eq!(told.metadata.get("endpoint"), server.as_ref(), "{name}");
    // The message about a rejected request is about its field.
    let server = server.filter(|_| row.fields.is_empty());
    for part in server.iter().map(String::as_str).chain([row.cause]) {
        let count = message.matches(part).count();
        assert!(part.is_empty() || count == 1, "{name}: `{part}` in `{message}`");
    }
    assert!(message.is_ascii() && !message.ends_with('.'), "{name}: {message}");
}

#[tokio::test]
async fn every_fault_has_its_own_reason_and_effect_on_health() {
    for row in rows::rows() {
        let name = format!("{}, {}", row.number, row.name);
        let place = Place::with(&row.fault).await;
        let router = row.setup(&place).start().await.narrow().await;
        check(&row, &name, &row.caller.ask(&router).await, place.url());
        assert_eq!(
            against(&router).await,
            row.against,
            "{name}: what the fault counts against"
        );
        router.settled().await;
        // Dropping the router drops its pool and the idle connections in it.
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
fn the_table_and_its_document_list_exactly_the_known_faults() {
    let in_table: BTreeSet<u8> = rows::rows().iter().map(|row| row.number).collect();
    assert_eq!(in_table, numbers());
    let document = include_str!("../../docs/faults.md");
    let cells = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let in_document: Vec<u8> = cells.filter_map(|number| number.parse().ok()).collect();
    assert_eq!(
        in_document,
        numbers().into_iter().collect::<Vec<_>>(),
        "the document lists the faults in this order"
    );
}

#[tokio::test]
async fn a_fallback_answers_after_every_fault_that_is_not_the_callers() {
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
            check(&row, &name, &answer, place.url());
            assert!(spare.requests().len() == answered, "{name}: is not repeated");
        }
        answered = spare.requests().len();
    }
}
