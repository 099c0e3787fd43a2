//! A message of the contract that was encoded before it is sent, so that all who get it share its bytes.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, skip_field},
};

/// The bytes of a whole message. It stands where a generated message would, on the sender's side only: what is read into
/// it is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded(Bytes);

impl From<Bytes> for Encoded {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::registry;

    #[test]
    fn what_was_encoded_is_sent_as_it_is() {
        let bookmark = registry::Bookmark {
            probe: 7,
            ..Default::default()
        };
        let message = registry::SubscribeResponse {
            kind: Some(registry::subscribe_response::Kind::Bookmark(bookmark)),
        };
        let encoded = Encoded::from(Bytes::from(message.encode_to_vec()));
        assert_eq!(encoded.encode_to_vec(), message.encode_to_vec());
        let read = registry::SubscribeResponse::decode(&*encoded.encode_to_vec()).unwrap();
        assert_eq!(read, message);
    }
}
