//! How much one resource may hold, counted without encoding it.
//!
//! The count is an upper bound: what it lets through is never larger than the limit when it is stored.

/// The most bytes that a resource may have as it is stored and streamed.
pub const STORED_BYTES_MAX: usize = 256 * 1024;

/// What the numbers of a resource, or of a part of it, take at most.
pub(super) const NUMBERS: usize = 256;

/// What a text takes at most, with its tag, its length, and those of a message around it.
#[must_use]
pub const fn text(text: &str) -> usize {
    text.len() + 8
}

/// What a violation says about a resource that is too large.
#[must_use]
pub fn too_large(bytes: usize) -> String {
    format!(
        "takes up to {} KiB as it is stored, and may take {} KiB",
        bytes.div_ceil(1024),
        STORED_BYTES_MAX / 1024
    )
}
