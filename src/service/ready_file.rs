//! The ready file: it contains the addresses of a running service, for the program that started it.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

/// A ready file. It is removed when the value is dropped.
#[derive(Debug)]
pub struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes the addresses as JSON. The file appears with its complete content or not at all.
    ///
    /// # Errors
    ///
    /// An I/O error if the file cannot be written or renamed.
    pub fn write(path: &Path, listen_addr: SocketAddr, admin_addr: SocketAddr) -> io::Result<Self> {
        let text = json!({ "listen_addr": listen_addr.to_string(), "admin_addr": admin_addr.to_string() });
        let mut partial = path.to_owned().into_os_string();
        partial.push(".partial");
        fs::write(&partial, format!("{text}\n"))?;
        fs::rename(&partial, path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // An error is ignored: the process is about to end, which the program that started it notices anyway.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_file_has_both_addresses_and_is_removed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let (listen, admin) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let file = ReadyFile::write(&path, listen, admin).unwrap();
        let read: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["listen_addr"], "127.0.0.1:1");
        assert_eq!(read["admin_addr"], "127.0.0.1:2");
        drop(file);
        assert!(!path.exists());
    }
}
