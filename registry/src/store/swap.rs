//! Putting one database file in the place of another, so that there is a whole one at every moment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    StoreError,
    file::{companion, remove, sync},
};

/// Puts `new`, a closed database without a log, in the place of `database`. Returns where the replaced file is kept.
///
/// The one that is replaced must be settled: without a log, unless it is beyond use. A log is kept with its file under the
/// new name, since beside another file it would be taken for that one's.
///
/// # Errors
///
/// [`StoreError::File`] says what failed. Up to the last step, which cannot fail half way, the old file is in its place.
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
    // Only an index of the log: SQLite makes it anew.
    remove(&companion(database, "-shm"))?;
    fs::rename(new, database).map_err(|source| StoreError::file(database, source))?;
    sync(folder_of(database))?;
    Ok(kept)
}

/// Gives the file of a database, if there is one, a second name.
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

/// The folder that a file is in.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}
