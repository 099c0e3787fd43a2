//! Base URLs of model servers, and the origins that API tokens are bound to.
//!
//! This module only parses text: it does not decide whether the router may connect to an address.

use std::{fmt, sync::LazyLock};

use http::{Uri, uri::PathAndQuery};

use crate::reason::FieldReason;

/// Why a text is not a valid endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text has more than [`EndpointUri::LENGTH_MAX`] characters.
    #[error("must have at most {} characters", EndpointUri::LENGTH_MAX)]
    TooLong,
    /// The scheme is missing, or is neither http nor https.
    #[error("must begin with `http://` or `https://`, for example `http://gpu1.example.com:8000`")]
    Scheme,
    /// The URL contains a user name or a password in front of the host.
    #[error("must not contain a user name or a password; set the API token in `api_token`")]
    Userinfo,
    /// The URL contains a query after the path.
    #[error("must not have a query (`?name=value`)")]
    Query,
    /// The URL contains a fragment after the path.
    #[error("must not have a fragment (`#name`)")]
    Fragment,
    /// The text is not a usable URL for another cause: no host, a bad port, a path with `..`, or a character that must
    /// be escaped.
    #[error("must be a URL such as `http://gpu1.example.com:8000/v1`")]
    Malformed,
}

impl EndpointError {
    /// Returns the reason of a violation with this error.
    #[must_use]
    pub const fn reason(self) -> FieldReason {
        match self {
            Self::TooLong => FieldReason::ValueOutOfRange,
            Self::Scheme => FieldReason::EndpointSchemeUnsupported,
            Self::Userinfo => FieldReason::EndpointHasUserinfo,
            Self::Query => FieldReason::EndpointHasQuery,
            Self::Fragment => FieldReason::EndpointHasFragment,
            Self::Malformed => FieldReason::EndpointMalformed,
        }
    }
}

/// The base URL of a model server, exactly as the model's configuration has it.
///
/// ```
/// use switchboard::endpoint::EndpointUri;
/// let endpoint = EndpointUri::parse("http://gpu1:8000/v1/")?;
/// assert_eq!(endpoint.as_str(), "http://gpu1:8000/v1/");
/// assert_eq!(endpoint.call("/v1/chat/completions").to_string(), "http://gpu1:8000/v1/chat/completions");
/// assert_eq!(endpoint.origin().to_string(), "http://gpu1:8000");
/// # Ok::<(), switchboard::endpoint::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUri {
    given: Box<str>,
    uri: Uri,
}

impl EndpointUri {
    /// The maximum length of an endpoint, in characters.
    pub const LENGTH_MAX: usize = 2048;

