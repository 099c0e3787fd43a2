//! What can be wrong with the database.

use std::{
    io,
    path::{Path, PathBuf},
};

use sqlx::migrate::MigrateError;
use switchboard::names::StoreId;

/// What is wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is not one of a database file.
    #[error("`{0}` is no database address; write `sqlite://` and the path of a file")]
    Address(String),
    /// Another registry runs on the same file.
    #[error("another registry holds `{}`; stop it, or choose another database", .0.display())]
    Locked(PathBuf),
    /// A file could not be opened, made or locked.
    #[error("open `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The SQLite of this build is too old to be trusted.
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
    /// The file is no database of a registry.
    #[error("`{}` holds no configuration of a registry", .0.display())]
    Foreign(PathBuf),
    /// Another process, not a registry, has the database open.
    #[error("another process has `{}` open", .0.display())]
    InUse(PathBuf),
    /// The schema could not be brought up to date.
    #[error("migrate the database")]
    Migrate(#[source] MigrateError),
    /// The system has no random numbers to give.
    #[error("the system's random source does not work")]
    NoRandomSource,
    /// The database is not that of the store which was asked for.
    #[error("this is not store {expected}: {found}; check that the right volume is mounted")]
    OtherStore {
        /// The store that was asked for.
        expected: StoreId,
        /// What is there.
        found: String,
    },
    /// Somebody reads from the log, which therefore cannot be emptied.
    #[error("the log cannot be written into the database: another program reads it")]
    CheckpointHeld,
    /// The storage was let go of after a failure, and could not be opened again yet.
    #[error("the database is not open")]
    Closed,
    /// The file's contents contradict themselves.
    #[error("the database is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// A statement failed.
    #[error("{during}")]
    Sql {
        /// What the statement was for.
        during: &'static str,
        /// What kind of failure it was.
        kind: Kind,
        /// The cause.
        source: sqlx::Error,
    },
}

/// Kinds of failure that callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The disk is full.
    Full,
    /// Somebody else holds the database.
    Busy,
    /// The file is damaged.
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

    /// What stands in the file makes a statement fail that fits the schema: the schema is no longer what it was.
    pub(super) fn of_schema(self) -> Self {
        match self {
            Self::Sql {
                kind: Kind::Other,
                during,
                source,
            } if code(&source) == Some(1) => Self::damaged(format!("{during}: {source}")),
            other => other,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Sql { kind, .. } => *kind,
            Self::Damaged(_) | Self::Foreign(_) => Kind::Corrupt,
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
                Self::damaged(format!("its schema {version} is not the one of this program"))
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
            // The queries fit the schema: it is what they read that does not.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => Self::Corrupt,
            other => Self::of_code(code(other).unwrap_or_default()),
        }
    }

    /// SQLite's result code: its low byte is the kind, the rest tells it more exactly.
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

/// SQLite's extended result code.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_codes_are_told_apart_by_their_low_byte() {
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
