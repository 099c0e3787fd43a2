//! Tests of databases with older schemas, and of databases of other stores.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::{SqliteConnection, migrate::Migrator};

use super::*;
use crate::store::{History, Query};

static MIGRATOR: Migrator = sqlx::migrate!();

/// Creates a database as the first release left it: empty.
async fn of_schema_1(folder: &TempDir) {
    of_schema(1, folder).await.close().await.unwrap();
}

/// Creates an empty database with an earlier schema.
async fn of_schema(version: i64, folder: &TempDir) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(database(folder))
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    MIGRATOR.run_to(version, &mut connection).await.unwrap();
    connection
}

fn copies(folder: &TempDir) -> Vec<String> {
    let files = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("before"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_database_is_copied_before_it_is_migrated() {
    let newest = MIGRATOR.iter().last().unwrap().version;
    let name = format!("switchboard.db.before-schema-{newest}");
    let folder = TempDir::new().unwrap();
    of_schema_1(&folder).await;
    std::fs::write(folder.path().join(&name), "an older copy").unwrap();
    let folder = Running::start_in(folder).await.stop().await.0;
    let folder = Running::start_in(folder).await.stop().await.0;
    assert_eq!(
        copies(&folder),
        [name.clone(), format!("{name}.1")],
        "copied once, without replacing the older copy"
    );
    let older = std::fs::read(folder.path().join(&name)).unwrap();
    assert_eq!(older, b"an older copy");

    let copy = folder.path().join(format!("{name}.1"));
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut connection = SqliteConnectOptions::new().filename(&copy).connect().await.unwrap();
    let schema: i64 = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(schema, 1, "the copy has the old schema");
}

#[tokio::test]
async fn a_database_without_lives_and_old_values_supports_followers_repeats_lists_and_restores() {
    let repeatable = || {
        ParsedWrite::read(registry::CreateModelRequest {
            model: Some(model("A")),
            request_id: "r1".to_owned(),
            ..Default::default()
        })
    };
    let delete = |name: &str| {
        ParsedWrite::read(registry::DeleteModelRequest {
            name: name.to_owned(),
            ..Default::default()
        })
    };
    let running = Running::start().await;
    let first = running.commit.submit(repeatable()).await.unwrap();
    running.commit.submit(create(model("B"))).await.unwrap();
    running.commit.submit(delete("models/b")).await.unwrap();
    let (newer, before) = running.stop().await;
    let older = TempDir::new().unwrap();
    let mut connection = of_schema(2, &older).await;
    let attach = format!("ATTACH '{}' AS newer", database(&newer).display());
    connection.execute(sqlx::AssertSqlSafe(attach)).await.unwrap();
    for sql in [
        "INSERT INTO store SELECT * FROM newer.store",
        "INSERT INTO revisions SELECT * FROM newer.revisions",
        "INSERT INTO resources SELECT * FROM newer.resources",
        "INSERT INTO changes SELECT revision, name, item FROM newer.changes",
        "INSERT INTO credentials SELECT * FROM newer.credentials",
        "INSERT INTO requests SELECT * FROM newer.requests",
    ] {
        connection.execute(sql).await.unwrap();
    }
    connection.close().await.unwrap();

    let running = Running::start_in(older).await;
    let after = running.commit.state();
    let cursor = before.items.cursor(View::Router);
    assert_eq!(after.items.cursor(View::Router), cursor, "a follower can resume");
    for revision in 1..=4 {
        let revision = Revision::new(revision).unwrap();
        assert_eq!(after.items.chain(revision), before.items.chain(revision));
    }
    let again = running.commit.submit(repeatable()).await.unwrap();
    assert_eq!((again.answer, again.revision), (first.answer, first.revision));
    let history = History::new(database(&running.folder));
    let mut query = Query {
        head: cursor.revision,
        after: None,
        resource: None,
        actor: None,
        count: 10,
        bytes: usize::MAX,
    };
    let page = history.page(&query).await.unwrap();
    assert_eq!(
        (page.changes.len(), page.oldest),
        (0, None),
        "old values were not stored at that time"
    );

    running.commit.submit(delete("models/a")).await.unwrap();
    let restore = registry::RestoreRevisionRequest {
        revision: cursor.revision.get(),
        ..Default::default()
    };
    running.commit.submit(ParsedWrite::read(restore)).await.unwrap();
    let running = running.restart().await;
    assert_eq!(names(&running.commit.state()), ["a"]);
    query.head = running.commit.state().items.revision();
    let page = history.page(&query).await.unwrap();
    let listed: Vec<_> = page.changes.iter().map(|change| change.before.is_some()).collect();
    assert_eq!(listed, [false, true], "the restore, and the delete before it");
}

#[tokio::test]
async fn a_new_database_is_not_copied() {
    let folder = Running::start().await.stop().await.0;
    assert!(copies(&folder).is_empty());
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let folder = TempDir::new().unwrap();
    of_schema_1(&folder).await;
    tamper(&folder, "CREATE TABLE requests (in_the_way INTEGER)").await;
    let before = count(&folder, "SELECT SUM(length(sql)) FROM sqlite_schema").await;
    assert!(open(&database(&folder), Retention::default()).await.is_err());
    assert_eq!(
        count(&folder, "SELECT SUM(length(sql)) FROM sqlite_schema").await,
        before
    );
    assert_eq!(count(&folder, "SELECT MAX(version) FROM _sqlx_migrations").await, 1);
}

#[tokio::test]
async fn only_the_expected_store_is_opened() {
    let (folder, state) = Running::start().await.stop().await;
    let store = state.items.store();
    let is_other = |opened: Result<_, StoreError>| matches!(opened, Err(StoreError::OtherStore { .. }));
    assert!(Store::open_as(&database(&folder), Some(store)).await.is_ok());
    let other = switchboard::names::StoreId::random();
    assert!(is_other(
        Store::open_as(&database(&folder), Some(other)).await.map(drop)
    ));

    let empty = TempDir::new().unwrap();
    assert!(is_other(Store::open_as(&database(&empty), Some(store)).await.map(drop)));
    assert!(!database(&empty).exists(), "no database is created");
    std::fs::write(database(&empty), "").unwrap();
    assert!(is_other(Store::open_as(&database(&empty), Some(store)).await.map(drop)));
}
