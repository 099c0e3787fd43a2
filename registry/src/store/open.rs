//! Opens the database: takes the lock, opens the file, applies settings and migrations, and checks that the content is
//! whole.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::rand;
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use switchboard::{
    history::Incarnation,
    names::{IncarnationId, StoreId},
};

use super::{
    Head, Kind, Loaded, Store, StoreError, WriteFailure, copy,
    file::{create_private, take_lock},
    load,
    owner::{self, Content},
    rows,
};

pub(super) static MIGRATOR: Migrator = sqlx::migrate!();

/// Older versions can damage the database when they reset the write-ahead log.
const SQLITE_MIN: [u32; 3] = [3, 51, 3];

/// How long a write waits for another process that holds the database. Shorter than callers wait.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the file that a database address such as `sqlite://switchboard.db` names.
///
/// # Errors
///
/// [`StoreError::Address`] for any other address. This includes a database in memory, which would lose the
/// configuration.
pub fn path_of(address: &str) -> Result<PathBuf, StoreError> {
    let path = address
        .strip_prefix("sqlite://")
        .or_else(|| address.strip_prefix("sqlite:"))
        .filter(|path| !path.is_empty() && !path.starts_with(':') && !path.contains('?'));
    path.map(PathBuf::from)
        .ok_or_else(|| StoreError::Address(address.to_owned()))
}

impl Store {
    /// Opens the database at `path`, or creates it if it does not exist, and reads its content.
    ///
    /// # Errors
    ///
    /// Same as [`Store::open_as`].
    pub async fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        Self::open_as(path, None).await
    }

    /// Like [`Store::open`], but if `expected` is set, the database must exist and belong to that store.
    ///
    /// A database of an older schema is copied before it is migrated.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be opened, another registry holds it, its schema is newer than this
    /// program, it belongs to another store or another program, or it is damaged.
    pub async fn open_as(path: &Path, expected: Option<StoreId>) -> Result<(Self, Loaded), StoreError> {
        // Before the lock, whose file must not be left next to a file of another program.
        let is_new = !path.exists() || owner::examine(path).await? == Content::Nothing;
        if let Some(expected) = expected
            && is_new
        {
            let found = format!("there is no database at `{}`", path.display());
            return Err(StoreError::OtherStore { expected, found });
        }
        create_private(path)?;
        // A file has one lock, even if different paths lead to the file.
        let path = path.canonicalize().map_err(|source| StoreError::file(path, source))?;
        let lock = take_lock(&path)?;
        let mut connection = connect(&path).await?;
        let loaded = match read(&mut connection, &path, expected).await {
            Ok(loaded) => loaded,
            Err(error) => {
                if error.kind() == Kind::Corrupt {
                    leave(connection);
                }
                return Err(error);
            }
        };
        let store = Self {
            path,
            connection: Some(connection),
            head: Head::of(&loaded),
            is_damaged: false,
            _lock: lock,
        };
        Ok((store, loaded))
    }
}

async fn read(connection: &mut SqliteConnection, path: &Path, expected: Option<StoreId>) -> Result<Loaded, StoreError> {
    check_sqlite(connection).await?;
    quick_check(connection).await?;
    if let Some(expected) = expected {
        check_store(connection, expected).await.map_err(StoreError::of_schema)?;
    }
    migrate(connection, path).await.map_err(StoreError::of_schema)?;
    introduce(connection).await.map_err(StoreError::of_schema)?;
    load::load(connection).await.map_err(StoreError::of_schema)
}

/// Sets the application id and runs all missing migrations, or does nothing.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let newest = MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default();
    if schema(connection).await?.is_some_and(|schema| schema < newest) {
        copy::before_schema(connection, path, newest).await?;
    }
    let failed = |error| StoreError::sql("migrate the database", error);
    let mut transaction = connection.begin().await.map_err(failed)?;
    owner::stamp(&mut transaction).await?;
    MIGRATOR.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await.map_err(failed)
}

/// Returns the newest migration that the database has received. `None`: the database is new.
async fn schema(connection: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    let failed = |error| StoreError::sql("read the schema", error);
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if tables == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(failed)
}

