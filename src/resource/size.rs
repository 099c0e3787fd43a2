//! The size limit of a resource, and an estimate of its size that does not need to encode it.
//!
//! The estimate is an upper bound: a resource whose estimate is within the limit never exceeds the limit when it is
//! stored.

/// The maximum size of a resource as it is stored and streamed, in bytes.
pub const STORED_BYTES_MAX: usize = 256 * 1024;

/// The maximum encoded size of all numbers of a resource, or of a part of a resource, in bytes.
pub(super) const NUMBERS: usize = 256;

/// Returns the maximum encoded size of a text in bytes, with the tag and length of its field and of a message around
/// it.
#[must_use]
pub const fn text(text: &str) -> usize {
    text.len() + 8
}

/// Returns the description of a violation for a resource whose estimated size is `bytes`.
#[must_use]
pub fn too_large(bytes: usize) -> String {
    format!(
        "may take up to {} KiB when it is stored, but the limit is {} KiB",
        bytes.div_ceil(1024),
        STORED_BYTES_MAX / 1024
    )
}
