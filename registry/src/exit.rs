//! Exit codes that say more than that something failed: the same of a registry that cannot start and of every command.

use crate::store::Kind;

/// The database, or a backup, is damaged.
pub const DAMAGED: u8 = 3;

/// A registry, or another process, has the database.
pub const IN_USE: u8 = 4;

/// The exit code of a failure of this kind. `None`: it has none of its own.
#[must_use]
pub const fn code_of(kind: Kind) -> Option<u8> {
    match kind {
        Kind::Corrupt => Some(DAMAGED),
        Kind::Busy => Some(IN_USE),
        Kind::Full | Kind::ReadOnly | Kind::Io | Kind::Other => None,
    }
}
