//! Tests of new lives of a store.

use switchboard::names::StoreId;

use super::*;
use crate::domain::life::{LifeCause, Mark};

fn life(above: Mark) -> NewLife {
    NewLife {
        cause: LifeCause::AcceptHistory,
        above,
        adopt: None,
    }
}

/// Starts a store in its second life, which began at revision 101 with the models A and B of the revisions 2 and 3.
async fn second_life() -> Running {
    let running = Running::start().await;
    for name in ["A", "B", "C"] {
        running.commit.submit(create(model(name))).await.unwrap();
    }
    let delete = ParsedWrite::read(registry::DeleteModelRequest {
        name: "models/c".to_owned(),
        ..Default::default()
    });
    running.commit.submit(delete).await.unwrap();
    let begun = running
        .commit
        .begin_life(life(Mark::new(1, 100).unwrap()))
        .await
        .unwrap();
    assert_eq!((begun.incarnation.number, begun.revision.get()), (2, 101));
    running
}

#[tokio::test]
async fn a_new_life_begins_above_everything_known_and_changes_no_resource() {
    let running = Running::start().await;
    running.commit.submit(create(model("A"))).await.unwrap();
    let before = running.commit.state();
    let begun = running
        .commit
        .begin_life(life(Mark::new(7, 100).unwrap()))
        .await
        .unwrap();
    assert_eq!((begun.incarnation.number, begun.revision.get()), (8, 101));
    let after = running.commit.state();
    assert_eq!(after.items.incarnation(), begun.incarnation);
    assert_eq!(after.items.store(), before.items.store());
    assert_eq!(
        after.items.cursor(View::Router).state,
        before.items.cursor(View::Router).state
    );
    assert_eq!(
        (&after.models, after.items.oldest_resumable()),
        (&before.models, begun.revision)
    );
    assert_eq!(
        before.items.revision().get(),
        2,
        "a state that was read earlier still shows the old life"
    );

    let again = running.commit.begin_life(life(Mark::NONE)).await.unwrap();
    assert_eq!((again.incarnation.number, again.revision.get()), (9, 102));
    assert_ne!(again.incarnation.id, begun.incarnation.id);
    running.stop().await;
}

#[tokio::test]
async fn a_later_life_and_its_writes_survive_a_restart() {
    let running = second_life().await;
    let before = running.commit.state();
    let running = running.restart().await;
    assert_eq!(
        running.commit.state().items.cursor(View::Router),
        before.items.cursor(View::Router)
    );

    let written = running.commit.submit(create(model("D"))).await.unwrap();
    assert_eq!(written.revision.get(), 102, "revisions have no gaps within a life");
    assert_eq!(written.incarnation, before.items.incarnation().id);
    let before = running.commit.state();
    let running = running.restart().await;
    let after = running.commit.state();
    assert_eq!(after.items.cursor(View::Router), before.items.cursor(View::Router));
    assert_eq!(after.items.oldest_resumable().get(), 101);
    assert_eq!(
        after.items.deleted_after(Revision::ZERO).count(),
        0,
        "tombstones of earlier lives are forgotten"
    );
    assert_eq!(
        after.items.past(Revision::new(101).unwrap()),
        before.items.past(Revision::new(101).unwrap())
    );
    running.stop().await;
}

#[tokio::test]
async fn a_new_life_has_the_adopted_store_id() {
    let running = Running::start().await;
    let store = StoreId::random();
    let adopting = NewLife {
        adopt: Some(store),
        ..life(Mark::NONE)
    };
    let begun = running.commit.begin_life(adopting).await.unwrap();
    assert_eq!(begun.store, store);
    let running = running.restart().await;
    assert_eq!(running.commit.state().items.store(), store);
    running.stop().await;
}

#[tokio::test]
async fn an_etag_of_an_earlier_life_never_matches() {
    let running = Running::start().await;
    let created = running.commit.submit(create(model("A"))).await.unwrap();
    running.commit.begin_life(life(Mark::NONE)).await.unwrap();
    let update = |etag: String| {
        ParsedWrite::read(registry::UpdateModelRequest {
            model: Some(registry::Model {
                name: "models/a".to_owned(),
                display_name: Some("Other".to_owned()),
                etag,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let refused = running.commit.submit(update(created.answer.etag)).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::Refused(WriteError::Conflict { .. })),
        "{refused:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_life_that_was_tampered_with_is_detected() {
    for (sql, what) in [
        ("DELETE FROM lives", "the life of the store"),
        (
            "UPDATE lives SET parent_chain = zeroblob(32)",
            "history up to revision 101",
        ),
        ("UPDATE lives SET incarnation_id = store_id", "the life of the store"),
        ("UPDATE store SET incarnation_number = 1", "the life of the store"),
        ("DELETE FROM revisions WHERE revision = 101", "revision 101"),
        ("DELETE FROM revisions", "revision 101 is missing"),
        (
            "DELETE FROM resources WHERE name = 'models/b'",
            "the state at revision 101",
        ),
    ] {
        let (folder, _) = second_life().await.stop().await;
        tamper(&folder, sql).await;
        let Err(OpenError::Store(StoreError::Damaged(message))) = open(&database(&folder), Retention::default()).await
        else {
            panic!("not detected: {sql}");
        };
        assert!(message.contains(what), "{sql}: {message}");
    }
}
