//! Sealing of bytes with keys from a file: what is sealed can be neither read nor changed without its key.
//!
//! It knows nothing of what is sealed, nor where it is kept. The one hard idea is the context: the caller says what the bytes
//! are and where they belong, and what was sealed for one place does not open at another.
//!
//! Format 1, in this order: `swb seal`; the format's number in one byte; the length of the key's id in one byte; the id; a
//! nonce of 12 random bytes; then what AES-256-GCM-SIV makes of the bytes, its tag of 16 bytes last. Authenticated beside
//! the bytes are all that stands before them, then the context.

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
/// Far more keys than anybody rotates through.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// The bits of a file's mode that give others than its owner any right.
const NOT_OWNER: u32 = 0o077;

/// Seals with one key, and opens what any of its keys has sealed.
#[derive(Debug)]
pub struct Sealer {
    active: SealKey,
    /// Only for what was sealed before a rotation.
    retired: Vec<SealKey>,
}

struct SealKey {
    id: KeyId,
    secret: SecretBox<[u8; KEY_BYTES]>,
}

/// The name of a key: 1 to 32 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Box<str>);

/// Why a key file cannot be used. It never repeats what stands in the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there, or may not be read.
    #[error("cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is a folder or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Others than its owner have rights to it.
    #[error("must be its owner's alone, but has mode {mode:04o}: chmod 600 mends it")]
    Exposed {
        /// The file's mode.
        mode: u32,
    },
    /// It is no text, or longer than any key file.
    #[error("is not a text of at most {KEY_FILE_BYTES_MAX} bytes")]
    NotText,
    /// It has no key.
    #[error("has no key")]
    Empty,
    /// One line is no key.
    #[error("line {line} is not a key: an id of letters, digits, `-` and `_`, a colon, and 64 hexadecimal digits")]
    Malformed {
        /// Which line, from 1.
        line: usize,
    },
    /// Two keys have one id.
    #[error("line {line} has the id of a key above it")]
    Duplicate {
        /// Which line, from 1.
        line: usize,
    },
}

/// The bytes could not be sealed: the system has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct SealError;

/// Why sealed bytes do not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// They are nothing that was sealed here, or only the beginning of it.
    #[error("these are not sealed bytes, or not all of them")]
    NotSealed,
    /// They have a format that this build does not know.
    #[error("they are sealed in format {0}, which this version does not know")]
    UnknownFormat(u8),
    /// They were sealed with a key that is not there.
    #[error("they are sealed with the key `{}`, which the key file does not have", .0.as_str())]
    UnknownKey(KeyId),
    /// They were changed, belong to another place, or the key of that id is another one.
    #[error("they were changed, belong elsewhere, or were sealed with another key of the same id")]
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
    /// Reads a key file: one key a line, `id:` and 64 hexadecimal digits. The first one seals, all of them open. Empty
    /// lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] when a key is malformed, or others than its owner have rights to the file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        // Before it is opened, which for a pipe would wait for whoever writes into it.
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

    /// Reads the text of a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`] when there is no key, or one is malformed.
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

    /// Seals `bytes` for the place that `context` names.
    ///
    /// # Errors
    ///
    /// [`SealError`] when there are no random numbers.
    pub fn seal(&self, context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|Unspecified| SealError)?;
        self.active.seal(nonce, context, bytes).map_err(|Unspecified| SealError)
    }

    /// Opens what was sealed for the place that `context` names; the bytes are wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`UnsealError`] says as much as can be known: an attacker's change and another key look alike.
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

    /// With a nonce of the caller's choice, which must not be used twice for different bytes.
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

/// Names the key, never shows it.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id.as_str())
    }
}

/// The header says its own length, so no context can pass for a part of it.
fn authenticated(header: &[u8], context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([header, context].concat())
}

/// Sealed bytes, taken apart.
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
