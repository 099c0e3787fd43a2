//! Tests of deletes, of cutting off old history, and of the schema of an earlier release.

use super::*;
use crate::store::{History, Query};

fn delete(name: &str) -> ParsedWrite<registry::DeleteModelRequest> {
    ParsedWrite::read(registry::DeleteModelRequest {
        name: name.to_owned(),
        ..Default::default()
    })
}

fn with_token(display_name: &str) -> registry::Model {
    registry::Model {
        api_token: Some("canary-4f1c".to_owned()),
        ..model(display_name)
    }
}

fn tombstones(state: &State) -> Vec<(String, i64)> {
    let deleted = state.items.deleted_after(Revision::ZERO);
    deleted
        .map(|gone| (gone.key.to_string(), gone.revision.get()))
        .collect()
}

async fn assert_refused(folder: &TempDir, sql: &'static str, what: &str) {
    tamper(folder, sql).await;
    let Err(OpenError::Store(StoreError::Damaged(message))) = open(&database(folder), SHORT).await else {
        panic!("not detected: {sql}");
    };
    assert!(message.contains(what), "{sql}: {message}");
}

#[tokio::test]
async fn a_delete_survives_a_restart_and_removes_the_token() {
    let running = Running::start().await;
    for name in ["A", "B"] {
        running.commit.submit(create(with_token(name))).await.unwrap();
    }
    let deleted = running.commit.submit(delete("models/a")).await.unwrap();
    assert_eq!((deleted.revision.get(), deleted.answer.revision), (4, 4));
    running.commit.submit(delete("models/b")).await.unwrap();
    running.commit.submit(create(model("B"))).await.unwrap();
    let (folder, before) = running.stop().await;
    assert_eq!(count(&folder, "SELECT COUNT(*) FROM credentials").await, 0);

    let running = Running::start_in(folder).await;
    let after = running.commit.state();
    assert_eq!(tombstones(&after), [("models/a".to_owned(), 4)]);
    assert_eq!(tombstones(&after), tombstones(&before));
    assert_eq!(after.items.cursor(View::Router), before.items.cursor(View::Router));
    assert_eq!(after.models, before.models);
}

#[tokio::test]
async fn a_delete_that_was_tampered_with_is_detected() {
    for (sql, what) in [
        ("DELETE FROM changes WHERE item IS NULL", "history up to revision 3"),
        (
            "UPDATE changes SET item = NULL WHERE name = 'models/b'",
            "history up to revision 4",
        ),
        ("DELETE FROM resources WHERE name = 'models/b'", "`models/b` is missing"),
    ] {
        let running = Running::start().await;
        running.commit.submit(create(model("A"))).await.unwrap();
        running.commit.submit(delete("models/a")).await.unwrap();
        running.commit.submit(create(model("B"))).await.unwrap();
        let (folder, _) = running.stop().await;
        assert_refused(&folder, sql, what).await;
    }
}

const SHORT: Retention = Retention {
    revisions: 3,
    change_bytes: usize::MAX,
    answers: 10,
};

/// Creates a history of 63 revisions that keeps the newest three after the floor, with deletes on both sides of the
/// floor.
async fn cut_history() -> (TempDir, Arc<State>) {
    let running = Running::start_with(TempDir::new().unwrap(), SHORT).await;
    running.commit.submit(create(model("Old"))).await.unwrap();
    for _ in 0..29 {
        running.commit.submit(create(model("X"))).await.unwrap();
        running.commit.submit(delete("models/x")).await.unwrap();
    }
    running.commit.submit(create(model("Y"))).await.unwrap();
    running.commit.submit(delete("models/y")).await.unwrap();
    running.commit.submit(create(model("Z"))).await.unwrap();
    running.stop().await
}

#[tokio::test]
async fn old_history_is_cut_off_and_the_rest_is_read_back() {
    let (folder, before) = cut_history().await;
    let items = &before.items;
    assert_eq!((items.revision().get(), items.oldest_resumable().get()), (63, 60));
    assert_eq!(
        tombstones(&before),
        [("models/y".to_owned(), 62)],
        "the tombstone of models/x is below the floor"
    );
    assert_eq!(count(&folder, "SELECT MIN(revision) FROM changes").await, 61);
    assert_eq!(count(&folder, "SELECT MIN(revision) FROM revisions").await, 33);
    let floor = "SELECT MIN(revision) FROM revisions WHERE router_state IS NOT NULL";
    assert_eq!(count(&folder, floor).await, 60);

    let running = Running::start_with(folder, SHORT).await;
    let after = running.commit.state();
    assert_eq!(after.items.cursor(View::Config), items.cursor(View::Config));
    assert_eq!(after.items.oldest_resumable(), items.oldest_resumable());
    assert_eq!(tombstones(&after), tombstones(&before));
    for number in 1..=63 {
        let at = Revision::new(number).unwrap();
        assert_eq!(after.items.past(at), items.past(at), "{number}");
        assert_eq!(after.items.past(at).is_some(), number >= 60, "{number}");
        assert_eq!(after.items.chain(at), items.chain(at), "{number}");
        assert_eq!(after.items.chain(at).is_some(), number >= 33, "{number}");
    }
    running.commit.submit(delete("models/old")).await.unwrap();
    let state = running.commit.state();
    assert_eq!(state.items.oldest_resumable().get(), 61);
    assert!(tombstones(&state).contains(&("models/old".to_owned(), 64)));
}

