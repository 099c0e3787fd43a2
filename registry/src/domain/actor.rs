//! The authors of writes.

/// The author of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The registry itself: for the seed, and for the first revision of a new life.
    System,
    /// A caller that is not authenticated.
    Anonymous,
}

impl Actor {
    /// Returns the text by which the actor is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Anonymous => "anonymous",
        }
    }
}
