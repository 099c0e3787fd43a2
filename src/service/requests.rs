//! In which form requests are taken: up to a size, as they are or compressed.

use tonic::codec::CompressionEncoding;

/// How requests may be compressed. Answers never are.
pub const ENCODINGS: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];

/// A generated server that takes requests of at most so many bytes, compressed or not. What counts is what they are when
/// inflated, and no more than that is ever inflated: nothing small becomes large.
///
/// A macro, since generated servers share no trait.
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
