//! One checker for each invariant of the design that a simulation can observe: it maps a history to its violations.

mod call;
mod router;
mod skew;
mod stream;
mod wait;
mod write;

use std::collections::BTreeMap;

use bytes::Bytes;
use switchboard::{history::View, pb::registry};
use switchboard_registry::domain::state::State;
use switchboard_router::subscription::received::Received;

use crate::history::History;

/// The invariants, with their numbers in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invariant {
    DurableBeforeVisible = 1,
    DenseAndTotal = 2,
    Atomic = 3,
    GapFree = 4,
    ExactlyOnce = 5,
    BookmarkTruth = 6,
    ResumeEqualsSnapshot = 7,
    ForkDetection = 8,
    Monotonic = 9,
    Convergence = 10,
    LastGoodStays = 11,
    CallIsolation = 12,
    IdempotentWrites = 13,
    Etag = 14,
    VersionSkew = 20,
    NoSecret = 22,
    RightToken = 23,
    /// The invariant of `WaitForRevision`, which has no number in the design.
    InForce = 100,
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    #[expect(dead_code, reason = "it is read only through `Debug`")]
    pub(crate) what: String,
}

/// The violations that a checker finds.
pub(crate) type Found = Vec<String>;

type Checker = fn(&History) -> Found;

const CHECKERS: [(Invariant, Checker); 18] = [
    (Invariant::DurableBeforeVisible, write::durable_before_visible_1),
    (Invariant::DenseAndTotal, stream::dense_and_total_2),
    (Invariant::Atomic, router::atomic_3),
    (Invariant::GapFree, stream::gap_free_4),
    (Invariant::ExactlyOnce, router::exactly_once_5),
    (Invariant::BookmarkTruth, stream::bookmark_truth_6),
    (Invariant::ResumeEqualsSnapshot, stream::resume_equals_snapshot_7),
    (Invariant::ForkDetection, stream::fork_detection_8),
    (Invariant::Monotonic, router::monotonic_9),
    (Invariant::Convergence, router::convergence_10),
    (Invariant::LastGoodStays, router::last_good_stays_11),
    (Invariant::CallIsolation, call::isolation_12),
    (Invariant::IdempotentWrites, write::idempotent_writes_13),
    (Invariant::Etag, write::etag_14),
    (Invariant::VersionSkew, skew::refused_by_name_20),
    (Invariant::NoSecret, stream::no_secret_22),
    (Invariant::RightToken, router::right_token_23),
    (Invariant::InForce, wait::in_force),
];

/// Returns all violations of a history.
pub(crate) fn all(history: &History) -> Vec<Violation> {
    let each = |(invariant, checker): (Invariant, Checker)| {
        checker(history)
            .into_iter()
            .map(move |what| Violation { invariant, what })
    };
    CHECKERS.into_iter().flat_map(each).collect()
}

/// Resources in a form that can be compared: name, create revision, revision and encoded bytes.
type Plain = BTreeMap<String, (i64, i64, Bytes)>;

fn plain_of_state(state: &State) -> Plain {
    let items = state.items.all(View::Router);
    let entry = |item: &switchboard_registry::domain::items::Item| {
        let revisions = (item.create_revision.get(), item.revision.get());
        (item.key.to_string(), (revisions.0, revisions.1, item.value.clone()))
    };
    items.map(|item| entry(item)).collect()
}

fn plain_of_received(received: &Received) -> Plain {
    let resources = received.resources().values();
    let entry = |resource: &switchboard_router::subscription::resource::Resource| {
        let raw = &resource.raw;
        let content = (raw.create_revision.get(), raw.revision.get(), raw.value.clone());
        (raw.name.to_string(), content)
    };
    resources.map(|resource| entry(resource)).collect()
}

fn put(plain: &mut Plain, resource: &registry::Resource) {
    let value = resource
        .payload
        .as_ref()
        .map(|payload| payload.value.clone())
        .unwrap_or_default();
    let content = (resource.create_revision, resource.revision, Bytes::from(value));
    plain.insert(resource.name.clone(), content);
}

/// Returns the names of the resources in which the two differ.
fn difference(one: &Plain, other: &Plain) -> Vec<String> {
    let names = one.keys().chain(other.keys());
    let mut names: Vec<_> = names
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
