//! A self-hosted model as it was registered, in parts that are valid once they exist.

use std::collections::{BTreeSet, HashSet};

use switchboard::{
    catalogue::Family,
    endpoint::{EndpointUri, Origin},
    names::ModelName,
    reason::FieldReason,
};

/// A self-hosted model: only what somebody has set.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name; it never changes.
    pub name: ModelName,
    /// The name that people see.
    pub display_name: DisplayName,
    /// What kind of model it is.
    pub family: &'static Family,
    /// Where it is served.
    pub endpoints: Endpoints,
    /// The name by which its servers know it. `None`: the id.
    pub identifier: Option<Identifier>,
    /// Taken out of selection.
    pub disabled: bool,
}

/// Why a text or a list cannot be a part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModelPartError {
    /// The display name has nothing but blanks.
    #[error("must not be blank")]
    DisplayNameBlank,
    /// The display name is too long.
    #[error("must have at most {} characters", DisplayName::LENGTH_MAX)]
    DisplayNameTooLong,
    /// The identifier is too long.
    #[error("must have at most {} characters", Identifier::LENGTH_MAX)]
    IdentifierTooLong,
    /// The identifier is a prefix and nothing else.
    #[error("must have a name behind `custom_openai/`")]
    IdentifierNameless,
    /// The identifier's prefix names a platform that is not supported.
    #[error(
        "begins with `{prefix}`, which names a platform other than an OpenAI-compatible server; write \
         `custom_openai/{prefix}…` for an OpenAI-compatible server whose own names begin like that"
    )]
    IdentifierPlatform {
        /// The prefix, slash included.
        prefix: &'static str,
    },
    /// The weight is out of range.
    #[error("must be 0 to {}", Weight::MAX)]
    WeightOutOfRange,
    /// The list is empty or too long.
    #[error("must have 1 to {} entries", Endpoints::COUNT_MAX)]
    EndpointCount,
    /// The server of this entry stands in the list before.
    #[error("names a server that is already in the list")]
    EndpointRepeated {
        /// The entry, from 0.
        index: usize,
    },
    /// Every weight is 0.
    #[error("must have an entry with a weight above 0; set `disabled` to take the whole model out")]
    EndpointsAllDrained,
}

impl ModelPartError {
    /// The reason that a violation with this error has.
    #[must_use]
    pub const fn reason(self) -> FieldReason {
        match self {
            Self::DisplayNameBlank => FieldReason::FieldRequired,
            Self::DisplayNameTooLong => FieldReason::NameTooLong,
            Self::IdentifierTooLong | Self::WeightOutOfRange | Self::EndpointCount | Self::EndpointsAllDrained => {
                FieldReason::ValueOutOfRange
            }
            Self::IdentifierNameless => FieldReason::ValueMalformed,
            Self::IdentifierPlatform { .. } => FieldReason::IdentifierPlatformMismatch,
            Self::EndpointRepeated { .. } => FieldReason::ValueRepeated,
        }
    }
}

/// The name that people see, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName {
    given: Box<str>,
    /// What makes it the same name to people. Kept: every write compares it with all models' names.
    folded: Box<str>,
}

impl DisplayName {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 255;

    /// Parses 1 to [`Self::LENGTH_MAX`] characters, one of them not a blank.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Self, ModelPartError> {
        if text.trim().is_empty() {
            return Err(ModelPartError::DisplayNameBlank);
        }
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::DisplayNameTooLong);
        }
        Ok(Self {
            given: text.into(),
            folded: text.trim().to_lowercase().into(),
        })
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// Whether both are the same name to people: blanks around it and case do not count.
    #[must_use]
    pub fn is_taken_by(&self, other: &Self) -> bool {
        self.folded == other.folded
    }

    /// The id that follows from the name, before it is known whether it is free: lower case, one hyphen for each run of
    /// other characters, at most 63 characters; `model` when nothing is left.
    ///
    /// ```
    /// use switchboard_registry::domain::model::DisplayName;
    /// assert_eq!(DisplayName::parse("Mistral 7B (GPU 1)")?.to_id(), "mistral-7b-gpu-1");
    /// assert_eq!(DisplayName::parse("模型")?.to_id(), "model");
    /// # Ok::<(), switchboard_registry::domain::model::ModelPartError>(())
    /// ```
    #[must_use]
    pub fn to_id(&self) -> String {
        let mut id = String::new();
        for letter in self.folded.chars() {
            if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                id.push(letter);
            } else if !id.is_empty() && !id.ends_with('-') {
                id.push('-');
            }
        }
        id.truncate(63);
        let id = id.trim_end_matches('-');
        if id.is_empty() { "model" } else { id }.to_owned()
    }
}

/// The name by which servers know a model, as it was given, prefix included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(Box<str>);

impl Identifier {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 1000;

    /// Prefixes of platforms that are not served.
    const OTHER_PLATFORMS: [&str; 4] = ["azure/", "bedrock/", "vertex_ai/", "anthropic/"];

    /// Parses an identifier; `None` for an empty text, which says that there is none.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Option<Self>, ModelPartError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::IdentifierTooLong);
        }
        if text == "custom_openai/" {
            return Err(ModelPartError::IdentifierNameless);
        }
        if let Some(prefix) = Self::OTHER_PLATFORMS
            .into_iter()
            .find(|prefix| text.starts_with(prefix))
        {
            return Err(ModelPartError::IdentifierPlatform { prefix });
        }
        Ok(Some(Self(text.into())))
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Share of the calls relative to a model's other endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(i32);

impl Weight {
    /// The largest weight.
    pub const MAX: i32 = 1000;

