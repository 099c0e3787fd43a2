//! Etags: they show a writer whether the resource is still the one that it has read.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use switchboard::{
    history::Incarnation,
    names::{ResourceName, Revision},
};

/// The etag of one resource at one revision of one incarnation. An etag from before a restore never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Computes the etag of a resource.
    #[must_use]
    pub fn of(incarnation: Incarnation, name: &ResourceName, revision: Revision) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(format!("{}\n{name}\n{revision}", incarnation.id).as_bytes());
        let digest = hash.finish();
        let bytes = digest.as_ref().iter().take(16);
        Self(bytes.map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the text: 32 hexadecimal characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use switchboard::names::IncarnationId;

    use super::*;

    #[test]
    fn an_etag_changes_with_incarnation_name_and_revision() {
        let life = || Incarnation {
            number: 1,
            id: IncarnationId::random(),
        };
        let (one, other) = (life(), life());
        let name = ResourceName::parse("models/a").unwrap();
        let first = Revision::ZERO.next();
        let etag = Etag::of(one, &name, first);
        assert_eq!(etag, Etag::of(one, &name, first));
        assert_eq!(etag.as_str().len(), 32);
        for different in [
            Etag::of(other, &name, first),
            Etag::of(one, &ResourceName::Settings, first),
            Etag::of(one, &name, first.next()),
        ] {
            assert_ne!(etag, different);
        }
    }
}