#[tokio::test]
async fn a_cut_history_that_contradicts_itself_is_refused() {
    for (sql, what) in [
        (
            "UPDATE resources SET value = x'' WHERE name = 'settings'",
            "state at revision 63",
        ),
        (
            "DELETE FROM resources WHERE name = 'features/duo_chat'",
            "state at revision 63",
        ),
        (
            "UPDATE revisions SET chain = zeroblob(32) WHERE revision = 60",
            "history up to revision 61",
        ),
        (
            "UPDATE changes SET item = zeroblob(32) WHERE revision = 63",
            "history up to revision 63",
        ),
        ("DELETE FROM revisions WHERE revision = 59", "revision 59 is missing"),
        (
            "UPDATE changes SET before_value = x'00' WHERE revision = 62",
            "the value of `models/y` before revision 62 differs from the one that was written",
        ),
        (
            "UPDATE revisions SET router_state = zeroblob(32) WHERE revision = 61",
            "state at revision 61",
        ),
    ] {
        let (folder, _) = cut_history().await;
        assert_refused(&folder, sql, what).await;
    }
}

/// Only the state digests prove a value that was written below the floor.
#[tokio::test]
async fn an_old_value_written_below_the_floor_is_verified() {
    let running = Running::start_with(TempDir::new().unwrap(), SHORT).await;
    running.commit.submit(create(model("Old"))).await.unwrap();
    for name in ["A", "B", "C"] {
        running.commit.submit(create(model(name))).await.unwrap();
    }
    running.commit.submit(delete("models/old")).await.unwrap();
    let (folder, state) = running.stop().await;
    assert_eq!(state.items.oldest_resumable().get(), 3);
    let sql = "UPDATE changes SET before_value = x'00' WHERE name = 'models/old'";
    assert_refused(&folder, sql, "state at revision 6").await;
}

#[tokio::test]
async fn a_database_with_the_first_schema_is_migrated_completely() {
    let running = Running::start().await;
    running.commit.submit(create(with_token("Mistral"))).await.unwrap();
    let (newer, before) = running.stop().await;
    let older = TempDir::new().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(database(&older))
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection
        .execute(include_str!("../../../migrations/0001_first.sql"))
        .await
        .unwrap();
    let attach = format!("ATTACH '{}' AS newer", database(&newer).display());
    connection.execute(sqlx::AssertSqlSafe(attach)).await.unwrap();
    for sql in [
        "INSERT INTO store SELECT singleton, store_id, incarnation_number, incarnation_id FROM newer.store",
        "INSERT INTO revisions SELECT * FROM newer.revisions",
        "INSERT INTO resources SELECT * FROM newer.resources",
        "INSERT INTO changes SELECT revision, name, item FROM newer.changes",
        "INSERT INTO credentials SELECT * FROM newer.credentials",
        "CREATE TABLE _sqlx_migrations AS SELECT * FROM newer._sqlx_migrations WHERE version = 1",
    ] {
        connection.execute(sql).await.unwrap();
    }
    connection.close().await.unwrap();

    let running = Running::start_in(older).await;
    let after = running.commit.state();
    assert_eq!(after.items.cursor(View::Router), before.items.cursor(View::Router));
    assert_eq!(after.token_update_times, before.token_update_times);
    assert_eq!(after.items.oldest_resumable().get(), 2, "the history begins again");
    assert_eq!(
        after.items.chain(Revision::ZERO.next()),
        before.items.chain(Revision::ZERO.next())
    );
    running.commit.submit(delete("models/mistral")).await.unwrap();
    let running = running.restart().await;
    assert!(names(&running.commit.state()).is_empty());
}

#[tokio::test]
async fn the_list_of_changes_ends_at_a_cut_that_was_made_between_two_pages() {
    let running = Running::start_with(TempDir::new().unwrap(), SHORT).await;
    for name in ["A", "B", "C"] {
        running.commit.submit(create(with_token(name))).await.unwrap();
    }
    let history = History::new(database(&running.folder));
    let mut query = Query {
        head: running.commit.state().items.revision(),
        after: None,
        resource: None,
        actor: Some("anonymous".to_owned()),
        count: 1,
        bytes: usize::MAX,
    };
    let first = history.page(&query).await.unwrap();
    let newest = &first.changes[0];
    assert_eq!(
        (newest.name.to_string(), newest.revision.get()),
        ("models/c".to_owned(), 4)
    );
    assert_eq!(
        (newest.actor.as_str(), &newest.before, first.is_cut),
        ("anonymous", &None, true)
    );
    assert_eq!(
        newest.after,
        Some(running.commit.state().items.get("models/c").unwrap().value.clone())
    );

    running.commit.submit(delete("models/c")).await.unwrap();
    running.commit.submit(delete("models/b")).await.unwrap();
    query.after = Some((newest.revision, newest.name.clone()));
    query.count = 10;
    let rest = history.page(&query).await.unwrap();
    assert_eq!(
        (rest.changes.len(), rest.is_cut),
        (0, false),
        "the floor is now revision 3"
    );
    assert_eq!(rest.oldest.unwrap().get(), 4);

    query.after = None;
    query.resource = Some(newest.name.clone());
    query.head = running.commit.state().items.revision();
    let of_one = history.page(&query).await.unwrap().changes;
    let revisions: Vec<_> = of_one.iter().map(|change| change.revision.get()).collect();
    assert_eq!(revisions, [5, 4]);
    assert_eq!(
        of_one[0].before, of_one[1].after,
        "a deleted resource is listed as well"
    );
    assert_eq!(of_one[0].after, None);
}
