//! Which kind of API a model's servers speak, and how identifiers tell it.

use std::sync::LazyLock;

use super::{Endpoint, ModelPartError};
use crate::{endpoint::EndpointUri, pb::registry::Platform as Kind};

/// The kind of API that a model's servers speak, with what that kind needs.
///
/// [`Kind`] names the same kinds, and those that this build does not speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Platform {
    /// OpenAI's chat completions and completions, as many servers have them.
    #[default]
    OpenAiCompatible,
    /// Azure OpenAI.
    AzureOpenAi {
        /// The version of its API.
        api_version: ApiVersion,
    },
    /// Anthropic Messages.
    Anthropic,
}

impl Platform {
    /// Its name in the contract.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::OpenAiCompatible => Kind::OpenaiCompatible,
            Self::AzureOpenAi { .. } => Kind::AzureOpenai,
            Self::Anthropic => Kind::Anthropic,
        }
    }

    /// The version of its API, for platforms that want one.
    #[must_use]
    pub const fn api_version(&self) -> Option<&ApiVersion> {
        match self {
            Self::AzureOpenAi { api_version } => Some(api_version),
            Self::OpenAiCompatible | Self::Anthropic => None,
        }
    }

    /// The server of models that name no endpoint. `None`: they have to.
    #[must_use]
    pub fn own_endpoint(&self) -> Option<&'static Endpoint> {
        own_endpoint(self.kind())
    }

    /// Whether chats are all that it takes.
    #[must_use]
    pub const fn is_chat_only(&self) -> bool {
        is_chat_only(self.kind())
    }
}

/// Whether this build speaks to a platform.
pub(super) const fn is_supported(kind: Kind) -> bool {
    match kind {
        Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Anthropic => true,
        Kind::Unspecified | Kind::Bedrock | Kind::VertexAi => false,
    }
}

/// The names of the platforms to which this build speaks.
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

/// The server of models of a platform that name no endpoint. `None`: they have to.
pub(super) fn own_endpoint(kind: Kind) -> Option<&'static Endpoint> {
    static ANTHROPIC: LazyLock<Endpoint> = LazyLock::new(|| Endpoint::at(EndpointUri::anthropic().clone()));
    match kind {
        Kind::Anthropic => Some(&ANTHROPIC),
        Kind::Unspecified | Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Bedrock | Kind::VertexAi => None,
    }
}

/// Whether chats are all that a platform takes.
pub(super) const fn is_chat_only(kind: Kind) -> bool {
    match kind {
        Kind::Anthropic => true,
        Kind::Unspecified | Kind::OpenaiCompatible | Kind::AzureOpenai | Kind::Bedrock | Kind::VertexAi => false,
    }
}

/// The beginning of an identifier that tells a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The text, slash included.
    pub text: &'static str,
    /// The platform that it tells.
    pub platform: Kind,
}

impl Prefix {
    /// The prefix that marks a name of an OpenAI-compatible server, whatever it begins with.
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

    /// The name that is sent to the servers: without the prefix.
    #[must_use]
    pub fn sent(&self) -> &str {
        self.prefix()
            .and_then(|prefix| self.0.strip_prefix(prefix.text))
            .unwrap_or(&self.0)
    }

    /// Why it cannot be a name on a platform, with both ways out. `None`: it can.
    #[must_use]
    pub fn contradiction(&self, platform: Kind) -> Option<String> {
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
    fn an_identifier_tells_its_platform_by_the_text_before_its_first_slash() {
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
        assert_eq!(identifier("org/model").contradiction(Kind::Bedrock), None);
        assert_eq!(identifier("azure/x").contradiction(Kind::AzureOpenai), None);
        let said = identifier("azure/x").contradiction(Kind::OpenaiCompatible).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("custom_openai/azure/"),
            "{said}"
        );
        let said = identifier("custom_openai/x").contradiction(Kind::Bedrock).unwrap();
        assert!(
            said.contains("`platform`") && said.contains("leave the prefix out"),
            "{said}"
        );
    }
}
