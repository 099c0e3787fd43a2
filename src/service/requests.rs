//! Limits of requests: the maximum message size and the supported compression.

use tonic::codec::CompressionEncoding;

/// The supported compression of requests. Responses are never compressed.
pub const ENCODINGS: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];

/// Limits a generated server to request messages of at most `$bytes` bytes, and enables request compression.
///
/// The limit applies to the decompressed size, and decompression stops at the limit, so a small compressed request
/// cannot use much memory. This is a macro, because generated servers do not share a trait.
#[macro_export]
macro_rules! bounded {
    ($server:expr, $bytes:expr) => {
        $crate::service::requests::ENCODINGS
            .into_iter()
            .fold($server.max_decoding_message_size($bytes), |server, encoding| {
                server.accept_compressed(encoding)
            })
    };
}
