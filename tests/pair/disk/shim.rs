//! The fault library that is preloaded into a registry, and the content of the disk after a power cut, computed from
//! the library's journal.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::process::{Setting, database};

/// The unit that a disk writes completely or not at all, in bytes.
const SECTOR: usize = 512;

/// Builds the library once and returns its path.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = env::current_exe().unwrap().with_file_name("libdisk_faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/disk_faults.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("cc builds the library");
        assert!(status.success());
        library
    })
}

/// The operations that fail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    /// `write` or `sync`.
    pub(super) what: &'static str,
    /// `EIO` or `ENOSPC`.
    pub(super) error: &'static str,
    /// Number of the first operation that fails, from 1.
    pub(super) first: u64,
    /// Number of the last operation that fails.
    pub(super) last: u64,
}

/// Returns the path of the journal for a folder's database.
fn journal(folder: &Path) -> PathBuf {
    folder.join("journal")
}

/// Returns the path of the file that turns faults on while it exists, if the test uses that switch.
pub(super) fn while_file(folder: &Path) -> PathBuf {
    folder.join("failing")
}

/// Returns the setting of a registry whose disk fails.
pub(super) fn setting(folder: &Path, fault: Fault, has_switch: bool) -> Setting {
    let mut env = vec![
        ("LD_PRELOAD", library().display().to_string()),
        ("DISK_FAULTS_DATABASE", database(folder).display().to_string()),
        ("DISK_FAULTS_JOURNAL", journal(folder).display().to_string()),
        ("DISK_FAULTS_FAIL", fault.what.to_owned()),
        ("DISK_FAULTS_ERROR", fault.error.to_owned()),
        ("DISK_FAULTS_FIRST", fault.first.to_string()),
        ("DISK_FAULTS_LAST", fault.last.to_string()),
    ];
    if has_switch {
        env.push(("DISK_FAULTS_WHILE", while_file(folder).display().to_string()));
    }
    Setting {
        env,
        ..Setting::default()
    }
}

/// One file on a disk: the durable content, the content that the operating system assumes, and the sectors that are not
/// yet written.
#[derive(Debug, Default)]
struct OnDisk {
    safe: Vec<u8>,
    believed: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl OnDisk {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            safe: bytes.clone(),
            believed: bytes,
            dirty: BTreeSet::new(),
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.believed.len() < end {
            self.believed.resize(end, 0);
        }
        self.believed[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    /// Makes the dirty sectors durable for which `arrives` returns true.
    fn settle(&mut self, mut arrives: impl FnMut() -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            let end = ((sector + 1) * SECTOR).min(self.believed.len());
            if sector * SECTOR < end && arrives() {
                if self.safe.len() < end {
                    self.safe.resize(end, 0);
                }
                self.safe[sector * SECTOR..end].copy_from_slice(&self.believed[sector * SECTOR..end]);
            }
        }
    }

    fn sync(&mut self) {
        self.settle(|| true);
        self.safe.resize(self.believed.len(), 0);
    }
}

/// Simulates a power cut: writes to `to` what the disk of `from` holds afterwards. `before` is its content at the
/// beginning of the journal. Some of the sectors that were not synced have arrived, others have not. A failed sync
/// loses the sectors that it was for, although the operating system still assumes them to be written. Returns whether
/// the registry received an injected fault at all.
pub(super) fn cut_power(before: &[u8], from: &Path, to: &Path, rng: &mut fastrand::Rng) -> bool {
    let mut files = [OnDisk::of(before.to_vec()), OnDisk::default()];
    let mut log_is_there = false;
    let mut is_told = false;
    let is_torn = rng.bool();
    let bytes = fs::read(journal(from)).unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut arrives = || is_torn && rng.bool();
    while let Some((head, tail)) = rest.split_at_checked(24) {
        let place = |at: usize| usize::try_from(u64::from_le_bytes(head[at..at + 8].try_into().unwrap())).unwrap();
        let (offset, length) = (place(8), place(16));
        let of_log = head[1] == b'l';
        let file = &mut files[usize::from(of_log)];
        rest = tail;
        match head[0] {
            b'w' => {
                let (written, tail) = rest.split_at(length);
                file.write(offset, written);
                log_is_there |= of_log;
                rest = tail;
            }
            b's' => file.sync(),
            b'x' => file.settle(&mut arrives),
            b't' => file.believed.resize(offset, 0),
            b'u' => {
                *file = OnDisk::default();
                log_is_there &= !of_log;
            }
            b'!' => is_told = true,
            other => panic!("the journal has a record of kind {other}"),
        }
    }
    for file in &mut files {
        file.settle(&mut arrives);
    }
    let [data, log] = files;
    fs::write(database(to), data.safe).unwrap();
    if log_is_there {
        fs::write(to.join("switchboard.db-wal"), log.safe).unwrap();
    }
    is_told
}
