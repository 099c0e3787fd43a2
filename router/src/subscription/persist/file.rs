//! The snapshot file: sealed, accessible only to its owner, and replaced as a whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use secrecy::zeroize::Zeroizing;
use switchboard::{
    failpoint,
    seal::{SealError, Sealer, UnsealError},
};

use super::{
    Kept, Restored,
    contents::{ContentsError, decode, encode},
};

/// The purpose of the sealed bytes. A file that was sealed for another purpose under the same key cannot be opened
/// here.
const CONTEXT: &[u8] = b"switchboard router snapshot";
const MODE: u32 = 0o600;
/// Maximum size of the file in bytes. No configuration needs more.
const BYTES_MAX: u64 = 1 << 30;

/// The file in which the router stores the state for the next start.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    sealer: Arc<Sealer>,
}

/// Why a snapshot file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("could not read the file")]
    Unreadable(#[from] io::Error),
    /// The path leads to something other than a file, for example a folder or a device.
    #[error("the path is not a regular file")]
    NotAFile,
    /// The file is larger than any configuration.
    #[error("the file is larger than {BYTES_MAX} bytes")]
    TooLarge,
    /// The file cannot be unsealed.
    #[error("could not unseal the file")]
    Sealed(#[from] UnsealError),
    /// The contents of the file cannot be used.
    #[error("could not use the contents of the file")]
    Contents(#[from] ContentsError),
}

/// Why a snapshot file was not written. The previous file is still there, except if only syncing its folder failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotWriteError {
    /// The contents could not be sealed.
    #[error("could not seal the contents")]
    Seal(#[from] SealError),
    /// A file operation failed.
    #[error("{step}")]
    File {
        /// The operation that failed.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a path cannot be used for a snapshot file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotPathError {
    /// The path leads to something other than a file, for example a folder or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// No file can be created next to the snapshot file, which is how it is replaced.
    #[error("no file can be created in its folder")]
    Folder(#[source] io::Error),
}

impl SnapshotFile {
    /// Creates a handle to a file, which need not exist, and its keys.
    #[must_use]
    pub const fn new(path: PathBuf, sealer: Arc<Sealer>) -> Self {
        Self { path, sealer }
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the file can be written, which must not only turn out at the first write.
    ///
    /// Finds only what is wrong with the path. If the disk is full or fails, the router can still use the file of an
    /// earlier start, and retries to write until the disk works.
    ///
    /// # Errors
    ///
    /// [`SnapshotPathError`] if the path leads to something else, or its folder does not exist or is not writable.
    pub fn check(&self) -> Result<(), SnapshotPathError> {
        if fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(SnapshotPathError::NotAFile);
        }
        let partial = self.partial();
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&partial)
        {
            Ok(_) => {
                // If it cannot be removed, the next write does so.
                drop(fs::remove_file(&partial));
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem => Err(SnapshotPathError::Folder(error)),
                // Including a partial file of a crashed process, which the next write replaces.
                _ => Ok(()),
            },
        }
    }

    /// Loads the file. `None`: it does not exist.
    pub(super) fn load(&self) -> Result<Option<Restored>, LoadError> {
        // Checked before the file is opened, because opening a pipe would wait for a writer.
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(LoadError::NotAFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut sealed = Vec::new();
        let length = File::open(&self.path)?.take(BYTES_MAX + 1).read_to_end(&mut sealed)?;
        if u64::try_from(length).is_ok_and(|length| length > BYTES_MAX) {
            return Err(LoadError::TooLarge);
        }
        let bytes: Zeroizing<Vec<u8>> = self.sealer.open(CONTEXT, &sealed)?;
        Ok(Some(decode(&bytes, SystemTime::now())?))
    }

    /// Replaces the file. Once this returns, the new file survives a power failure.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), SnapshotWriteError> {
        let sealed = self.sealer.seal(CONTEXT, &encode(kept, SystemTime::now()))?;
        let partial = self.partial();
        let replaced = write_new(&partial, &sealed).and_then(|()| {
            failpoint::hit("persist.before-rename");
            fs::rename(&partial, &self.path).map_err(failed("could not replace the file"))?;
            failpoint::hit("persist.after-rename");
            sync_folder_of(&self.path).map_err(failed("could not sync the folder of the file"))
        });
        if replaced.is_err() {
            // An incomplete file is useless, and takes space on a disk that may be full.
            drop(fs::remove_file(&partial));
        }
        replaced
    }

    fn partial(&self) -> PathBuf {
        let mut partial: OsString = self.path.clone().into();
        partial.push(".partial");
        partial.into()
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> SnapshotWriteError {
    move |source| SnapshotWriteError::File { step, source }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SnapshotWriteError> {
    // Removes the partial file of a crashed process. It is never written into: it might be a link, or other processes
    // might have it open.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("could not remove an old partial file")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(failed("could not create a partial file"))?;
    // Undoes the effect of the process's umask.
    file.set_permissions(Permissions::from_mode(MODE))
        .map_err(failed("could not set the mode of the partial file"))?;
    file.write_all(bytes)
        .map_err(failed("could not write the partial file"))?;
    file.sync_all().map_err(failed("could not sync the partial file"))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
