//! Who writes.

/// Who made a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The registry itself: the seed.
    System,
    /// Somebody who did not say who it is.
    Anonymous,
}

impl Actor {
    /// The text by which it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Anonymous => "anonymous",
        }
    }
}
