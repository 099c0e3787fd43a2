//! Digests of configuration, format 1: what proves that a follower has what the registry has.
//!
//! They find bugs and bit rot. Against somebody who chooses contents on purpose a sum of hashes is no proof; there the
//! connection protects. Hashed are bytes as stored: nobody re-encodes, since protobuf has no canonical form.
//!
//! `lp(x)` below is the length in 4 bytes, big-endian, then the bytes; integers have 8 bytes, big-endian; ids are their text.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use crate::names::{IncarnationId, Revision, StoreId};

/// The number of this format, [`crate::pb::types::Cursor`]'s `format`.
pub const FORMAT: i32 = 1;

/// What is hashed of one resource.
#[derive(Debug, Clone, Copy)]
pub struct ItemParts<'a> {
    /// Its name.
    pub name: &'a str,
    /// The revision at which this life of the name began.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// The payload's type URL.
    pub type_url: &'a str,
    /// The payload's bytes as stored.
    pub value: &'a [u8],
    /// The capabilities that it needs, sorted.
    pub requires: &'a [String],
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes a digest from the wire or the store; `None` when it has not 32 bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(")")
            }
        }
    };
}

digest_type! {
    /// The digest of one resource.
    ItemDigest
}

digest_type! {
    /// The digest of a whole view: the sum of its items' digests, modulo 2^256.
    StateDigest
}

digest_type! {
    /// The digest of the whole history up to a revision. Only the registry computes it.
    ChainDigest
}

impl ItemDigest {
    /// `H("swb1 item" ‖ lp(name) ‖ create_revision ‖ revision ‖ lp(type_url) ‖ lp(value) ‖ lp of each requires)`.
    #[must_use]
    pub fn of(item: &ItemParts<'_>) -> Self {
        let mut hash = Hash::tagged("swb1 item");
        hash.text(item.name);
        hash.number(item.create_revision.get());
        hash.number(item.revision.get());
        hash.text(item.type_url);
        hash.bytes(item.value);
        for capability in item.requires {
            hash.text(capability);
        }
        Self(hash.finish())
    }
}

impl StateDigest {
    /// Of nothing.
    pub const EMPTY: Self = Self([0; 32]);

    /// With one item more.
    #[must_use]
    pub fn plus(mut self, item: ItemDigest) -> Self {
        let mut carry = false;
        for (byte, other) in self.0.iter_mut().zip(item.0).rev() {
            let (sum, first) = byte.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u8::from(carry));
            *byte = sum;
            carry = first || second;
        }
        self
    }

    /// With one item less.
    #[must_use]
    pub fn minus(mut self, item: ItemDigest) -> Self {
        let mut borrow = false;
        for (byte, other) in self.0.iter_mut().zip(item.0).rev() {
            let (rest, first) = byte.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(u8::from(borrow));
            *byte = rest;
            borrow = first || second;
        }
        self
    }
}

/// One change of a revision, as the chain hashes it.
#[derive(Debug, Clone, Copy)]
pub enum ChainChange<'a> {
    /// The resource has this digest now.
    Upsert(ItemDigest),
    /// The resource is gone.
    Delete(&'a str),
}

impl ChainDigest {
    /// What stands for the chain before the first incarnation of a store.
    pub const NONE: Self = Self([0; 32]);

    /// Before the first revision of an incarnation:
    /// `H("swb1 life" ‖ last chain of the parent ‖ store ‖ number ‖ incarnation)`.
    #[must_use]
    pub fn of_life(parent: Self, store: StoreId, number: i64, incarnation: IncarnationId) -> Self {
        let mut hash = Hash::tagged("swb1 life");
        hash.raw(&parent.0);
        hash.raw(store.to_string().as_bytes());
        hash.number(number);
        hash.raw(incarnation.to_string().as_bytes());
        Self(hash.finish())
    }

    /// After one more revision:
    /// `H("swb1 chain" ‖ chain ‖ revision ‖ for each change: 1 ‖ item, or 0 ‖ lp(name))`. The changes are sorted by the
    /// bytes of their names.
    #[must_use]
    pub fn extended<'a>(self, revision: Revision, changes: impl IntoIterator<Item = ChainChange<'a>>) -> Self {
        let mut hash = Hash::tagged("swb1 chain");
        hash.raw(&self.0);
        hash.number(revision.get());
        for change in changes {
            match change {
                ChainChange::Upsert(item) => {
                    hash.raw(&[1]);
                    hash.raw(&item.0);
                }
                ChainChange::Delete(name) => {
                    hash.raw(&[0]);
                    hash.text(name);
                }
            }
        }
        Self(hash.finish())
    }
}

struct Hash(Context);

impl Hash {
    fn tagged(tag: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(tag.as_bytes());
        Self(context)
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn number(&mut self, number: i64) {
        self.raw(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    #[expect(clippy::expect_used, reason = "a resource has at most 256 KiB")]
    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("no hashed field comes near 4 GiB");
        self.raw(&length.to_be_bytes());
        self.raw(bytes);
    }

    fn finish(self) -> [u8; 32] {
        let digest = self.0.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, value: &[u8]) -> ItemDigest {
        ItemDigest::of(&ItemParts {
            name,
            create_revision: Revision::new(3).unwrap(),
            revision: Revision::new(7).unwrap(),
            type_url: "type.googleapis.com/switchboard.registry.v1.ModelEntry",
            value,
            requires: &[],
        })
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // Computed apart from this code, with Python's hashlib, from the rules at the top.
    #[test]
    fn digests_are_those_of_format_1() {
        let digest = item("models/mistral", b"\x0a\x00");
        assert_eq!(
            hex(digest.as_bytes()),
            "5b2394101c2f551333505f0b9103bb47cac9f2fcc4b776bc0551ac00516b66c6"
        );
        let store = StoreId::parse("00112233445566778899aabbccddeeff").unwrap();
        let incarnation = IncarnationId::parse("ffeeddccbbaa99887766554433221100").unwrap();
        let life = ChainDigest::of_life(ChainDigest::NONE, store, 1, incarnation);
        assert_eq!(
            hex(life.as_bytes()),
            "8868bcf5508a0200706bc8d950d01581b037fa4cd7673c762b09efcb4dc30d99"
        );
        let revision = Revision::new(7).unwrap();
        let chain = life.extended(
            revision,
            [ChainChange::Upsert(digest), ChainChange::Delete("models/old")],
        );
        assert_eq!(
            hex(chain.as_bytes()),
            "e813ca41acfe29864e754bd1e4d0ac098f1cc17cf9d6c4cb090e088fd9d546bd"
        );
        let state = StateDigest::EMPTY.plus(digest).plus(item("settings", b""));
        assert_eq!(
            hex(state.as_bytes()),
            "623ae9ef0792ab087b7ffd2479bd91b98dcee4760ce9c801137aa9bbea601ec3"
        );
    }

    #[test]
    fn a_state_does_not_depend_on_the_order_and_forgets_what_is_taken() {
        let (a, b) = (item("a", b"1"), item("b", b"2"));
        assert_eq!(StateDigest::EMPTY.plus(a).plus(b), StateDigest::EMPTY.plus(b).plus(a));
        assert_eq!(StateDigest::EMPTY.plus(a).plus(b).minus(a), StateDigest::EMPTY.plus(b));
        assert_eq!(StateDigest::EMPTY.minus(a).plus(a), StateDigest::EMPTY);
    }
}