    /// Parses a base URL. A trailing slash or `/v1` is accepted and makes no difference to the URLs of calls.
    ///
    /// # Errors
    ///
    /// The first [`EndpointError`] that applies.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(EndpointError::TooLong);
        }
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let rest = if lower.starts_with("http://") {
            text.get(7..)
        } else if lower.starts_with("https://") {
            text.get(8..)
        } else {
            return Err(EndpointError::Scheme);
        };
        let rest = rest.unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(EndpointError::Userinfo);
        }
        if rest.contains('#') {
            return Err(EndpointError::Fragment);
        }
        if rest.contains('?') {
            return Err(EndpointError::Query);
        }
        let uri: Uri = text.parse().map_err(|_malformed| EndpointError::Malformed)?;
        let is_whole = uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16() != Some(0)
            && (uri.port().is_some() || !authority.rsplit(']').next().unwrap_or_default().contains(':'))
            && !uri.path().split('/').any(|segment| matches!(segment, "." | ".."));
        if !is_whole {
            return Err(EndpointError::Malformed);
        }
        Ok(Self {
            given: text.into(),
            uri,
        })
    }

    /// The endpoint of Anthropic's own service.
    ///
    /// # Panics
    ///
    /// Never: the URL is a constant, and a test parses it.
    #[must_use]
    pub fn anthropic() -> &'static Self {
        #[expect(clippy::expect_used, reason = "the URL is a constant, and a test parses it")]
        static ANTHROPIC: LazyLock<EndpointUri> =
            LazyLock::new(|| EndpointUri::parse("https://api.anthropic.com").expect("a constant"));
        &ANTHROPIC
    }

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// The host part of the original text: a name or an IP address. An IPv6 address is in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Returns the origin: scheme, host in lower case, and port.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let is_tls = self.uri.scheme_str() == Some("https");
        let default = if is_tls { 443 } else { 80 };
        Origin {
            is_tls,
            host: self.uri.host().unwrap_or_default().to_ascii_lowercase().into(),
            port: self.uri.port_u16().unwrap_or(default),
        }
    }

    /// Returns the URL of an API call. `path` begins with `/v1`; a `/v1` at the end of the base URL is not repeated.
    ///
    /// # Panics
    ///
    /// Never for a `path` that is a constant of this program.
    #[must_use]
    #[expect(clippy::expect_used, reason = "both halves were parsed as paths")]
    pub fn call(&self, path: &'static str) -> Uri {
        let base = self.uri.path().trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let mut parts = self.uri.clone().into_parts();
        let path = PathAndQuery::try_from(format!("{base}{path}")).expect("two paths joined are a path");
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).expect("scheme and authority were parsed before")
    }

    /// Returns the URL of an API call whose path is not a constant. `path` begins with a slash and may contain a query.
    /// Each of `endings`, in this order, is first removed from the end of the base URL if it is there.
    ///
    /// # Errors
    ///
    /// An error of the `http` crate if the URL would be too long, or `path` is not a valid path.
    pub fn call_below(&self, endings: &[&str], path: &str) -> Result<Uri, http::Error> {
        let mut base = self.uri.path();
        for ending in endings {
            base = base.trim_end_matches('/');
            base = base.strip_suffix(ending).unwrap_or(base);
        }
        let base = base.trim_end_matches('/');
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{base}{path}"))?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// Scheme, host and port of a model server. An API token is bound to origins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    is_tls: bool,
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// Parses `scheme://host:port`, the form that [`fmt::Display`] writes.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the text has any other form.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let origin = EndpointUri::parse(text)?.origin();
        if origin.to_string() == text {
            Ok(origin)
        } else {
            Err(EndpointError::Malformed)
        }
    }

    /// Whether the scheme is https.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The port. If the URL has none, the scheme's default port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_or_v1_of_a_base_url_makes_no_difference() {
        for base in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            let uri = EndpointUri::parse(base).unwrap();
            assert_eq!(
                uri.call("/v1/chat/completions").to_string(),
                "http://h:1/v1/chat/completions",
                "{base}"
            );
        }
        let below = EndpointUri::parse("https://h/llm/v1").unwrap();
        assert_eq!(
            below.call("/v1/completions").to_string(),
            "https://h/llm/v1/completions"
        );
    }

    #[test]
    fn call_below_removes_the_endings_from_the_base_url() {
        let call = |base: &str| {
            let uri = EndpointUri::parse(base).unwrap();
            uri.call_below(&["/v1", "/own"], "/own/x?y=1")
                .map(|uri| uri.to_string())
        };
        for base in [
            "https://h",
            "https://h/",
            "https://h/own",
            "https://h/own/v1/",
            "https://h/v1",
        ] {
            assert_eq!(call(base).unwrap(), "https://h/own/x?y=1", "{base}");
        }
        assert_eq!(
            call("https://h/own/gateway").unwrap(),
            "https://h/own/gateway/own/x?y=1"
        );
        let uri = EndpointUri::parse("https://h").unwrap();
        assert!(uri.call_below(&[], "/a b").is_err());
    }

    #[test]
    fn a_bad_endpoint_is_refused_with_its_cause() {
        use EndpointError as E;
        let long = format!("http://h/{}", "a".repeat(3000));
        for (text, error) in [
            ("gpu1:8000", E::Scheme),
            ("", E::Scheme),
            ("ftp://h", E::Scheme),
            ("http://u:p@h:1", E::Userinfo),
            ("http://h:1?x=1", E::Query),
            ("http://h:1/v1#x", E::Fragment),
            ("http://", E::Malformed),
            ("http://:80", E::Malformed),
            ("http://h:", E::Malformed),
            ("http://h:0", E::Malformed),
            ("http://h:99999", E::Malformed),
            ("http://h/../admin", E::Malformed),
            ("http://h/a b", E::Malformed),
            ("http://h\r\nx: y", E::Malformed),
            (long.as_str(), E::TooLong),
        ] {
            assert_eq!(EndpointUri::parse(text), Err(error), "{text:.40}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| EndpointUri::parse(text).unwrap().origin();
        assert_eq!(origin("http://GPU1/v1"), origin("http://gpu1:80"));
        assert_eq!(origin("https://gpu1"), origin("https://gpu1:443/x"));
        let anthropic = EndpointUri::anthropic().origin();
        assert_eq!(anthropic.to_string(), "https://api.anthropic.com:443");
        assert_ne!(origin("http://gpu1:443"), origin("https://gpu1:443"));
        assert_eq!(origin("http://[::1]:8000").to_string(), "http://[::1]:8000");
        assert_eq!(Origin::parse("http://gpu1:80"), Ok(origin("http://gpu1")));
        assert!(Origin::parse("http://gpu1").is_err());
        assert!(Origin::parse("http://gpu1:80/v1").is_err());
    }
}
