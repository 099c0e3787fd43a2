//! The subcommands that work on the database file: their output, what they change, and what they leave unchanged.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, sqlite::SqliteConnectOptions};
use switchboard::pb::registry::{
    CreateModelRequest, Model, Settings, UpdateSettingsRequest, model_service_client::ModelServiceClient,
    settings_service_client::SettingsServiceClient,
};
use tempfile::TempDir;

use super::Running;

/// Runs a subcommand on the database in a folder.
pub(super) fn command(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchboard-registry"))
        .args(args)
        .arg(format!("--database-url=sqlite://{}", database(folder).display()))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs a subcommand that must succeed, and returns its output, which must be one line.
pub(super) fn done(folder: &Path, args: &[&str]) -> String {
    let output = command(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

/// Runs a subcommand that must fail, and returns its exit code and its only error line.
pub(super) fn refused(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = command(folder, args);
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = *errors else {
        panic!("{args:?}: {told}");
    };
    (output.status.code(), error.to_owned())
}

pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("switchboard.db")
}

pub(super) fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// Returns a hash of the content of every file in a folder, except lock files, which are empty.
pub(super) fn files(folder: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named
        .filter(|(name, path)| path.is_file() && !name.ends_with(".lock"))
        .map(|(name, path)| {
            let mut hasher = DefaultHasher::new();
            fs::read(path).unwrap().hash(&mut hasher);
            (name, hasher.finish())
        })
        .collect()
}

async fn switch_beta(folder: &Path, times: usize) {
    let mut settings = SettingsServiceClient::new(Running::channel(folder));
    for number in 0..times {
        let changed = Settings {
            beta_enabled: Some(number % 2 == 0),
            ..Default::default()
        };
        let request = UpdateSettingsRequest {
            settings: Some(changed),
            ..Default::default()
        };
        settings.update_settings(request).await.unwrap();
    }
}

async fn create_model(folder: &Path) {
    let model = Model {
        display_name: Some("A".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        api_token: Some("canary-9d2e".to_owned()),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let mut models = ModelServiceClient::new(Running::channel(folder));
    models.create_model(request).await.unwrap();
}

/// Creates a folder with a database of 12 revisions that no registry has open, and a backup of its revision 2.
pub(super) async fn stopped() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path()).await;
    create_model(folder.path()).await;
    done(folder.path(), &["backup", &path(folder.path(), "backup.db")]);
    switch_beta(folder.path(), 10).await;
    drop(running);
    folder
}

pub(super) async fn execute(file: &Path, sql: &'static str) {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_running_registry_is_readable_only_by_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _running = Running::start(folder).await;
    create_model(folder).await;
    let file = folder.join("backup.db");
    let told = done(folder, &["backup", &path(folder, "backup.db")]);
    assert!(told.contains("incarnation 1") && told.contains("revision 2"), "{told}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&file).unwrap();

    switch_beta(folder, 1).await;
    let (code, error) = refused(folder, &["backup", &path(folder, "backup.db")]);
    assert_eq!(code, Some(1));
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let told = done(folder, &["backup", "--force", &path(folder, "backup.db")]);
    assert!(told.contains("revision 3"), "{told}");

    let told = done(folder, &["verify", &path(folder, "backup.db")]);
    assert!(told.contains("is whole") && told.contains("1 API tokens"), "{told}");
    assert!(!told.contains("canary"), "{told}");
    assert!(
        files(folder)
            .keys()
            .all(|name| !name.contains("partial") && !name.starts_with("backup.db-"))
    );
}

#[tokio::test]
async fn verify_changes_nothing_and_works_while_a_registry_runs() {
    let folder = stopped().await;
    let folder = folder.path();
    // The registry was killed as in a power cut, so that the last writes are only in the log.
    assert!(folder.join("switchboard.db-wal").exists());
    assert!(done(folder, &["verify"]).contains("revision 12"));
    let link = path(folder, "link.db");
    symlink(database(folder), &link).unwrap();
    assert!(done(folder, &["verify", &link]).contains("revision 12"));
    fs::remove_file(link).unwrap();

    let running = Running::start(folder).await;
    assert!(done(folder, &["verify"]).contains("revision 12"));
    drop(running);
    execute(&database(folder), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let before = files(folder);
    assert!(!before.contains_key("switchboard.db-wal"));
    done(folder, &["verify"]);
    done(folder, &["verify", &path(folder, "backup.db")]);
    assert_eq!(files(folder), before);
    let (code, error) = refused(folder, &["verify", "/nowhere/to/be/found.db"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("/nowhere/to/be/found.db"), "{error}");
}

#[tokio::test]
async fn damage_is_detected_and_has_its_own_exit_code() {
    for sql in [
        "UPDATE resources SET value = x'00' WHERE name = 'settings'",
        "UPDATE credentials SET credential_id = '00000000000000000000000000000000'",
        "UPDATE revisions SET chain = zeroblob(32) WHERE revision = 2",
        "DELETE FROM changes WHERE revision = 2",
        "DELETE FROM store",
    ] {
        let folder = stopped().await;
        let (folder, backup) = (folder.path(), folder.path().join("backup.db"));
        execute(&backup, sql).await;
        let (code, error) = refused(folder, &["verify", &path(folder, "backup.db")]);
        assert_eq!(code, Some(3), "{sql}: {error}");
        let before = files(folder);
        let (code, error) = refused(folder, &["restore", &path(folder, "backup.db")]);
        assert_eq!(code, Some(3), "{sql}: {error}");
        // The only permitted change is a checkpoint of the database's log.
        let is_left = |name: &String| name.contains("restoring") || name.contains("replaced");
        assert!(!files(folder).keys().any(is_left), "{sql}");
        assert_eq!(files(folder).get("backup.db"), before.get("backup.db"));
    }
}

#[tokio::test]
async fn a_flipped_bit_is_detected_or_has_no_effect() {
    let folder = stopped().await;
    let (folder, flipped) = (folder.path(), folder.path().join("flipped.db"));
    let (whole, mut found) = (fs::read(folder.join("backup.db")).unwrap(), 0);
    let told = |name| done(folder, &["verify", &path(folder, name)]).replace(name, "");
    let expected = told("backup.db");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..100 {
        let mut bytes = whole.clone();
        bytes[random.usize(..whole.len())] ^= 1 << random.u8(..8);
        fs::write(&flipped, &bytes).unwrap();
        let output = command(folder, &["verify", &path(folder, "flipped.db")]);
        match output.status.code() {
            Some(0) => assert_eq!(
                String::from_utf8(output.stdout).unwrap().replace("flipped.db", ""),
                expected
            ),
            Some(1 | 3) => found += 1,
            other => panic!("{other:?}: {output:?}"),
        }
    }
    assert!(found > 5, "{found} of 100");
}

#[tokio::test]
async fn a_file_that_is_not_a_backup_is_refused_and_changes_nothing() {
    let folder = stopped().await;
    let folder = folder.path();
    execute(&database(folder), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let whole = fs::read(folder.join("backup.db")).unwrap();
    fs::write(
        folder.join("junk"),
        "this is no database, however long it may go on".repeat(50),
    )
    .unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    fs::write(folder.join("truncated"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("newer"), &whole).unwrap();
    execute(
        &folder.join("newer"),
        "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time
         FROM _sqlx_migrations LIMIT 1",
    )
    .await;
    execute(
        &folder.join("other"),
        "CREATE TABLE store (a); PRAGMA journal_mode = DELETE",
    )
    .await;
    let before = files(folder);
    for (name, code, what) in [
        ("junk", 3, ""),
        ("empty", 3, "holds no configuration"),
        ("truncated", 3, ""),
        ("newer", 1, "9999"),
        ("other", 3, "of another program"),
        ("missing", 1, "missing"),
        ("switchboard.db", 1, "is the database itself"),
    ] {
        let (exit, error) = refused(folder, &["restore", &path(folder, name)]);
        assert_eq!(exit, Some(code), "{name}: {error}");
        assert!(error.contains(what), "{name}: {error}");
        assert_eq!(files(folder), before, "{name}");
    }
}

#[tokio::test]
async fn each_restore_begins_an_incarnation_above_all_known_ones() {
    let folder = stopped().await;
    let folder = folder.path();
    let backup = path(folder, "backup.db");
    let told = done(folder, &["restore", &backup]);
    assert!(
        told.contains("incarnation 2 (") && told.contains("revision 13"),
        "{told}"
    );
    let again = done(folder, &["restore", &backup]);
    assert!(
        again.contains("incarnation 3 (") && again.contains("revision 14"),
        "{again}"
    );
    let above = done(folder, &["restore", "--above=7,500", &backup]);
    assert!(
        above.contains("incarnation 8 (") && above.contains("revision 501"),
        "{above}"
    );
    assert!(done(folder, &["verify"]).contains("revision 501"));

    let replaced: Vec<String> = files(folder)
        .into_keys()
        .filter(|name| name.contains(".replaced-"))
        .collect();
    assert_eq!(replaced.len(), 3);
    assert!(
        done(folder, &["verify", &path(folder, &replaced[0])]).contains("revision 12"),
        "the replaced database is kept and is valid"
    );
    assert!(files(folder).keys().all(|name| !name.contains("restoring")));
    assert_eq!(
        fs::metadata(database(folder)).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let _running = Running::start(folder).await;
}

#[tokio::test]
async fn an_unreadable_database_is_replaced_only_with_an_explicit_above() {
    let folder = stopped().await;
    let folder = folder.path();
    let backup = path(folder, "backup.db");
    for name in ["switchboard.db", "switchboard.db-wal"] {
        fs::write(folder.join(name), "no database any more").unwrap();
    }
    let before = files(folder);
    let (code, error) = refused(folder, &["restore", &backup]);
    assert_eq!(code, Some(1));
    assert!(error.contains("--above"), "{error}");
    assert_eq!(files(folder), before);

    let told = done(folder, &["restore", "--above=4,90", &backup]);
    assert!(
        told.contains("incarnation 5 (") && told.contains("revision 91"),
        "{told}"
    );
    // The log of the damaged file stays with it, and is not applied to the new file.
    assert!(!folder.join("switchboard.db-wal").exists());
    assert!(
        files(folder)
            .keys()
            .any(|name| name.contains(".replaced-") && name.ends_with("-wal"))
    );
    assert!(done(folder, &["verify"]).contains("revision 91"));
}

#[tokio::test]
async fn a_lost_database_is_restored_without_its_leftover_log() {
    let folder = stopped().await;
    let folder = folder.path();
    fs::remove_file(database(folder)).unwrap();
    assert!(folder.join("switchboard.db-wal").exists());
    let told = done(folder, &["restore", &path(folder, "backup.db")]);
    assert!(told.contains("revision 3") && told.contains("accept-history"), "{told}");
    assert!(!folder.join("switchboard.db-wal").exists());
    assert!(done(folder, &["verify"]).contains("revision 3"));
}

#[tokio::test]
async fn the_database_of_a_running_registry_is_not_replaced() {
    let folder = stopped().await;
    let folder = folder.path();
    let _running = Running::start(folder).await;
    let (code, error) = refused(folder, &["restore", &path(folder, "backup.db")]);
    assert_eq!(code, Some(4));
    assert!(error.contains("stop it"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, _) = refused(elsewhere.path(), &["restore", &path(folder, "switchboard.db")]);
    assert_eq!(
        code,
        Some(4),
        "the file of a running registry is not accepted as a backup"
    );
}

#[tokio::test]
async fn accept_history_works_with_and_without_a_running_registry() {
    let folder = stopped().await;
    let folder = folder.path();
    execute(&database(folder), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let before = files(folder);
    let told = done(folder, &["accept-history", "--dry-run", "--above=1,20"]);
    assert!(
        told.contains("nothing was changed") && told.contains("no registry is running"),
        "{told}"
    );
    assert!(
        told.contains("incarnation 1 (") && told.contains("revision 12 would become"),
        "{told}"
    );
    assert!(told.contains("incarnation 2, from revision 21 on"), "{told}");
    assert_eq!(files(folder), before);
    let told = done(folder, &["accept-history"]);
    assert!(
        told.contains("next start") && told.contains("incarnation 2 ("),
        "{told}"
    );
    assert!(told.contains("revision 13"), "{told}");

    let running = Running::start(folder).await;
    let socket = folder.join("switchboard.db.control");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let store = "0123456789abcdef0123456789abcdef";
    let told = done(
        folder,
        &["accept-history", "--dry-run", "--above=5,100", "--adopt-store", store],
    );
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(
        told.contains("incarnation 2 (") && told.contains("revision 13 would become"),
        "{told}"
    );
    let would = format!("store {store}, incarnation 6, from revision 101 on; no router");
    assert!(told.contains(&would), "{told}");
    assert!(
        done(folder, &["verify"]).contains("incarnation 2 ("),
        "the running registry did not do it"
    );
    let told = done(folder, &["accept-history", "--above=5,100", "--adopt-store", store]);
    assert!(
        told.contains("running registry") && told.contains("incarnation 6 ("),
        "{told}"
    );
    assert!(told.contains(store) && told.contains("revision 101"), "{told}");
    switch_beta(folder, 2).await;
    drop(running);
    assert!(done(folder, &["verify"]).contains("revision 103"));

    let nowhere = tempfile::tempdir().unwrap();
    let (code, error) = refused(nowhere.path(), &["accept-history"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("there is no database"), "{error}");
    assert!(files(nowhere.path()).is_empty());
}

#[tokio::test]
async fn a_backup_under_load_has_the_state_of_one_revision() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, backup) = (folder.path(), folder.path().join("backup.db"));
    let _running = Running::start(folder).await;
    create_model(folder).await;
    let args = ["backup".to_owned(), "--force".to_owned(), path(folder, "backup.db")];
    for _ in 0..5 {
        let (own, args) = (folder.to_owned(), args.clone());
        let taking = tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            done(&own, &args)
        });
        while !taking.is_finished() {
            switch_beta(folder, 4).await;
        }
        let told = taking.await.unwrap();
        let revision = told.rsplit("revision ").next().unwrap().trim().parse::<i64>().unwrap();
        let query = "SELECT chain || router_state FROM revisions WHERE revision = ?";
        let mut states = Vec::new();
        for file in [&backup, &database(folder)] {
            let options = SqliteConnectOptions::new().filename(file).read_only(true);
            let mut connection = options.connect().await.unwrap();
            let state: Vec<u8> = sqlx::query_scalar(query)
                .bind(revision)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            states.push(state);
            connection.close().await.unwrap();
        }
        assert_eq!(states[0], states[1], "revision {revision}");
        done(folder, &["verify", &path(folder, "backup.db")]);
    }
}
