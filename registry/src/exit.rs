//! Exit codes for specific kinds of failure, shared by a registry that cannot start and by every command.

use crate::store::Kind;

/// The database, or a backup, is damaged, or is not a registry's database.
pub const DAMAGED: u8 = 3;

/// A registry or another process holds the database.
pub const IN_USE: u8 = 4;

/// Returns the exit code for a failure of this kind. `None`: the kind has no exit code of its own.
#[must_use]
pub const fn code_of(kind: Kind) -> Option<u8> {
    match kind {
        Kind::Corrupt => Some(DAMAGED),
        Kind::Busy => Some(IN_USE),
        Kind::Full | Kind::ReadOnly | Kind::Io | Kind::Other => None,
    }
}
