//! The errors of the database.

use std::{
    io,
    path::{Path, PathBuf},
};

use sqlx::migrate::MigrateError;
use switchboard::names::StoreId;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address does not name a database file.
    #[error("`{0}` is not a database address; write `sqlite://` and the path of a file")]
    Address(String),
    /// Another registry runs on the same file.
    #[error("another registry holds `{}`; stop it, or choose another database", .0.display())]
    Locked(PathBuf),
    /// A file could not be opened, created, locked or changed.
    #[error("could not access `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The SQLite library of this build is too old to be safe.
    #[error("SQLite {0} is too old: 3.51.3 or newer is needed, since older ones can damage a database in WAL mode")]
    SqliteTooOld(String),
    /// The database was written by a newer registry.
    #[error("the database has schema {0}, which is newer than this program; start the newer one")]
    SchemaTooNew(i64),
    /// The database was written by an older registry.
    #[error(
        "the database has schema {0}, which is older than this program: start the registry on it once, or use the older \
         program"
    )]
    SchemaTooOld(i64),
    /// The file has no content.
    #[error("`{}` is empty: it holds no configuration of a registry", .0.display())]
    Empty(PathBuf),
    /// The file does not begin like an SQLite file.
    #[error(
        "`{}` is not an SQLite database: name the registry's database, or restore it from a backup if it is damaged",
        .0.display()
    )]
    NotSqlite(PathBuf),
    /// The file belongs to another program.
    #[error("`{}` is the SQLite database of another program: name the registry's database, or a new file", .0.display())]
    Foreign(PathBuf),
    /// A process other than a registry has the database open.
    #[error("another process has `{}` open", .0.display())]
    InUse(PathBuf),
    /// The schema could not be brought up to date.
    #[error("could not migrate the database")]
    Migrate(#[source] MigrateError),
    /// The operating system cannot provide random numbers.
    #[error("the system's random source does not work")]
    NoRandomSource,
    /// The database does not belong to the expected store.
    #[error("this is not store {expected}: {found}; check that the right volume is mounted")]
    OtherStore {
        /// The expected store.
        expected: StoreId,
        /// Description of what was found instead.
        found: String,
    },
    /// Another process reads the write-ahead log, which therefore cannot be emptied.
    #[error("the log cannot be written into the database file: another program is reading the log")]
    CheckpointHeld,
    /// The database was closed after a failure, and could not be opened again yet.
    #[error("the database is not open")]
    Closed,
    /// The content of the file contradicts itself.
    #[error("the database is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// A statement failed.
    #[error("could not {during}")]
    Sql {
        /// Purpose of the statement, as a verb phrase.
        during: &'static str,
        /// Kind of the failure.
        kind: Kind,
        /// The cause.
        source: sqlx::Error,
    },
}

/// Kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The disk is full.
    Full,
    /// Another process holds the database.
    Busy,
    /// The file is damaged, or is not a registry's database.
    Corrupt,
    /// The file cannot be written.
    ReadOnly,
    /// The disk failed.
    Io,
    /// Anything else.
    Other,
}

impl StoreError {
    pub(super) fn sql(during: &'static str, source: sqlx::Error) -> Self {
        let kind = Kind::of(&source);
        Self::Sql { during, kind, source }
    }

    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// Reports SQLite's generic error as damage: the statements fit the schema, so the schema in the file must have
    /// been altered.
    pub(super) fn of_schema(self) -> Self {
        match self {
            Self::Sql {
                kind: Kind::Other,
                during,
                source,
            } if code(&source) == Some(1) => Self::damaged(format!("could not {during}: {source}")),
            other => other,
        }
    }

    /// Names the file itself, if a copy of it was examined and is not a registry's database.
    pub(crate) fn of_original(self, original: &Path) -> Self {
        match self {
            Self::Empty(_) => Self::Empty(original.to_owned()),
            Self::NotSqlite(_) => Self::NotSqlite(original.to_owned()),
            Self::Foreign(_) => Self::Foreign(original.to_owned()),
            other => other,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    /// Returns the kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sql { kind, .. } => *kind,
            Self::Damaged(_) | Self::Empty(_) | Self::NotSqlite(_) | Self::Foreign(_) => Kind::Corrupt,
            Self::Locked(_) | Self::InUse(_) | Self::CheckpointHeld => Kind::Busy,
            Self::Closed => Kind::Io,
            Self::Address(_)
            | Self::OtherStore { .. }
            | Self::File { .. }
            | Self::SqliteTooOld(_)
            | Self::SchemaTooNew(_)
            | Self::SchemaTooOld(_)
            | Self::Migrate(_)
            | Self::NoRandomSource => Kind::Other,
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::SchemaTooNew(version),
            MigrateError::VersionMismatch(version) => {
                Self::damaged(format!("its schema {version} differs from the one of this program"))
            }
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                Self::sql("migrate the database", source)
            }
            other => Self::Migrate(other),
        }
    }
}

impl Kind {
    fn of(error: &sqlx::Error) -> Self {
        match error {
            // The queries fit the schema, so the stored values must be wrong.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => Self::Corrupt,
            other => Self::of_code(code(other).unwrap_or_default()),
        }
    }

    /// Classifies a result code of SQLite. Its low byte is the kind; the higher bytes only add detail.
    const fn of_code(code: i32) -> Self {
        match code & 0xff {
            5 | 6 => Self::Busy,
            8 => Self::ReadOnly,
            10 => Self::Io,
            11 | 26 => Self::Corrupt,
            13 => Self::Full,
            _ => Self::Other,
        }
    }
}

/// Returns SQLite's extended result code.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes_are_classified_by_their_low_byte() {
        for (code, kind) in [
            (5, Kind::Busy),
            (261, Kind::Busy),
            (6, Kind::Busy),
            (13, Kind::Full),
            (11, Kind::Corrupt),
            (26, Kind::Corrupt),
            (8, Kind::ReadOnly),
            (1032, Kind::ReadOnly),
            (10, Kind::Io),
            (1034, Kind::Io),
            (2067, Kind::Other),
            (0, Kind::Other),
        ] {
            assert_eq!(Kind::of_code(code), kind, "{code}");
        }
    }
}
