//! Databases of older schemas, and of other stores.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::migrate::Migrator;

use super::*;

static MIGRATOR: Migrator = sqlx::migrate!();

/// A database as the first release left it: empty.
async fn of_schema_1(folder: &TempDir) {
    let options = SqliteConnectOptions::new()
        .filename(database(folder))
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    MIGRATOR.run_to(1, &mut connection).await.unwrap();
    connection.close().await.unwrap();
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
        "once, and none is lost"
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
    assert_eq!(schema, 1, "as it was");
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
async fn only_the_store_that_was_asked_for_is_opened() {
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
    assert!(!database(&empty).exists(), "none is made");
    std::fs::write(database(&empty), "").unwrap();
    assert!(is_other(Store::open_as(&database(&empty), Some(store)).await.map(drop)));
}
