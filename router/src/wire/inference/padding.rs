//! Pads small messages, for callers behind a proxy whose HTTP/2 library closes the whole connection if one slow reader
//! leaves many small frames unread.
//!
//! Such a library counts a frame below 256 bytes as small. A frame contains one message or several, so no message may
//! be smaller than that.

use bytes::Bytes;
use prost::Message as _;
use switchboard::pb::router::StreamInferResponse;

/// Minimum size of a message in bytes. Together with gRPC's prefix of 5 bytes it gives 256 bytes.
const MESSAGE_BYTES_MIN: usize = 256 - 5;
/// Bytes that precede the padding: the field's number, and its length in one byte or two.
const TAG: usize = 2;

static ZEROS: [u8; MESSAGE_BYTES_MIN] = [0; MESSAGE_BYTES_MIN];

/// Returns the message, padded to the minimum size if it is smaller.
#[must_use]
pub fn padded(mut message: StreamInferResponse) -> StreamInferResponse {
    let length = message.encoded_len();
    if length < MESSAGE_BYTES_MIN {
        // A field with empty content is not encoded, so the padding has at least one byte.
        let missing = MESSAGE_BYTES_MIN.saturating_sub(length + TAG).max(1);
        message.padding = Bytes::from_static(&ZEROS).slice(..missing);
    }
    message
}

#[cfg(test)]
mod tests {
    use switchboard::pb::router::{Delta, delta::Kind, stream_infer_response::Event};

    use super::*;

    #[test]
    fn small_messages_are_padded_and_large_messages_are_not() {
        for length in 0..400 {
            let plain = StreamInferResponse {
                event: Some(Event::Delta(Delta {
                    kind: Some(Kind::Text("x".repeat(length))),
                })),
                ..Default::default()
            };
            let padded = padded(plain.clone());
            let (before, after) = (plain.encoded_len(), padded.encoded_len());
            assert!(after >= MESSAGE_BYTES_MIN, "{length}: {after}");
            assert!(
                after <= before.max(MESSAGE_BYTES_MIN + TAG),
                "{length}: {before}, {after}"
            );
            assert_eq!(padded.event, plain.event);
        }
    }
}
