//! The snapshot file: sealed, its owner's alone, and replaced whole or not at all.

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

/// What the sealed bytes are: those of another file under the same key do not open here.
const CONTEXT: &[u8] = b"switchboard router snapshot";
const MODE: u32 = 0o600;
/// More than any configuration has.
const BYTES_MAX: u64 = 1 << 30;

/// Where the router keeps what it goes on from after a restart.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    sealer: Arc<Sealer>,
}

/// Why a snapshot file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is a folder or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// It has more bytes than any configuration.
    #[error("it has more than {BYTES_MAX} bytes")]
    TooLarge,
    /// It does not open.
    #[error("it does not open")]
    Sealed(#[from] UnsealError),
    /// It opens, and what is in it cannot be used.
    #[error("its contents cannot be used")]
    Contents(#[from] ContentsError),
}

/// Why a snapshot file was not written. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotWriteError {
    /// It cannot be sealed.
    #[error("seal it")]
    Seal(#[from] SealError),
    /// The disk or the folder refuses it.
    #[error("{step}")]
    File {
        /// What failed.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl SnapshotFile {
    /// A file that may be there or not, and its keys.
    #[must_use]
    pub const fn new(path: PathBuf, sealer: Arc<Sealer>) -> Self {
        Self { path, sealer }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. `None`: it is not there.
    pub(super) fn load(&self) -> Result<Option<Restored>, LoadError> {
        // Before it is opened, which for a pipe would wait for whoever writes into it.
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

    /// Replaces the file: once this returns, the new one is there after a power cut too.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), SnapshotWriteError> {
        let sealed = self.sealer.seal(CONTEXT, &encode(kept, SystemTime::now()))?;
        let partial = self.partial();
        let replaced = write_new(&partial, &sealed).and_then(|()| {
            failpoint::hit("persist.before-rename");
            fs::rename(&partial, &self.path).map_err(failed("replace the file"))?;
            failpoint::hit("persist.after-rename");
            sync_folder_of(&self.path).map_err(failed("sync its folder"))
        });
        if replaced.is_err() {
            // Half a file is of no use to anybody, least of all on a full disk.
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
    // One that a crash left behind. Never written into: it might be a link, or others might have it open.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove an old partial file")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(failed("create a partial file"))?;
    // Whatever the process's mask took away.
    file.set_permissions(Permissions::from_mode(MODE))
        .map_err(failed("set the mode of the partial file"))?;
    file.write_all(bytes).map_err(failed("write the partial file"))?;
    file.sync_all().map_err(failed("sync the partial file"))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
