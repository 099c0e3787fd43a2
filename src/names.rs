//! Resource names and ids: their syntax, which both services share.
//!
//! A value of these types is syntactically valid. It does not prove that the resource exists.

mod router;

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::rand;

pub use self::router::{Group, GroupError, RouterId, RouterIdError};
use crate::reason::FieldReason;

/// Why a text is not a valid resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text does not begin with the expected collection.
    #[error("must have the form `{collection}/{{id}}`")]
    Collection {
        /// The collection that was expected, `models` or `features`.
        collection: &'static str,
    },
    /// The id, the part after the slash, does not have 1 to 63 allowed characters.
    #[error("must have an id of 1 to 63 {allowed}")]
    Id {
        /// The allowed characters, in words.
        allowed: &'static str,
    },
}

impl NameError {
    /// Returns the reason of a violation with this error. `text` is the name that was parsed: an id that is too long
    /// has a reason of its own.
    #[must_use]
    pub fn reason(&self, text: &str) -> FieldReason {
        match self {
            Self::Id { .. } if text.rsplit('/').next().unwrap_or_default().len() > 63 => FieldReason::NameTooLong,
            Self::Id { .. } | Self::Collection { .. } => FieldReason::ValueMalformed,
        }
    }
}

/// The text is not a random id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 lower-case hexadecimal characters")]
pub struct RandomIdError;

macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident, $collection:literal, $allowed:literal, $is_allowed:expr) => {
        $(#[$doc])*
        ///
        /// Clones share the text.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The collection: the part before the slash.
            pub const COLLECTION: &'static str = $collection;

            /// Parses a full name, `{collection}/{id}`.
            ///
            /// # Errors
            ///
            /// [`NameError`] if the collection is a different one, or the id is malformed.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let id = text
                    .strip_prefix(concat!($collection, "/"))
                    .ok_or(NameError::Collection { collection: $collection })?;
                Self::from_id(id)
            }

            /// Parses an id: the part after the slash.
            ///
            /// # Errors
            ///
            /// [`NameError::Id`] if the id is malformed.
            pub fn from_id(id: &str) -> Result<Self, NameError> {
                let is_allowed: fn(u8) -> bool = $is_allowed;
                if id.is_empty() || id.len() > 63 || !id.bytes().all(is_allowed) {
                    return Err(NameError::Id { allowed: $allowed });
                }
                Ok(Self(id.into()))
            }

            /// The id: the part after the slash.
            #[must_use]
            pub fn id(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($collection, "/{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

resource_name! {
    /// The name of a model, `models/{id}`.
    ///
    /// ```
    /// use switchboard::names::ModelName;
    /// assert_eq!(ModelName::parse("models/mistral")?.id(), "mistral");
    /// assert!(ModelName::parse("mistral").is_err());
    /// # Ok::<(), switchboard::names::NameError>(())
    /// ```
    ModelName, "models", "lower-case letters, digits and hyphens",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

resource_name! {
    /// The name of a feature, `features/{machine_name}`.
    FeatureName, "features", "lower-case letters, digits and underscores",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// The name of a resource on the change stream.
///
/// Digests and snapshots order resources by the bytes of these names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResourceName {
    /// A model.
    Model(ModelName),
    /// A feature.
    Feature(FeatureName),
    /// The settings.
    Settings,
}

impl ResourceName {
    /// The name of the settings resource.
    pub const SETTINGS: &'static str = "settings";

    /// Parses a full name. `None`: the name is malformed, or its collection is unknown to this build.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == Self::SETTINGS {
            return Some(Self::Settings);
        }
        ModelName::parse(text)
            .map(Self::Model)
            .or_else(|_| FeatureName::parse(text).map(Self::Feature))
            .ok()
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(name) => name.fmt(f),
            Self::Feature(name) => name.fmt(f),
            Self::Settings => f.write_str(Self::SETTINGS),
        }
    }
}

impl From<ModelName> for ResourceName {
    fn from(name: ModelName) -> Self {
        Self::Model(name)
    }
}

impl From<FeatureName> for ResourceName {
    fn from(name: FeatureName) -> Self {
        Self::Feature(name)
    }
}

/// The registry's change counter, from 1. 0 stands for the state before the first revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(i64);

impl Revision {
    /// The state before the first revision.
    pub const ZERO: Self = Self(0);

    /// Converts a number to a revision. `None`: the number is negative.
    #[must_use]
    pub const fn new(number: i64) -> Option<Self> {
        if number < 0 { None } else { Some(Self(number)) }
    }

    /// The revision as a number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Generates a new id from the system's random source.
            ///
            /// # Panics
            ///
            /// Panics if the system has no random source: the process cannot safely continue without unpredictable ids.
            #[must_use]
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                rand::fill(&mut bytes).expect("the system's random source works");
                Self(bytes)
            }

            /// Parses 32 lower-case hexadecimal characters.
            ///
            /// # Errors
            ///
            /// [`RandomIdError`] for anything else.
            pub fn parse(text: &str) -> Result<Self, RandomIdError> {
                parse_hex(text).map(Self).ok_or(RandomIdError)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id! {
    /// The id of one registry's database. A restore keeps it.
    StoreId
}

random_id! {
    /// The id of one incarnation of a registry's database. A restore starts a new incarnation.
    IncarnationId
}

random_id! {
    /// The id of one API token of a model. Each write that sets the token creates a new id.
    CredentialId
}

random_id! {
    /// The id of one run of a router process: it changes with each restart.
    InstanceId
}

random_id! {
    /// The id of one check of a model on one router. It is secret: the registry accepts a caller that knows it as that
    /// router.
    CheckId
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 16 || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_id_has_1_to_63_lower_case_letters_digits_and_hyphens() {
        assert!(ModelName::parse("models/a").is_ok());
        assert!(ModelName::parse(&format!("models/{}", "a".repeat(63))).is_ok());
        for bad in [
            "",
            "models/",
            "models/A",
            "models/a_b",
            "models/a/b",
            "model/a",
            "models/ä",
        ] {
            assert!(ModelName::parse(bad).is_err(), "{bad}");
        }
        assert!(ModelName::parse(&format!("models/{}", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_random_id_is_parsed_from_its_own_text_and_from_no_other_form() {
        let id = StoreId::random();
        assert_eq!(StoreId::parse(&id.to_string()), Ok(id));
        for bad in [
            "",
            "0",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdef0",
        ] {
            assert_eq!(StoreId::parse(bad), Err(RandomIdError), "{bad}");
        }
    }
}
