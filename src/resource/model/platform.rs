//! The platform of a model: the kind of API of its servers. An identifier may select the platform with a prefix.

use std::sync::LazyLock;

use super::{Endpoint, ModelPartError};
use crate::{endpoint::EndpointUri, pb::registry::Platform as Kind};

/// The kind of API of a model's servers, with the options of that kind.
///
/// [`Kind`] has the same platforms, and also those that this build does not support.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Platform {
    /// OpenAI's chat completions and completions APIs, which many servers implement.
    #[default]
    OpenAiCompatible,
    /// Azure OpenAI.
    AzureOpenAi {
        /// The version of the API.
        api_version: ApiVersion,
    },
    /// The Anthropic Messages API.
    Anthropic,
}

impl Platform {
    /// The platform as a value of the contract's enum.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::OpenAiCompatible => Kind::OpenaiCompatible,
            Self::AzureOpenAi { .. } => Kind::AzureOpenai,
            Self::Anthropic => Kind::Anthropic,
        }
    }

    /// The version of the API. `None`: the platform does not need one.
    #[must_use]
    pub const fn api_version(&self) -> Option<&ApiVersion> {
        match self {
            Self::AzureOpenAi { api_version } => Some(api_version),
            Self::OpenAiCompatible | Self::Anthropic => None,
        }
    }

    /// The platform's own endpoint, for models without configured endpoints. `None`: models of this platform must have
    /// endpoints.
    #[must_use]
    pub fn own_endpoint(&self) -> Option<&'static Endpoint> {
        own_endpoint(self.kind())
    }

    /// Whether the platform supports only chat.
    #[must_use]
    pub const fn is_chat_only(&self) -> bool {
        is_chat_only(self.kind())
    }
}

/// Whether this build supports a platform.
pub(super) const fn is_supported(kind: Kind) -> bool {
    match kind {
        Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Anthropic => true,
        Kind::Unspecified | Kind::Bedrock | Kind::VertexAi => false,
    }
}

/// Returns the names of the platforms that this build supports, separated by commas.
pub(super) fn supported() -> String {
    let all = [
        Kind::OpenaiCompatible,
        Kind::AzureOpenai,
        Kind::Anthropic,
        Kind::Bedrock,
        Kind::VertexAi,
    ];
    let names: Vec<_> = all
        .into_iter()
        .filter(|kind| is_supported(*kind))
        .map(|kind| kind.as_str_name())
        .collect();
    names.join(", ")
}

/// The platform's own endpoint. See [`Platform::own_endpoint`].
pub(super) fn own_endpoint(kind: Kind) -> Option<&'static Endpoint> {
    static ANTHROPIC: LazyLock<Endpoint> = LazyLock::new(|| Endpoint::at(EndpointUri::anthropic().clone()));
    match kind {
        Kind::Anthropic => Some(&ANTHROPIC),
        Kind::Unspecified | Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Bedrock | Kind::VertexAi => None,
    }
}

/// Whether a platform supports only chat.
pub(super) const fn is_chat_only(kind: Kind) -> bool {
    match kind {
        Kind::Anthropic => true,
        Kind::Unspecified | Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Bedrock | Kind::VertexAi => false,
    }
}

/// A prefix of an identifier that selects a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The text of the prefix, with its slash.
    pub text: &'static str,
    /// The platform that the prefix selects.
    pub platform: Kind,
}

impl Prefix {
    /// The prefix for OpenAI-compatible servers. With it, the name after it may begin with the text of another prefix.
    pub const PLAIN: &'static str = "custom_openai/";

    const ALL: [Self; 5] = [
        Self::new(Self::PLAIN, Kind::OpenaiCompatible),
        Self::new("azure/", Kind::AzureOpenai),
        Self::new("anthropic/", Kind::Anthropic),
        Self::new("bedrock/", Kind::Bedrock),
        Self::new("vertex_ai/", Kind::VertexAi),
    ];

    const fn new(text: &'static str, platform: Kind) -> Self {
        Self { text, platform }
    }
}

/// The version of a platform's API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiVersion(Box<str>);

impl ApiVersion {
    /// The maximum length of an API version, in characters.
    pub const LENGTH_MAX: usize = 63;

    /// Parses an API version. Returns `None` for an empty text, which clears the version.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Option<Self>, ModelPartError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::ApiVersionTooLong);
        }
        // The version becomes a part of a URL's query.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        {
            return Err(ModelPartError::ApiVersionMalformed);
        }
        Ok(Some(Self(text.into())))
    }

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name by which the model servers know a model: the original text, with its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(Box<str>);

