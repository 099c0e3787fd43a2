//! Which kind of API a model's servers speak, and how identifiers tell it.

use switchboard::endpoint::EndpointUri;

use super::ModelPartError;

/// The kind of API that a model's servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// OpenAI's chat completions and completions.
    #[default]
    OpenAiCompatible,
    /// Azure OpenAI.
    AzureOpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Amazon Bedrock.
    Bedrock,
    /// Google Vertex AI.
    VertexAi,
}

impl Platform {
    /// Whether this version speaks to it.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        match self {
            Self::OpenAiCompatible | Self::AzureOpenAi | Self::Anthropic => true,
            Self::Bedrock | Self::VertexAi => false,
        }
    }

    /// Where it is reached by models that name no endpoint. `None`: they have to.
    #[must_use]
    pub fn own_endpoint(self) -> Option<&'static EndpointUri> {
        match self {
            Self::Anthropic => Some(EndpointUri::anthropic()),
            Self::OpenAiCompatible | Self::AzureOpenAi | Self::Bedrock | Self::VertexAi => None,
        }
    }

    /// Whether chats are all that it takes.
    #[must_use]
    pub const fn is_chat_only(self) -> bool {
        match self {
            Self::Anthropic => true,
            Self::OpenAiCompatible | Self::AzureOpenAi | Self::Bedrock | Self::VertexAi => false,
        }
    }

    /// Whether it wants to be told the version of its API.
    #[must_use]
    pub const fn has_api_version(self) -> bool {
        match self {
            Self::AzureOpenAi => true,
            Self::OpenAiCompatible | Self::Anthropic | Self::Bedrock | Self::VertexAi => false,
        }
    }

    /// The names of those to which this version speaks.
    #[must_use]
    pub fn supported() -> String {
        let all = [
            Self::OpenAiCompatible,
            Self::AzureOpenAi,
            Self::Anthropic,
            Self::Bedrock,
            Self::VertexAi,
        ];
        let names: Vec<_> = all
            .into_iter()
            .filter(|one| one.is_supported())
            .map(Self::as_str)
            .collect();
        names.join(", ")
    }

    /// Its name in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiCompatible => "PLATFORM_OPENAI_COMPATIBLE",
            Self::AzureOpenAi => "PLATFORM_AZURE_OPENAI",
            Self::Anthropic => "PLATFORM_ANTHROPIC",
            Self::Bedrock => "PLATFORM_BEDROCK",
            Self::VertexAi => "PLATFORM_VERTEX_AI",
        }
    }
}

/// The beginning of an identifier that tells a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The text, slash included.
    pub text: &'static str,
    /// The platform that it tells.
    pub platform: Platform,
}

impl Prefix {
    /// The prefix that marks a name of an OpenAI-compatible server, whatever it begins with.
    pub const PLAIN: &'static str = "custom_openai/";

    const ALL: [Self; 5] = [
        Self::new(Self::PLAIN, Platform::OpenAiCompatible),
        Self::new("azure/", Platform::AzureOpenAi),
        Self::new("anthropic/", Platform::Anthropic),
        Self::new("bedrock/", Platform::Bedrock),
        Self::new("vertex_ai/", Platform::VertexAi),
    ];

    const fn new(text: &'static str, platform: Platform) -> Self {
        Self { text, platform }
    }
}

/// The version of a platform's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersion(Box<str>);

impl ApiVersion {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 63;

    /// Parses a version; `None` for an empty text, which says that there is none.
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
        // It stands in the query of a URL.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        {
            return Err(ModelPartError::ApiVersionMalformed);
        }
        Ok(Some(Self(text.into())))
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name by which servers know a model, as it was given, prefix included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier(Box<str>);

impl Identifier {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 1000;

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
        let identifier = Self(text.into());
        match identifier.prefix() {
            Some(prefix) if prefix.text == text => Err(ModelPartError::IdentifierNameless { prefix: prefix.text }),
            _ => Ok(Some(identifier)),
        }
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix that tells its platform, if it has one.
    #[must_use]
    pub fn prefix(&self) -> Option<Prefix> {
        Prefix::ALL.into_iter().find(|prefix| self.0.starts_with(prefix.text))
    }

    /// Why it cannot be a name on a platform, with both ways out. `None`: it can.
    #[must_use]
    pub fn contradiction(&self, platform: Platform) -> Option<String> {
        let prefix = self.prefix().filter(|prefix| prefix.platform != platform)?;
        let remedy = if prefix.text == Prefix::PLAIN {
            "leave the prefix out".to_owned()
        } else {
            format!(
                "write `{}{}…` for an OpenAI-compatible server whose own names begin like that",
                Prefix::PLAIN,
                prefix.text
            )
        };
        Some(format!(
            "begins with `{}`, which tells {}, but the model's platform is {}; give that as `platform` too, or {remedy}",
            prefix.text,
            prefix.platform.as_str(),
            platform.as_str()
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
    fn an_identifier_tells_its_platform_by_the_text_before_its_first_slash() {
        for (text, platform) in [
            ("mistral", None),
            ("azure", None),
            ("org/model", None),
            ("org/azure/x", None),
            ("custom_openai/mistral", Some(Platform::OpenAiCompatible)),
            ("custom_openai/azure/x", Some(Platform::OpenAiCompatible)),
            ("azure/x", Some(Platform::AzureOpenAi)),
            ("anthropic/x", Some(Platform::Anthropic)),
            ("bedrock/x", Some(Platform::Bedrock)),
            ("vertex_ai/x/y", Some(Platform::VertexAi)),
        ] {
            assert_eq!(identifier(text).as_str(), text);
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
    fn an_api_version_can_stand_in_a_url() {
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
    fn a_contradiction_names_both_ways_out() {
        assert_eq!(identifier("org/model").contradiction(Platform::Bedrock), None);
        assert_eq!(identifier("azure/x").contradiction(Platform::AzureOpenAi), None);
        let said = identifier("azure/x").contradiction(Platform::OpenAiCompatible).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("custom_openai/azure/"),
            "{said}"
        );
        let said = identifier("custom_openai/x").contradiction(Platform::Bedrock).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("leave the prefix out"),
            "{said}"
        );
    }
}
