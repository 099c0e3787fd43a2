//! A request in the dialect of its server: its URL, its body, and its authentication header.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::AUTHORIZATION};
use serde_json::json;
use switchboard::{endpoint::EndpointUri, resource::model::Platform, secret::ApiToken};

const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The version of the Messages API that the router uses.
const ANTHROPIC_VERSION_SPOKEN: HeaderValue = HeaderValue::from_static("2023-06-01");

/// A request to a model server, ready to be sent.
pub struct Post {
    platform: Platform,
    /// The path, which begins with `/v1`, on platforms whose path does not contain the model's name.
    path: &'static str,
    /// The JSON object with all members that do not depend on the [`ReplyShape`], without its closing brace.
    beginning: Vec<u8>,
}

/// How the server returns its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyShape {
    /// As a stream, while the model generates it.
    Stream {
        /// Whether to ask the server to report usage. Old servers reject requests that ask.
        asks_usage: bool,
    },
    /// As a whole.
    Whole,
}

impl Post {
    /// Creates a request. `object` is a JSON object with at least one member.
    pub(super) fn new(platform: &Platform, path: &'static str, mut object: Vec<u8>) -> Self {
        object.pop();
        Self {
            platform: platform.clone(),
            path,
            beginning: object,
        }
    }

    /// Returns the platform whose dialect the request is in.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Returns the size of the body without the model's name and the [`ReplyShape`], in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.beginning.len()
    }

    /// Returns whether servers of this platform report the usage of a stream only on request.
    #[must_use]
    pub const fn may_ask_usage(&self) -> bool {
        match self.platform {
            Platform::OpenAiCompatible | Platform::AzureOpenAi { .. } => true,
            Platform::Anthropic => false,
        }
    }

    /// Returns the body as JSON. `identifier` is the server's own name for the model.
    #[must_use]
    pub fn body(&self, identifier: &str, reply: ReplyShape) -> Bytes {
        // These members come last, so that no earlier member of the same name can override them.
        let end = match reply {
            ReplyShape::Stream { asks_usage } if asks_usage && self.may_ask_usage() => {
                json!({"model": identifier, "stream": true, "stream_options": {"include_usage": true}})
            }
            ReplyShape::Stream { .. } => json!({"model": identifier, "stream": true}),
            ReplyShape::Whole => json!({"model": identifier, "stream": false}),
        }
        .to_string();
        let mut body = Vec::with_capacity(self.beginning.len() + end.len());
        body.extend_from_slice(&self.beginning);
        body.push(b',');
        body.extend_from_slice(&end.as_bytes()[1..]);
        body.into()
    }

    /// Returns the URL of the request.
    ///
    /// # Errors
    ///
    /// Fails if the URL contains the model's name and that name is too long for a URL. No server has such a model.
    pub fn uri(&self, endpoint: &EndpointUri, identifier: &str) -> Result<Uri, http::Error> {
        match &self.platform {
            Platform::OpenAiCompatible | Platform::Anthropic => Ok(endpoint.call(self.path)),
            Platform::AzureOpenAi { api_version } => {
                let (deployment, version) = (escaped(identifier), escaped(api_version.as_str()));
                let path = format!("/openai/deployments/{deployment}/chat/completions?api-version={version}");
                endpoint.call_below(&["/v1", "/openai"], &path)
            }
        }
    }

    /// Adds the headers that the dialect requires. Pass `token` only if it may be sent to this server.
    pub fn authorize(&self, headers: &mut HeaderMap, token: Option<&ApiToken>) {
        let (name, value) = match (&self.platform, token.map(ApiToken::expose)) {
            (Platform::OpenAiCompatible, token) => {
                (AUTHORIZATION, token.map(|token| Cow::Owned(format!("Bearer {token}"))))
            }
            (Platform::AzureOpenAi { .. }, token) => (API_KEY, token.map(Cow::Borrowed)),
            (Platform::Anthropic, token) => {
                headers.insert(ANTHROPIC_VERSION, ANTHROPIC_VERSION_SPOKEN);
                (X_API_KEY, token.map(Cow::Borrowed))
            }
        };
        if let Some(value) = value
            && let Ok(mut value) = HeaderValue::try_from(&*value)
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("platform", &self.platform)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes a text for one path segment or one query value.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use switchboard::resource::model::ApiVersion;

    use super::*;

    fn post(platform: Platform, path: &'static str) -> Post {
        Post::new(&platform, path, br#"{"a":1}"#.to_vec())
    }

    fn azure() -> Post {
        post(
            Platform::AzureOpenAi {
                api_version: ApiVersion::parse("2024-10-21").unwrap().unwrap(),
            },
            "",
        )
    }

    #[test]
    fn each_platform_has_its_own_url() {
        let openai = post(Platform::OpenAiCompatible, "/v1/chat/completions");
        let anthropic = post(Platform::Anthropic, "/v1/messages");
        let deployment = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
        for (post, base, expected) in [
            (&openai, "http://h:1/v1", "http://h:1/v1/chat/completions".to_owned()),
            (&anthropic, "https://h", "https://h/v1/messages".to_owned()),
            (&anthropic, "https://h/v1/", "https://h/v1/messages".to_owned()),
            (&azure(), "https://h", format!("https://h{deployment}")),
            (&azure(), "https://h/openai/", format!("https://h{deployment}")),
            (&azure(), "https://h/openai/v1", format!("https://h{deployment}")),
            (
                &azure(),
                "https://h/gateway/v1",
                format!("https://h/gateway{deployment}"),
            ),
        ] {
            let endpoint = EndpointUri::parse(base).unwrap();
            assert_eq!(post.uri(&endpoint, "gpt-4o").unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_deployment_name_is_escaped_in_the_path() {
        let endpoint = EndpointUri::parse("https://h").unwrap();
        let uri = azure().uri(&endpoint, "../a?b#ü").unwrap();
        assert_eq!(uri.path(), "/openai/deployments/..%2Fa%3Fb%23%C3%BC/chat/completions");
        assert!(azure().uri(&endpoint, &"x".repeat(70_000)).is_err());
    }

    #[test]
    fn each_platform_has_its_own_authentication_header() {
        let token = ApiToken::parse("t0ken".to_owned()).unwrap();
        for (post, expected) in [
            (
                post(Platform::OpenAiCompatible, ""),
                vec!["authorization: Bearer t0ken"],
            ),
            (azure(), vec!["api-key: t0ken"]),
            (
                post(Platform::Anthropic, ""),
                vec!["anthropic-version: 2023-06-01", "x-api-key: t0ken"],
            ),
        ] {
            let mut headers = HeaderMap::new();
            post.authorize(&mut headers, Some(&token));
            let mut lines: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort_unstable();
            assert_eq!(lines, expected);
            assert!(!format!("{headers:?}").contains("t0ken"), "the token is never printed");
            headers.clear();
            post.authorize(&mut headers, None);
            let secrets = ["authorization", "api-key", "x-api-key"];
            assert!(secrets.iter().all(|name| !headers.contains_key(*name)));
        }
    }

    #[test]
    fn model_and_stream_are_set_last() {
        let asked = ReplyShape::Stream { asks_usage: true };
        let unasked = ReplyShape::Stream { asks_usage: false };
        let openai = post(Platform::OpenAiCompatible, "");
        let anthropic = post(Platform::Anthropic, "");
        let with_usage = r#","model":"m\"","stream":true,"stream_options":{"include_usage":true}}"#;
        let without = r#","model":"m\"","stream":true}"#;
        for (post, reply, end) in [
            (&openai, asked, with_usage),
            (&azure(), asked, with_usage),
            (&openai, unasked, without),
            (&anthropic, asked, without),
            (&openai, ReplyShape::Whole, r#","model":"m\"","stream":false}"#),
        ] {
            let body = String::from_utf8(post.body("m\"", reply).to_vec()).unwrap();
            assert_eq!(body, format!(r#"{{"a":1{end}"#));
        }
    }
}
