use switchboard::names::IncarnationId;

use super::*;

fn put(name: &str, revision: i64, value: &'static str) -> ItemChange {
    let revision = Revision::new(revision).unwrap();
    let name = ResourceName::parse(name).unwrap();
    ItemChange::Put(Item::new(
        name,
        revision,
        revision,
        "t",
        Bytes::from_static(value.as_bytes()),
    ))
}

fn delete(name: &str, revision: i64) -> ItemChange {
    ItemChange::Delete(Tombstone {
        key: name.into(),
        revision: Revision::new(revision).unwrap(),
    })
}

fn items() -> Items {
    let incarnation = Incarnation {
        number: 1,
        id: IncarnationId::random(),
    };
    Items::empty(StoreId::random(), incarnation)
}

#[test]
fn the_state_digest_is_the_sum_of_the_live_items() {
    let mut items = items();
    items.advance(
        vec![put("models/b", 1, "1"), put("models/a", 1, "1")],
        SystemTime::UNIX_EPOCH,
    );
    items.advance(vec![put("models/a", 2, "2")], SystemTime::UNIX_EPOCH);
    let sum = items
        .all(View::Router)
        .fold(StateDigest::EMPTY, |sum, item| sum.plus(item.digest));
    assert_eq!(items.cursor(View::Router).state, sum);
    let names: Vec<_> = items.all(View::Config).map(|item| &*item.key).collect();
    assert_eq!(names, ["models/a", "models/b"]);
}

#[test]
fn each_name_that_changed_after_a_revision_is_listed_once() {
    let mut items = items();
    for (name, revision) in [("models/a", 1), ("models/b", 2), ("models/a", 3)] {
        items.advance(vec![put(name, revision, "x")], SystemTime::UNIX_EPOCH);
    }
    let after = |revision| {
        let revision = Revision::new(revision).unwrap();
        items
            .changed_after(View::Router, revision)
            .map(|item| item.key.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(after(0), ["models/b", "models/a"]);
    assert_eq!(after(2), ["models/a"]);
    assert!(after(3).is_empty());
}

#[test]
fn a_tombstone_is_listed_until_its_name_is_used_again() {
    let mut items = items();
    let none = items.cursor(View::Router).state;
    items.advance(vec![put("models/a", 1, "x")], SystemTime::UNIX_EPOCH);
    items.advance(vec![delete("models/a", 2)], SystemTime::UNIX_EPOCH);
    assert_eq!(items.get("models/a"), None);
    assert_eq!(items.cursor(View::Router).state, none);
    let revision = |number| Revision::new(number).unwrap();
    let deleted: Vec<_> = items.deleted_after(revision(1)).collect();
    assert_eq!(
        deleted,
        [Tombstone {
            key: "models/a".into(),
            revision: revision(2)
        }]
    );
    assert_eq!(items.deleted_after(revision(2)).count(), 0);

    items.advance(vec![put("models/a", 3, "y")], SystemTime::UNIX_EPOCH);
    assert_eq!(items.deleted_after(revision(0)).count(), 0);
    assert_eq!(items.changed_after(View::Router, revision(0)).count(), 1);
}

#[test]
fn a_cut_forgets_tombstones_below_the_floor_and_keeps_live_items() {
    let mut items = items();
    items.advance(
        vec![
            put("models/a", 1, "x"),
            put("models/b", 1, "x"),
            put("models/c", 1, "x"),
        ],
        SystemTime::UNIX_EPOCH,
    );
    items.advance(vec![delete("models/a", 2)], SystemTime::UNIX_EPOCH);
    items.advance(vec![delete("models/b", 3)], SystemTime::UNIX_EPOCH);
    let before = items.clone();
    let keep = Retention {
        revisions: 1,
        ..Retention::default()
    };
    let cut = items.due(&keep).unwrap();
    items.cut(cut);
    let revision = |number| Revision::new(number).unwrap();
    assert_eq!(items.oldest_resumable(), revision(2));
    assert_eq!(
        (items.past(revision(1)), items.past(revision(2)).is_some()),
        (None, true)
    );
    assert!(
        items.chain(revision(1)).is_some(),
        "an old cursor can be distinguished from a foreign one"
    );
    let deleted: Vec<_> = items
        .deleted_after(revision(0))
        .map(|gone| gone.key.to_string())
        .collect();
    assert_eq!(deleted, ["models/b"]);
    assert!(items.get("models/c").is_some());
    assert_eq!(items.changed_after(View::Router, revision(0)).count(), 1);
    assert_eq!(before.deleted_after(revision(0)).count(), 2, "a clone does not change");
}

#[test]
fn an_older_clone_does_not_see_later_revisions() {
    let mut items = items();
    items.advance(vec![put("models/a", 1, "x")], SystemTime::UNIX_EPOCH);
    let old = items.clone();
    let second = items.advance(vec![put("models/a", 2, "y")], SystemTime::UNIX_EPOCH);
    assert_eq!(old.past(second.revision), None);
    assert_eq!(items.past(second.revision), Some(second));
    assert_eq!(old.get("models/a").unwrap().revision.get(), 1);
    assert_eq!(items.oldest_resumable().get(), 1);
}
