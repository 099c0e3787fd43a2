//! Messages that are encoded before they are sent, so that all recipients share the same bytes.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, skip_field},
};
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// The bytes of an encoded message, used in place of a generated message type. Only a sender can use it: decoding into
/// it discards the data.
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

/// The initial size of a call's buffer for each direction, in bytes. tonic's default of 8 KiB would be most of the
/// memory of an idle follower. The buffer grows while a larger message is in it.
const BUFFER_BYTES: usize = 512;

/// The encoder passes its data to the transport once it has this many bytes. The value is tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// tonic's protobuf codec with small buffers, for streams that are numerous and mostly idle.
#[derive(Debug)]
pub struct SlimCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SlimCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SlimCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::registry;

    #[test]
    fn an_encoded_message_is_sent_unchanged() {
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