async fn check_store(connection: &mut SqliteConnection, expected: StoreId) -> Result<(), StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT store_id FROM store")
        .fetch_optional(connection)
        .await
        .map_err(|error| StoreError::sql("read the store's id", error))?;
    match found {
        Some(found) if found == expected.to_string() => Ok(()),
        Some(found) => Err(StoreError::OtherStore {
            expected,
            found: format!("the database is that of store {found}"),
        }),
        None => Err(StoreError::OtherStore {
            expected,
            found: "the database is empty".to_owned(),
        }),
    }
}

/// Writes the whole log into the database file, checks that writing works, and reads everything.
pub(super) async fn read_durable(connection: &mut SqliteConnection) -> Result<Loaded, StoreError> {
    let failed = |error| StoreError::sql("write the write-ahead log into the database", error);
    let checkpoint: SqliteRow = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let is_held: i64 = checkpoint.try_get(0).map_err(failed)?;
    if is_held != 0 {
        return Err(StoreError::CheckpointHeld);
    }
    match super::transact(connection, rows::touch).await {
        Ok(()) => load::load(connection).await,
        Err(WriteFailure::RolledBack(error) | WriteFailure::OutcomeUnknown(error)) => Err(error),
        Err(WriteFailure::ForeignWriter(revision)) => {
            Err(StoreError::damaged(format!("revision {revision} is missing")))
        }
    }
}

/// Abandons a damaged database without touching it: closing it properly would write to it.
#[expect(
    clippy::mem_forget,
    reason = "dropping the connection would close it; the process is about to end"
)]
pub(super) fn leave(connection: SqliteConnection) {
    std::mem::forget(connection);
}

pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        // A revision that was announced must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .connect()
        .await
        .map_err(|error| StoreError::sql("open the database", error))
}

async fn check_sqlite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sql("read the version of SQLite", error))?;
    if is_new_enough(&version) {
        Ok(())
    } else {
        Err(StoreError::SqliteTooOld(version))
    }
}

fn is_new_enough(version: &str) -> bool {
    let parts: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    parts.is_ok_and(|parts| parts.as_slice() >= SQLITE_MIN.as_slice())
}

pub(super) async fn quick_check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_all(connection)
        .await
        .map_err(|error| StoreError::sql("check the database", error))?;
    match found.first().map(String::as_str) {
        Some("ok") => Ok(()),
        Some(problem) => Err(StoreError::damaged(problem)),
        None => Err(StoreError::damaged("the check returned no result")),
    }
}

/// Gives a new database its ids, and adds a key for request ids to a database from before requests could be repeated.
async fn introduce(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let store = StoreId::random().to_string();
    let incarnation = Incarnation {
        number: 1,
        id: IncarnationId::random(),
    };
    let id = incarnation.id.to_string();
    let key = random_key()?;
    let key = key.as_slice();
    sqlx::query!(
        "INSERT INTO store (singleton, store_id, incarnation_number, incarnation_id, request_key)
         VALUES (1, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET request_key = excluded.request_key WHERE request_key IS NULL",
        store,
        incarnation.number,
        id,
        key
    )
    .execute(connection)
    .await
    .map_err(|error| StoreError::sql("write the store's id", error))?;
    Ok(())
}

fn random_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_unspecified| StoreError::NoRandomSource)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_file() {
        for (address, path) in [
            ("sqlite://switchboard.db", "switchboard.db"),
            ("sqlite:///var/lib/switchboard.db", "/var/lib/switchboard.db"),
            ("sqlite:x.db", "x.db"),
        ] {
            assert_eq!(path_of(address).unwrap(), PathBuf::from(path));
        }
        for bad in [
            "",
            "sqlite://",
            "sqlite::memory:",
            "sqlite://:memory:",
            "postgres://h/db",
            "sqlite://a?mode=ro",
        ] {
            assert!(matches!(path_of(bad), Err(StoreError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn an_old_sqlite_is_recognized_by_its_version() {
        for (version, is_enough) in [
            ("3.51.3", true),
            ("3.52.0", true),
            ("4.0.0", true),
            ("3.51.2", false),
            ("3.9.99", false),
            ("new", false),
        ] {
            assert_eq!(is_new_enough(version), is_enough, "{version}");
        }
    }
}