impl Identifier {
    /// The maximum length of an identifier, in characters.
    pub const LENGTH_MAX: usize = 1000;

    /// Parses an identifier. Returns `None` for an empty text, which clears the identifier.
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
        let identifier = Self(text.into());
        match identifier.prefix() {
            Some(prefix) if prefix.text == text => Err(ModelPartError::IdentifierNameless { prefix: prefix.text }),
            _ => Ok(Some(identifier)),
        }
    }

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the prefix that selects the platform. `None`: the identifier has no such prefix.
    #[must_use]
    pub fn prefix(&self) -> Option<Prefix> {
        Prefix::ALL.into_iter().find(|prefix| self.0.starts_with(prefix.text))
    }

    /// Returns the name in requests to the model servers: the identifier without its prefix.
    #[must_use]
    pub fn sent(&self) -> &str {
        self.prefix()
            .and_then(|prefix| self.0.strip_prefix(prefix.text))
            .unwrap_or(&self.0)
    }

    /// Explains why the identifier's prefix contradicts `platform`, and both ways to fix that. `None`: there is no
    /// contradiction.
    #[must_use]
    pub fn contradiction(&self, platform: Kind) -> Option<String> {
        let prefix = self.prefix().filter(|prefix| prefix.platform != platform)?;
        let remedy = if prefix.text == Prefix::PLAIN {
            "leave out the prefix".to_owned()
        } else {
            format!(
                "write `{}{}...` if this is an OpenAI-compatible server whose own model names begin like that",
                Prefix::PLAIN,
                prefix.text
            )
        };
        Some(format!(
            "begins with `{0}`, which selects {1}, but the model's platform is {2}; set `platform` to {1}, or {remedy}",
            prefix.text,
            prefix.platform.as_str_name(),
            platform.as_str_name()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(text: &str) -> Identifier {
        Identifier::parse(text).unwrap().unwrap()
    }

    #[test]
    fn the_text_before_the_first_slash_of_an_identifier_may_select_the_platform() {
        for (text, platform) in [
            ("mistral", None),
            ("azure", None),
            ("org/model", None),
            ("org/azure/x", None),
            ("custom_openai/mistral", Some(Kind::OpenaiCompatible)),
            ("custom_openai/azure/x", Some(Kind::OpenaiCompatible)),
            ("azure/x", Some(Kind::AzureOpenai)),
            ("anthropic/x", Some(Kind::Anthropic)),
            ("bedrock/x", Some(Kind::Bedrock)),
            ("vertex_ai/x/y", Some(Kind::VertexAi)),
        ] {
            assert_eq!(identifier(text).as_str(), text);
            let sent = match platform {
                Some(_) => text.split_once('/').unwrap().1,
                None => text,
            };
            assert_eq!(identifier(text).sent(), sent);
            assert_eq!(
                identifier(text).prefix().map(|prefix| prefix.platform),
                platform,
                "{text}"
            );
        }
        assert_eq!(Identifier::parse(""), Ok(None));
        for prefix in Prefix::ALL {
            let prefix = prefix.text;
            assert_eq!(
                Identifier::parse(prefix),
                Err(ModelPartError::IdentifierNameless { prefix })
            );
        }
        assert!(Identifier::parse(&"x".repeat(1000)).is_ok());
        assert_eq!(
            Identifier::parse(&"x".repeat(1001)),
            Err(ModelPartError::IdentifierTooLong)
        );
    }

    #[test]
    fn an_api_version_has_only_characters_that_a_url_can_contain() {
        for good in ["2024-10-21", "2025-01-01-preview", "v1.0", &"a".repeat(63)] {
            assert_eq!(ApiVersion::parse(good).unwrap().unwrap().as_str(), good);
        }
        assert_eq!(ApiVersion::parse(""), Ok(None));
        let long = "a".repeat(64);
        assert_eq!(ApiVersion::parse(&long), Err(ModelPartError::ApiVersionTooLong));
        for bad in ["a b", "1&x=2", "ä", "1/2", "1\n"] {
            assert_eq!(
                ApiVersion::parse(bad),
                Err(ModelPartError::ApiVersionMalformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_text_of_a_contradiction_names_both_ways_to_fix_it() {
        assert_eq!(identifier("org/model").contradiction(Kind::Bedrock), None);
        assert_eq!(identifier("azure/x").contradiction(Kind::AzureOpenai), None);
        let said = identifier("azure/x").contradiction(Kind::OpenaiCompatible).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("custom_openai/azure/"),
            "{said}"
        );
        let said = identifier("custom_openai/x").contradiction(Kind::Bedrock).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("leave out the prefix"),
            "{said}"
        );
    }
}