    /// Parses 0 to [`Self::MAX`].
    ///
    /// # Errors
    ///
    /// [`ModelPartError::WeightOutOfRange`] for anything else.
    pub const fn parse(number: i32) -> Result<Self, ModelPartError> {
        match number {
            0..=Self::MAX => Ok(Self(number)),
            _ => Err(ModelPartError::WeightOutOfRange),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// One server of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its share of the calls.
    pub weight: Weight,
}

/// The servers of a model: 1 to 64, each once, not all of them drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// The most servers that a model may have.
    pub const COUNT_MAX: usize = 64;

    /// Takes a list.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the list as a whole.
    pub fn new(list: Vec<Endpoint>) -> Result<Self, Vec<ModelPartError>> {
        let mut errors = Vec::new();
        if !(1..=Self::COUNT_MAX).contains(&list.len()) {
            errors.push(ModelPartError::EndpointCount);
        }
        let mut seen = HashSet::new();
        for (index, endpoint) in list.iter().enumerate() {
            // The same server in two spellings, with and without `/v1`, would get twice its share.
            let path = endpoint.uri.call("/v1").path().to_owned();
            if !seen.insert((endpoint.uri.origin(), path)) {
                errors.push(ModelPartError::EndpointRepeated { index });
            }
        }
        if !list.is_empty() && list.iter().all(|endpoint| endpoint.weight == Weight(0)) {
            errors.push(ModelPartError::EndpointsAllDrained);
        }
        if errors.is_empty() { Ok(Self(list)) } else { Err(errors) }
    }

    /// One server with the default weight.
    #[must_use]
    pub fn one(uri: EndpointUri) -> Self {
        Self(vec![Endpoint {
            uri,
            weight: Weight::default(),
        }])
    }

    /// The servers, in the order in which they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.0
    }

    /// The origins of the servers.
    #[must_use]
    pub fn origins(&self) -> BTreeSet<Origin> {
        self.0.iter().map(|endpoint| endpoint.uri.origin()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str, weight: i32) -> Endpoint {
        Endpoint {
            uri: EndpointUri::parse(uri).unwrap(),
            weight: Weight::parse(weight).unwrap(),
        }
    }

    #[test]
    fn an_id_follows_from_the_display_name() {
        let long = "Long ".repeat(30);
        for (text, id) in [
            ("Mistral", "mistral"),
            ("  Mistral  7B!", "mistral-7b"),
            ("a - b", "a-b"),
            ("---", "model"),
            ("Ünïcode", "n-code"),
            (
                long.as_str(),
                "long-long-long-long-long-long-long-long-long-long-long-long-lon",
            ),
        ] {
            assert_eq!(DisplayName::parse(text).unwrap().to_id(), id, "{text}");
        }
        let cut_at_a_hyphen = format!("{} x", "a".repeat(62));
        assert_eq!(DisplayName::parse(&cut_at_a_hyphen).unwrap().to_id(), "a".repeat(62));
    }

    #[test]
    fn display_names_are_the_same_without_regard_to_case_and_blanks() {
        let name = |text| DisplayName::parse(text).unwrap();
        assert!(name(" MISTRAL ").is_taken_by(&name("Mistral")));
        assert!(!name("Mistral 2").is_taken_by(&name("Mistral")));
        assert_eq!(DisplayName::parse(" \t"), Err(ModelPartError::DisplayNameBlank));
        assert!(DisplayName::parse(&"ä".repeat(255)).is_ok());
        assert_eq!(
            DisplayName::parse(&"a".repeat(256)),
            Err(ModelPartError::DisplayNameTooLong)
        );
    }

    #[test]
    fn an_identifier_of_another_platform_is_refused_unless_it_is_marked_as_a_plain_name() {
        for kept in [
            "mistral",
            "custom_openai/mistral",
            "custom_openai/azure/x",
            "org/model",
            "azure",
        ] {
            let identifier = Identifier::parse(kept).unwrap().unwrap();
            assert_eq!(identifier.as_str(), kept);
        }
        for prefix in ["azure/", "bedrock/", "vertex_ai/", "anthropic/"] {
            let error = Identifier::parse(&format!("{prefix}x")).unwrap_err();
            assert_eq!(error, ModelPartError::IdentifierPlatform { prefix });
            assert!(error.to_string().contains(&format!("custom_openai/{prefix}")));
        }
        assert_eq!(Identifier::parse(""), Ok(None));
        assert_eq!(
            Identifier::parse("custom_openai/"),
            Err(ModelPartError::IdentifierNameless)
        );
        assert_eq!(
            Identifier::parse(&"x".repeat(1001)),
            Err(ModelPartError::IdentifierTooLong)
        );
    }

    #[test]
    fn a_list_of_endpoints_is_judged_as_a_whole() {
        use ModelPartError as E;
        let many = |count| {
            (0..count)
                .map(|port| endpoint(&format!("http://h:{}", port + 1), 1))
                .collect()
        };
        for (list, errors) in [
            (vec![], vec![E::EndpointCount]),
            (many(65), vec![E::EndpointCount]),
            (
                vec![
                    endpoint("http://H:80/v1", 1),
                    endpoint("http://h", 1),
                    endpoint("http://h/", 0),
                ],
                vec![E::EndpointRepeated { index: 1 }, E::EndpointRepeated { index: 2 }],
            ),
            (
                vec![endpoint("http://a", 0), endpoint("http://a/v1", 0)],
                vec![E::EndpointRepeated { index: 1 }, E::EndpointsAllDrained],
            ),
        ] {
            assert_eq!(Endpoints::new(list), Err(errors));
        }
        assert!(Endpoints::new(many(64)).is_ok());
        assert!(Endpoints::new(vec![endpoint("http://a", 0), endpoint("http://a/b", 1)]).is_ok());
        assert!(Weight::parse(-1).is_err() && Weight::parse(1001).is_err());
    }
}
