//! Writes that can be repeated: how a write is identified, and what is remembered of it.

use std::fmt;

use aws_lc_rs::hmac;
use bytes::Bytes;
use switchboard::names::{IncarnationId, Revision};

use super::actor::Actor;

/// The `request_id` of a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepeatId(Box<str>);

/// The text is not a valid `request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 64 visible ASCII characters; a UUID is best")]
pub struct RepeatIdError;

impl RepeatId {
    const LENGTH_MAX: usize = 64;

    /// Parses a `request_id`.
    ///
    /// # Errors
    ///
    /// [`RepeatIdError`] unless the text has 1 to 64 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, RepeatIdError> {
        let is_short = (1..=Self::LENGTH_MAX).contains(&text.len());
        if is_short && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(RepeatIdError)
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Identifies one write. Different callers and different methods can use the same id without conflict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepeatKey {
    /// The actor that makes the write.
    pub actor: Actor,
    /// The method, for example `CreateModel`.
    pub method: &'static str,
    /// The id from the caller.
    pub id: RepeatId,
}

/// A keyed hash of a request. It shows whether two requests are equal and reveals nothing about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads a stored fingerprint. `None` if `bytes` does not have length 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Computes fingerprints. The key never leaves the store: with the key, an API token could be guessed from its hash.
#[derive(Clone)]
pub struct Fingerprinter(hmac::Key);

impl Fingerprinter {
    /// Creates a fingerprinter with the store's key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the fingerprint of an encoded request.
    #[must_use]
    pub fn of(&self, content: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.0, content).as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(***)")
    }
}

/// The record of a write that had a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Identifies the write.
    pub key: RepeatKey,
    /// Fingerprint of the request.
    pub content: Fingerprint,
    /// The answer, encoded.
    pub answer: Bytes,
    /// The revision in the answer.
    pub revision: Revision,
    /// The incarnation of the store in which the write was made.
    pub incarnation: IncarnationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_has_up_to_64_visible_ascii_characters() {
        let long = "x".repeat(64);
        for good in ["a", "0b6a4f2e-7d2c-4a51-9d0e-2b1f0d6c8e11", "~!{}", &long] {
            assert_eq!(RepeatId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in ["", "a b", "\t", "ä", "a\n", "\u{7f}", &too_long] {
            assert_eq!(RepeatId::parse(bad), Err(RepeatIdError), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_depends_on_content_and_key() {
        let (one, other) = (Fingerprinter::new(&[1; 32]), Fingerprinter::new(&[2; 32]));
        assert_eq!(one.of(b"a"), one.of(b"a"));
        assert_ne!(one.of(b"a"), one.of(b"b"));
        assert_ne!(one.of(b"a"), other.of(b"a"));
    }
}
