//! Replaces one database file with another, so that a whole file exists at every moment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    StoreError,
    file::{companion, remove, sync},
};

/// Replaces `database` with `new`, a closed database without a log. Returns the path where the replaced file is kept,
/// or `None` if there was no file.
///
/// The replaced database must have no log, unless the database is unusable. A log is kept under the new name of its
/// file, because SQLite would apply it to the new database otherwise.
///
/// # Errors
///
/// [`StoreError::File`] names the file. Until the last step, which is atomic, the old file stays in place.
pub fn swap_in(new: &Path, database: &Path) -> Result<Option<PathBuf>, StoreError> {
    sync(new)?;
    let kept = keep(database)?;
    let log = companion(database, "-wal");
    if log.exists() {
        let aside = match &kept {
            Some(kept) => companion(kept, "-wal"),
            None => companion(database, ".replaced-wal"),
        };
        fs::rename(&log, aside).map_err(|source| StoreError::file(&log, source))?;
    }
    // Only an index of the log: SQLite creates it again.
    remove(&companion(database, "-shm"))?;
    fs::rename(new, database).map_err(|source| StoreError::file(database, source))?;
    sync(folder_of(database))?;
    Ok(kept)
}

/// Gives a database file, if it exists, a second name.
fn keep(database: &Path) -> Result<Option<PathBuf>, StoreError> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut number = since.as_secs();
    loop {
        let kept = companion(database, &format!(".replaced-{number}"));
        match fs::hard_link(database, &kept) {
            Ok(()) => return Ok(Some(kept)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(StoreError::file(&kept, source)),
        }
    }
}

/// Returns the folder that contains a file.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}
