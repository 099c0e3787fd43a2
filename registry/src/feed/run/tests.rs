use switchboard::pb::registry::watch_response::Kind;

use super::*;
use crate::testing::{History, decoded};

fn sizes(run: &Run) -> Vec<(usize, usize)> {
    let parts = run.frames().into_iter().filter_map(|bytes| match decoded(&bytes) {
        Kind::SnapshotPart(part) => Some((part.resources.len(), 0)),
        Kind::Delta(delta) => Some((delta.upserts.len(), delta.deletes.len())),
        _ => None,
    });
    parts.collect()
}

#[test]
fn a_part_is_small_unless_one_resource_is_large() {
    let history = History::new();
    history.commit([
        ("models/a", 40_000),
        ("models/b", 40_000),
        ("models/c", 200_000),
        ("models/d", 1_000),
        ("models/e", 1_000),
    ]);
    let state = history.state();
    let snapshot = Run::snapshot(&state, View::Router);
    assert_eq!(sizes(&snapshot), [(1, 0), (1, 0), (1, 0), (2, 0)]);
    let Kind::SnapshotBegin(begin) = decoded(&snapshot.frames()[0]) else {
        panic!("a snapshot must start with a begin message")
    };
    assert_eq!((begin.resources, begin.bytes), (5, 282_000));
    let delta = Run::delta(&state, View::Router, Revision::ZERO);
    assert_eq!(sizes(&delta), [(1, 0), (1, 0), (1, 0), (2, 0)]);
}

#[test]
fn deletes_are_distributed_over_the_parts() {
    let history = History::new();
    let names: Vec<String> = (0..1_000).map(|id| format!("models/m{id}")).collect();
    history.commit(names.iter().map(|name| (&**name, 1)));
    history.delete(names.iter().map(|name| &**name));
    history.commit([("models/large", 30_000)]);
    let delta = Run::delta(&history.state(), View::Router, Revision::new(1).unwrap());
    let sizes = sizes(&delta);
    assert!(sizes.len() > 1);
    assert_eq!(sizes[0].0, 1);
    assert!(sizes.iter().all(|(_, deletes)| *deletes > 0));
    assert_eq!(sizes.iter().map(|(_, deletes)| deletes).sum::<usize>(), 1_000);
}

#[test]
fn a_completely_encoded_run_does_not_keep_its_state_alive() {
    let history = History::with_revisions(1);
    let state = history.state();
    let run = Run::snapshot(&state, View::Router);
    let before = Arc::strong_count(&state);
    assert_eq!(run.frames().len(), 3);
    assert_eq!(Arc::strong_count(&state), before - 1);
}
