//! Further tests of deltas: deletes, lost deletes, and trace contexts.

use super::*;

#[test]
fn a_delete_removes_its_name_and_deleting_an_unknown_name_is_allowed() {
    let mut store = store();
    store.write(vec![("models/b", model(|_| ()))]);
    let mut case = Case::following(&store);
    let from = store.cursor;
    store.delete(&["models/b", "models/never"]);
    let change = SessionEvent::Message(StreamMessage::Delta(delta(&from, &store)));
    assert_eq!(case.step(change), [Action::Install(Arc::new(store.received()))]);

    // A name that is deleted and created again within one delta has only the new resource, with or without its delete
    // in the delta.
    for with_delete in [false, true] {
        let mut store = store.clone();
        let mut case = Case::following(&store);
        let from = store.cursor;
        store.delete(&["models/a"]);
        store.write(vec![("models/a", model(|_| ()))]);
        let mut change = delta(&from, &store);
        if with_delete {
            change.deletes.push(Deleted {
                name: "models/a".into(),
                revision: change.to.revision,
            });
        }
        let actions = case.step(SessionEvent::Message(StreamMessage::Delta(change)));
        assert_eq!(actions, [Action::Install(Arc::new(store.received()))]);
        let life = case.session.received().unwrap().resources()["models/a"]
            .raw
            .create_revision;
        assert_eq!(life, store.cursor.revision);
    }
}

#[test]
fn a_lost_delete_is_found_by_the_digest() {
    let mut store = store();
    let mut case = Case::following(&store);
    let from = store.cursor;
    store.delete(&["features/duo_chat"]);
    let mut wrong = delta(&from, &store);
    wrong.deletes.clear();
    assert_eq!(
        case.step(SessionEvent::Message(StreamMessage::Delta(wrong))),
        closed(Closed::Mismatch)
    );
    assert_eq!(case.received(), Some(from));
}

#[test]
fn the_state_keeps_the_trace_context_of_the_last_delta() {
    let mut store = store();
    let mut case = Case::following(&store);
    let traceparent = |case: &Case| case.session.received().unwrap().traceparent().map(str::to_owned);
    for expected in [Some("00-1-2-01"), None] {
        let from = store.cursor;
        store.write(vec![("models/b", model(|_| ()))]);
        let change = Delta {
            traceparent: expected.map(Into::into),
            ..delta(&from, &store)
        };
        case.step(SessionEvent::Message(StreamMessage::Delta(change)));
        assert_eq!(traceparent(&case).as_deref(), expected);
    }
}
