//! The files of a database: only their owner can read them, and only one registry at a time can lock them.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

/// The lock of a database. No registry can open the database while this value exists.
#[derive(Debug)]
pub struct LockedDatabase {
    _lock: File,
}

/// Prevents registries from opening a database, which need not exist.
///
/// # Errors
///
/// [`StoreError::Locked`] if a registry holds it.
pub fn hold(database: &Path) -> Result<LockedDatabase, StoreError> {
    Ok(LockedDatabase {
        _lock: take_lock(database)?,
    })
}

/// Returns the path of a file that belongs to a database: the database's path followed by a suffix such as `-wal`.
#[must_use]
pub fn companion(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Creates an empty file that only its owner can read.
///
/// # Errors
///
/// [`StoreError::File`] if the file cannot be created, or exists already.
pub fn create_new(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::file(path, source))
}

/// Syncs a file, or the entries of a folder, to disk.
///
/// # Errors
///
/// [`StoreError::File`] if that fails.
pub fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| StoreError::file(path, source))
}

/// Removes a file, which need not exist.
///
/// # Errors
///
/// [`StoreError::File`] if the file exists and cannot be removed.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::file(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens a file, or creates one that only its owner can read. SQLite gives its log files the same mode.
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
