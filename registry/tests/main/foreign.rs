//! Files that are not a registry's database: which ones a registry takes, and that it never changes the others.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{
    Running,
    commands::{database, done, execute, files, path, refused, stopped},
    registry,
};

/// `SwBd`: what a registry's database has as its application id.
const APPLICATION_ID: i32 = 0x5377_4264;

const OTHER_PROGRAM: &str = "is the SQLite database of another program";
const NOT_SQLITE: &str = "is not an SQLite database";

/// Creates a folder with a database that this SQL makes.
async fn made_by(sql: &'static str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    execute(&database(folder.path()), sql).await;
    folder
}

/// Creates a folder with these bytes as the database.
fn holding(bytes: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(database(folder.path()), bytes).unwrap();
    folder
}

/// Creates a folder with a database whose only table is in the log.
async fn with_table_in_log() -> TempDir {
    let (origin, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = SqliteConnectOptions::new()
        .filename(database(origin.path()))
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection
        .execute("PRAGMA journal_mode = WAL; CREATE TABLE bookmarks (url)")
        .await
        .unwrap();
    for name in ["switchboard.db", "switchboard.db-wal"] {
        fs::copy(origin.path().join(name), folder.path().join(name)).unwrap();
    }
    connection.close().await.unwrap();
    folder
}

async fn application_id(file: &Path) -> i32 {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let id = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    id
}

/// Returns the content of a folder without the index of a log, which every reader of a log creates.
fn content(folder: &Path) -> BTreeMap<String, u64> {
    let mut files = files(folder);
    files.retain(|name, _| !name.ends_with("-shm"));
    files
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_everywhere_and_not_changed() {
    let own = stopped().await;
    let (own, backup) = (own.path(), path(own.path(), "backup.db"));
    let before_own = content(own);
    for (case, folder, what) in [
        (
            "text",
            holding(&"text, and long enough for a header".repeat(20)),
            NOT_SQLITE,
        ),
        ("a byte", holding("S"), NOT_SQLITE),
        ("a table", made_by("CREATE TABLE store (a)").await, OTHER_PROGRAM),
        ("a table in the log", with_table_in_log().await, OTHER_PROGRAM),
        ("an id", made_by("PRAGMA application_id = 7").await, OTHER_PROGRAM),
        (
            "other migrations",
            made_by(
                "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, checksum BLOB);
                 INSERT INTO _sqlx_migrations VALUES (1, x'00')",
            )
            .await,
            OTHER_PROGRAM,
        ),
        (
            "another table of migrations",
            made_by("CREATE TABLE _sqlx_migrations (a)").await,
            OTHER_PROGRAM,
        ),
    ] {
        let folder = folder.path();
        let (before, file) = (content(folder), path(folder, "switchboard.db"));
        let output = registry(&database(folder)).output().unwrap();
        let log = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{case}: {log}");
        assert!(log.contains(&file) && log.contains(what), "{case}: {log}");
        assert_eq!(content(folder), before, "{case}");
        assert!(!folder.join("switchboard.db.lock").exists(), "{case}");

        let mut all = vec![
            vec!["verify"],
            vec!["backup", "copy"],
            vec!["accept-history"],
            vec!["accept-history", "--dry-run"],
        ];
        // A file that is not a database may be a damaged one, which a restore does replace.
        if what == OTHER_PROGRAM {
            all.push(vec!["restore", "--above=0,0", &backup]);
        }
        for args in all {
            let (code, error) = refused(folder, &args);
            assert_eq!(code, Some(3), "{case} {args:?}: {error}");
            assert!(
                error.contains(&file) && error.contains(what),
                "{case} {args:?}: {error}"
            );
            assert_eq!(content(folder), before, "{case} {args:?}");
        }
        let (code, error) = refused(own, &["restore", &file]);
        assert_eq!(code, Some(3), "{case}: {error}");
        assert!(error.contains(&file) && error.contains(what), "{case}: {error}");
        assert_eq!(content(folder), before, "{case}");
        // The log of the own database is moved into the file.
        assert_eq!(content(own).get("backup.db"), before_own.get("backup.db"));
    }
}

#[tokio::test]
async fn an_empty_file_or_database_is_taken_but_is_not_a_backup() {
    let own = stopped().await;
    for folder in [
        holding(""),
        made_by("CREATE TABLE a (a); DROP TABLE a; PRAGMA journal_mode = WAL").await,
    ] {
        let folder = folder.path();
        let file = path(folder, "switchboard.db");
        for args in [&["verify"][..], &["backup", "copy"], &["accept-history"]] {
            let (code, error) = refused(folder, args);
            assert_eq!(code, Some(3), "{args:?}: {error}");
            assert!(error.contains(&format!("`{file}` is empty")), "{args:?}: {error}");
        }
        let (code, error) = refused(own.path(), &["restore", &file]);
        assert_eq!(code, Some(3), "{error}");
        assert!(error.contains(&format!("`{file}` is empty")), "{error}");

        drop(Running::start(folder).await);
        assert!(done(folder, &["verify"]).contains("revision 1"));
        assert_eq!(application_id(&database(folder)).await, APPLICATION_ID);
    }
}

#[tokio::test]
async fn an_empty_database_is_replaced_by_a_backup() {
    let (own, empty) = (stopped().await, holding(""));
    done(empty.path(), &["restore", &path(own.path(), "backup.db")]);
    assert!(done(empty.path(), &["verify"]).contains("incarnation 2 ("));
}

#[tokio::test]
async fn a_database_of_an_earlier_release_gets_the_application_id() {
    let folder = stopped().await;
    let folder = folder.path();
    let (own, backup): (PathBuf, PathBuf) = (database(folder), folder.join("backup.db"));
    assert_eq!(application_id(&backup).await, APPLICATION_ID);
    let unset = "PRAGMA application_id = 0";
    execute(&own, unset).await;

    done(folder, &["backup", "--force", &path(folder, "backup.db")]);
    assert_eq!(application_id(&backup).await, APPLICATION_ID, "backups have it");
    assert_eq!(application_id(&own).await, 0, "a backup does not change the database");
    drop(Running::start(folder).await);
    assert_eq!(application_id(&own).await, APPLICATION_ID, "set at the next start");

    execute(&backup, unset).await;
    done(folder, &["restore", &path(folder, "backup.db")]);
    assert_eq!(application_id(&own).await, APPLICATION_ID, "set by a restore");
}
