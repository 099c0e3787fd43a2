//! The file that tells a starter where a service listens, written once it serves.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

/// A ready file; removed when dropped.
#[derive(Debug)]
pub struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Writes the addresses, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
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
        // Nobody is left to be told, and the starter sees the process end.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_and_goes_with_the_service() {
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
