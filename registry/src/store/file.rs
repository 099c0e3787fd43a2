//! Files of a database: for their owner alone, and for one registry at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

/// A database that no registry can open as long as this is held.
#[derive(Debug)]
pub struct LockedDatabase {
    _lock: File,
}

/// Keeps registries from a database, which need not exist.
///
/// # Errors
///
/// [`StoreError::Locked`] when one holds it.
pub fn hold(database: &Path) -> Result<LockedDatabase, StoreError> {
    Ok(LockedDatabase {
        _lock: take_lock(database)?,
    })
}

/// The file that belongs to a database under a name of its own, such as `-wal`.
#[must_use]
pub fn companion(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Makes an empty file that is readable to nobody else.
///
/// # Errors
///
/// [`StoreError::File`] when it cannot be made, or is there.
pub fn create_new(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::file(path, source))
}

/// Has the system write a file, or the names in a folder, to the disk.
///
/// # Errors
///
/// [`StoreError::File`] when that fails.
pub fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| StoreError::file(path, source))
}

/// Removes a file that need not be there.
///
/// # Errors
///
/// [`StoreError::File`] when it is there and stays.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::file(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the file if there is none, readable to nobody else; the log files beside it take over its mode.
pub(super) fn create_private(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::file(path, source))
}

pub(super) fn take_lock(database: &Path) -> Result<File, StoreError> {
    let path = companion(database, ".lock");
    let lock = create_private(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(database.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::file(&path, source)),
    }
}
