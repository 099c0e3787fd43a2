//! Names of routers: the id of one router, and the group that it belongs to.

use std::fmt;

/// The text is not a router id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {} visible ASCII characters", RouterId::LENGTH_MAX)]
pub struct RouterIdError;

/// A router's stable id: it stays the same across restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Box<str>);

impl RouterId {
    /// The maximum length of a router id, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a router id: 1 to [`Self::LENGTH_MAX`] visible ASCII characters.
    ///
    /// # Errors
    ///
    /// [`RouterIdError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, RouterIdError> {
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(RouterIdError)
        }
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a valid group name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {} characters and no control characters", Group::LENGTH_MAX)]
pub struct GroupError;

/// The group that a router belongs to, for example a cluster or a zone. Empty: the router belongs to no group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group(Box<str>);

impl Group {
    /// The maximum length of a group, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a group.
    ///
    /// # Errors
    ///
    /// [`GroupError`] if the text is too long or contains control characters.
    pub fn parse(text: &str) -> Result<Self, GroupError> {
        if text.chars().count() <= Self::LENGTH_MAX && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(GroupError)
        }
    }

    /// The group as text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the router belongs to no group.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_id_has_1_to_255_visible_ascii_characters() {
        assert!(RouterId::parse(&"r".repeat(255)).is_ok());
        for bad in ["", "a b", "é", &"r".repeat(256)] {
            assert_eq!(RouterId::parse(bad), Err(RouterIdError), "{bad}");
        }
    }

    #[test]
    fn a_group_may_be_empty_and_has_no_control_characters() {
        assert!(Group::parse("").unwrap().is_empty());
        assert!(Group::parse(&"é".repeat(255)).is_ok());
        for bad in ["a\nb", &"g".repeat(256)] {
            assert_eq!(Group::parse(bad), Err(GroupError), "{bad}");
        }
    }
}
