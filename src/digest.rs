//! Digests of the configuration, format 1: they prove that a follower has the same state as the registry.
//!
//! The digests detect bugs and damaged data. They do not protect against an attacker who can choose contents, because a
//! sum of hashes can be forged; the protection against attackers is the connection. The hashes cover the bytes as they
//! are stored: no service encodes a resource again to hash it, because protobuf has no canonical encoding.
//!
//! In the formulas below, `lp(x)` is the length of `x` in 4 bytes, big-endian, then the bytes of `x`. Integers are 8
//! bytes, big-endian. Ids are hashed as text.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use crate::names::{IncarnationId, Revision, StoreId};

/// The number of this format: the field `format` of [`crate::pb::types::Cursor`].
pub const FORMAT: i32 = 1;

/// The parts of one resource that its digest covers.
#[derive(Debug, Clone, Copy)]
pub struct ItemParts<'a> {
    /// Name of the resource.
    pub name: &'a str,
    /// The revision that created the resource. A resource that is deleted and created again has a new one.
    pub create_revision: Revision,
    /// The revision that last changed the resource.
    pub revision: Revision,
    /// The payload's type URL.
    pub type_url: &'a str,
    /// The payload's bytes, as they are stored.
    pub value: &'a [u8],
    /// The capabilities that a router needs to use the resource, sorted.
    pub requires: &'a [String],
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Converts bytes from a message or from the database. `None`: there are not exactly 32 bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The digest as bytes.
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
    /// The digest of all resources of a view: the sum of their digests, modulo 2^256.
    StateDigest
}

digest_type! {
    /// The digest of the complete history up to a revision. Only the registry computes it.
    ChainDigest
}

impl ItemDigest {
    /// Computes the digest of a resource:
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
    /// The digest of a view without resources.
    pub const EMPTY: Self = Self([0; 32]);

    /// Returns the digest after `item` is added to the view.
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

    /// Returns the digest after `item` is removed from the view.
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

/// One change of a revision, as the chain digest covers it.
#[derive(Debug, Clone, Copy)]
pub enum ChainChange<'a> {
    /// The resource was created or updated, and has this digest now.
    Upsert(ItemDigest),
    /// The resource of this name was deleted.
    Delete(&'a str),
}

impl ChainDigest {
    /// The parent digest of the first incarnation of a store.
    pub const NONE: Self = Self([0; 32]);

    /// Computes the digest with which an incarnation begins, before its first revision:
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

    /// Computes the digest after one more revision:
    /// `H("swb1 chain" ‖ chain ‖ revision ‖ for each change: 1 ‖ item, or 0 ‖ lp(name))`. `changes` must be sorted by
    /// the bytes of the resource names.
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
        let length = u32::try_from(bytes.len()).expect("no hashed field has 4 GiB or more");
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
    use std::collections::BTreeMap;

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

    /// Test vectors that `tests/contract/digests.py` writes, an implementation that is independent of this code.
    #[derive(serde::Deserialize)]
    struct Vectors {
        items: Vec<ItemVector>,
        states: Vec<StateVector>,
        store: String,
        lives: Vec<LifeVector>,
    }

    #[derive(serde::Deserialize)]
    struct ItemVector {
        name: String,
        create_revision: i64,
        revision: i64,
        type_url: String,
        value: String,
        requires: Vec<String>,
        digest: String,
    }

    #[derive(serde::Deserialize)]
    struct StateVector {
        items: Vec<usize>,
        digest: String,
    }

    #[derive(serde::Deserialize)]
    struct LifeVector {
        number: i64,
        incarnation: String,
        begin: String,
        revisions: Vec<RevisionVector>,
    }

    #[derive(serde::Deserialize)]
    struct RevisionVector {
        revision: i64,
        changes: BTreeMap<String, Option<usize>>,
        chain: String,
    }

    impl ItemVector {
        fn computed(&self) -> ItemDigest {
            let mut requires = self.requires.clone();
            requires.sort_unstable();
            ItemDigest::of(&ItemParts {
                name: &self.name,
                create_revision: Revision::new(self.create_revision).unwrap(),
                revision: Revision::new(self.revision).unwrap(),
                type_url: &self.type_url,
                value: &from_hex(&self.value),
                requires: &requires,
            })
        }
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let byte = |index| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn digests_match_the_test_vectors_of_format_1() {
        let vectors = include_str!("../tests/contract/digests.json");
        let vectors: Vectors = serde_json::from_str(vectors).unwrap();
        let items: Vec<ItemDigest> = vectors.items.iter().map(ItemVector::computed).collect();
        for (vector, digest) in vectors.items.iter().zip(&items) {
            assert_eq!(hex(digest.as_bytes()), vector.digest, "{}", vector.name);
        }
        for vector in &vectors.states {
            let sum = vector
                .items
                .iter()
                .fold(StateDigest::EMPTY, |sum, &index| sum.plus(items[index]));
            assert_eq!(hex(sum.as_bytes()), vector.digest, "{:?}", vector.items);
        }
        let store = StoreId::parse(&vectors.store).unwrap();
        let mut chain = ChainDigest::NONE;
        for life in &vectors.lives {
            let incarnation = IncarnationId::parse(&life.incarnation).unwrap();
            chain = ChainDigest::of_life(chain, store, life.number, incarnation);
            assert_eq!(hex(chain.as_bytes()), life.begin);
            for vector in &life.revisions {
                let changes = vector.changes.iter().map(|(name, index)| match index {
                    Some(index) => ChainChange::Upsert(items[*index]),
                    None => ChainChange::Delete(name),
                });
                chain = chain.extended(Revision::new(vector.revision).unwrap(), changes);
                assert_eq!(hex(chain.as_bytes()), vector.chain, "revision {}", vector.revision);
            }
        }
    }

    #[test]
    fn a_state_digest_ignores_the_order_of_items_and_the_removed_items() {
        let (a, b) = (item("a", b"1"), item("b", b"2"));
        assert_eq!(StateDigest::EMPTY.plus(a).plus(b), StateDigest::EMPTY.plus(b).plus(a));
        assert_eq!(StateDigest::EMPTY.plus(a).plus(b).minus(a), StateDigest::EMPTY.plus(b));
        assert_eq!(StateDigest::EMPTY.minus(a).plus(a), StateDigest::EMPTY);
    }
}
