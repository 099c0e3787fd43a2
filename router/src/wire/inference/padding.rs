//! Small messages made larger, for callers behind a proxy whose HTTP/2 library ends the whole connection over small frames
//! that one slow reader leaves unread.
//!
//! A frame counts as small below 256 bytes. A message is a frame, or several are: so no message may be smaller.

use bytes::Bytes;
use prost::Message as _;
use switchboard::pb::router::StreamInferResponse;

/// The fewest bytes of a message: with the five that stand before it they are as many as no frame is small with.
const MESSAGE_BYTES_MIN: usize = 256 - 5;
/// What stands before the padding: the field's number, and its length in one byte or two.
const TAG: usize = 2;

static ZEROS: [u8; MESSAGE_BYTES_MIN] = [0; MESSAGE_BYTES_MIN];

/// The message with so much padding that it is not small.
#[must_use]
pub fn padded(mut message: StreamInferResponse) -> StreamInferResponse {
    let length = message.encoded_len();
    if length < MESSAGE_BYTES_MIN {
        // An empty field is not sent at all.
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
    fn no_message_is_small_and_none_grows_without_need() {
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
