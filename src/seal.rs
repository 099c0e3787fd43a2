//! Seals bytes with keys from a file: sealed bytes can be neither read nor changed without the key.
//!
//! This module does not know the meaning of the bytes, nor where they are stored.
//! The one hard idea: the caller passes a context that says what the bytes are and where they belong. Bytes that were
//! sealed with one context do not open with another.
//!
//! Format 1, in this order: the text `swb seal`; the format's number in one byte; the length of the key's id in one
//! byte; the key's id; a nonce of 12 random bytes; the ciphertext of AES-256-GCM-SIV, with its tag of 16 bytes at the
//! end. The additional authenticated data are all bytes in front of the ciphertext, then the context.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    rand,
};
use secrecy::{
    ExposeSecret as _, SecretBox,
    zeroize::{Zeroize as _, Zeroizing},
};

const MAGIC: &[u8] = b"swb seal";
const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;
/// The maximum size of a key file: enough for hundreds of keys.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// The bits of a file's mode that give access to users other than the owner.
const NOT_OWNER: u32 = 0o077;

/// Seals bytes with one key, and opens bytes that were sealed with any of its keys.
#[derive(Debug)]
pub struct Sealer {
    active: SealKey,
    /// Only for opening bytes that were sealed before a key rotation.
    retired: Vec<SealKey>,
}

struct SealKey {
    id: KeyId,
    secret: SecretBox<[u8; KEY_BYTES]>,
}

/// The id of a key: 1 to 32 ASCII letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Box<str>);

/// Why a key file cannot be used. The message never contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file does not exist, or the process may not read it.
    #[error("cannot be read")]
    Unreadable(#[from] io::Error),
    /// The path is not a regular file, but for example a folder or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Users other than the owner have access to the file.
    #[error("must be accessible to its owner only, but has mode {mode:04o}; use `chmod 600` to fix this")]
    Exposed {
        /// The file's mode.
        mode: u32,
    },
    /// The file is not valid UTF-8, or is too large.
    #[error("is not a UTF-8 text of at most {KEY_FILE_BYTES_MAX} bytes")]
    NotText,
    /// The file contains no key.
    #[error("contains no key")]
    Empty,
    /// A line is not a valid key.
    #[error("line {line} is not a key: an id of letters, digits, `-` and `_`, a colon, and 64 hexadecimal digits")]
    Malformed {
        /// The number of the line, from 1.
        line: usize,
    },
    /// Two keys have the same id.
    #[error("line {line} repeats the id of an earlier key")]
    Duplicate {
        /// The number of the line, from 1.
        line: usize,
    },
}

/// The bytes could not be sealed, because the system's random number generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct SealError;

/// Why sealed bytes could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// The bytes do not have the form of sealed bytes, or are truncated.
    #[error("the data is not sealed, or is truncated")]
    NotSealed,
    /// The format of the sealed bytes is unknown to this build.
    #[error("the data is sealed in format {0}, which this version does not know")]
    UnknownFormat(u8),
    /// The bytes were sealed with a key that the key file does not contain.
    #[error("the data is sealed with the key `{}`, which the key file does not contain", .0.as_str())]
    UnknownKey(KeyId),
    /// The bytes were changed, were sealed with another context, or were sealed with another key that has the same id.
    #[error("the data was changed, belongs to another place, or was sealed with another key of the same id")]
    Refused,
}

