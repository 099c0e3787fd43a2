//! Files of a database: for their owner alone, and for one registry at a time.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

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
    let mut path = OsString::from(database);
    path.push(".lock");
    let path = PathBuf::from(path);
    let lock = create_private(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(database.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::file(&path, source)),
    }
}
