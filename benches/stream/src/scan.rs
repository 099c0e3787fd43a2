//! Reads single fields of encoded messages without decoding the rest.

use bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Returns the fields of a message with their numbers, up to the first field that cannot be read.
pub(crate) fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    std::iter::from_fn(move || {
        loop {
            if message.is_empty() {
                return None;
            }
            let (number, wire_type) = decode_key(&mut message).ok()?;
            match wire_type {
                WireType::Varint => return Some((number, Value::Number(decode_varint(&mut message).ok()?))),
                WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                    let (field, rest) = message.split_at_checked(length)?;
                    message = rest;
                    return Some((number, Value::Bytes(field)));
                }
                WireType::ThirtyTwoBit if message.len() >= 4 => message.advance(4),
                WireType::SixtyFourBit if message.len() >= 8 => message.advance(8),
                _ => return None,
            }
        }
    })
}

/// Returns the last field with this number if it holds bytes.
pub(crate) fn bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    let found = fields(message).filter(|(found, _)| *found == number).last();
    match found {
        Some((_, Value::Bytes(bytes))) => Some(bytes),
        Some((_, Value::Number(_))) | None => None,
    }
}

/// Returns the last field with this number as an `int64`, or 0 if it is missing.
pub(crate) fn number(message: &[u8], number: u32) -> i64 {
    let found = fields(message).filter(|(found, _)| *found == number).last();
    match found {
        Some((_, Value::Number(value))) => value.cast_signed(),
        Some((_, Value::Bytes(_))) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use switchboard::pb::{
        registry::{Bookmark, Delta},
        types::Cursor,
    };

    use super::*;

    #[test]
    fn encoded_fields_are_found() {
        let at = Cursor {
            store: "s".to_owned(),
            revision: 300,
            ..Default::default()
        };
        let bookmark = Bookmark {
            at: Some(at.clone()),
            probe: -1,
            ..Default::default()
        };
        let encoded = bookmark.encode_to_vec();
        let cursor = bytes(&encoded, 1).unwrap();
        assert_eq!(Cursor::decode(cursor).unwrap(), at);
        assert_eq!(
            [number(cursor, 2), number(&encoded, 3), number(&encoded, 2)],
            [300, -1, 0]
        );
        assert_eq!(bytes(&encoded, 3), None);
    }

    #[test]
    fn a_truncated_field_ends_the_fields() {
        let delta = Delta {
            from_revision: 1,
            traceparent: "x".repeat(20),
            ..Default::default()
        };
        let encoded = delta.encode_to_vec();
        assert_eq!(fields(&encoded).count(), 2);
        assert_eq!(fields(&encoded[..encoded.len() - 1]).count(), 1);
    }
}