impl KeyId {
    fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(is_plain);
        fits.then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Sealer {
    /// Reads a key file. Each line has one key: `id:` and 64 hexadecimal digits. The first key seals, and all keys
    /// open. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] if the file has no key or a malformed key, cannot be read, or is accessible to other users than
    /// its owner.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        // Check this before opening: opening a named pipe would block until another process writes to it.
        if !fs::metadata(path)?.is_file() {
            return Err(KeyFileError::NotAFile);
        }
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if mode & NOT_OWNER != 0 {
            return Err(KeyFileError::Exposed { mode });
        }
        let mut text = Zeroizing::new(String::new());
        let length = file
            .take(KEY_FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => KeyFileError::NotText,
                _ => KeyFileError::Unreadable(error),
            })?;
        if u64::try_from(length).is_ok_and(|length| length > KEY_FILE_BYTES_MAX) {
            return Err(KeyFileError::NotText);
        }
        Self::parse(&text)
    }

    /// Parses the text of a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] if there is no key, a key is malformed, or two keys have the same id.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        let mut ids = HashSet::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = SealKey::parse(text).ok_or(KeyFileError::Malformed { line })?;
            if !ids.insert(key.id.clone()) {
                return Err(KeyFileError::Duplicate { line });
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        Ok(Self {
            active: keys.next().ok_or(KeyFileError::Empty)?,
            retired: keys.collect(),
        })
    }

    /// Seals `bytes` for `context`, which must be passed again to open them.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the system's random number generator fails.
    pub fn seal(&self, context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|Unspecified| SealError)?;
        self.active.seal(nonce, context, bytes).map_err(|Unspecified| SealError)
    }

    /// Opens bytes that were sealed for `context`. The opened bytes are wiped from memory when they are dropped.
    ///
    /// # Errors
    ///
    /// [`UnsealError`] with the cause, as far as it can be known: changed bytes and a different key give the same
    /// error.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let Envelope {
            id,
            header,
            nonce,
            body,
        } = Envelope::parse(sealed)?;
        let mut keys = [&self.active].into_iter().chain(&self.retired);
        let Some(key) = keys.find(|key| key.id == id) else {
            return Err(UnsealError::UnknownKey(id));
        };
        let mut bytes = Zeroizing::new(body.to_vec());
        let length = key
            .cipher()
            .and_then(|cipher| {
                let opened = cipher.open_in_place(nonce, authenticated(header, context), &mut bytes)?;
                Ok(opened.len())
            })
            .map_err(|Unspecified| UnsealError::Refused)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl SealKey {
    fn parse(line: &str) -> Option<Self> {
        let (id, digits) = line.split_once(':')?;
        let id = KeyId::parse(id)?;
        let digits = digits.as_bytes();
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        let mut secret = Box::new([0; KEY_BYTES]);
        for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
            let nibbles = pair.iter().map(|&digit| char::from(digit).to_digit(16));
            let value = nibbles.reduce(|high, low| Some(high? * 16 + low?)).flatten();
            let Some(value) = value.and_then(|value| u8::try_from(value).ok()) else {
                secret.zeroize();
                return None;
            };
            *byte = value;
        }
        let secret = SecretBox::new(secret);
        Some(Self { id, secret })
    }

    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&AES_256_GCM_SIV, self.secret.expose_secret()).map(LessSafeKey::new)
    }

    /// Seals with a nonce that the caller chooses. The same nonce must not be used for different bytes.
    fn seal(&self, nonce: [u8; NONCE_LEN], context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let cipher = self.cipher()?;
        let id = self.id.as_str();
        let mut sealed =
            Vec::with_capacity(MAGIC.len() + 2 + id.len() + NONCE_LEN + bytes.len() + cipher.algorithm().tag_len());
        sealed.extend_from_slice(MAGIC);
        sealed.push(FORMAT);
        sealed.push(u8::try_from(id.len()).map_err(|_longer| Unspecified)?);
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(&nonce);
        let (header, nonce) = (sealed.clone(), Nonce::assume_unique_for_key(nonce));
        sealed.extend_from_slice(bytes);
        let tag = cipher.seal_in_place_separate_tag(
            nonce,
            authenticated(&header, context),
            sealed.get_mut(header.len()..).unwrap_or_default(),
        )?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

/// Prints the key's id, never the key.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id.as_str())
    }
}

/// Returns the additional authenticated data. The header contains the length of its only variable part, so that no part
/// of a context can be mistaken for a part of the header.
fn authenticated(header: &[u8], context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([header, context].concat())
}

/// The parts of sealed bytes.
struct Envelope<'a> {
    id: KeyId,
    header: &'a [u8],
    nonce: Nonce,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn parse(sealed: &'a [u8]) -> Result<Self, UnsealError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(UnsealError::NotSealed)?;
        let (&format, rest) = rest.split_first().ok_or(UnsealError::NotSealed)?;
        if format != FORMAT {
            return Err(UnsealError::UnknownFormat(format));
        }
        let parse = || {
            let (&length, rest) = rest.split_first()?;
            let (id, rest) = rest.split_at_checked(usize::from(length))?;
            let id = KeyId::parse(str::from_utf8(id).ok()?)?;
            let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
            let (header, _body) = sealed.split_at_checked(sealed.len() - body.len())?;
            Some(Self {
                id,
                header,
                nonce: Nonce::assume_unique_for_key(*nonce),
                body,
            })
        };
        parse().ok_or(UnsealError::NotSealed)
    }
}

#[cfg(test)]
mod tests;
