//! API tokens in a type that cannot be printed.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// Why a text is not an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiTokenError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than [`ApiToken::LENGTH_MAX`] characters.
    #[error("must have at most {} characters", ApiToken::LENGTH_MAX)]
    TooLong,
    /// The text has a character that no header value should carry.
    #[error("must have visible ASCII characters only, without blanks and line ends")]
    NotVisibleAscii,
}

/// The API token of a model server: never printed, wiped from memory when dropped.
#[derive(Clone)]
pub struct ApiToken(SecretString);

impl ApiToken {
    /// The most characters that a token may have.
    pub const LENGTH_MAX: usize = 2000;

    /// Parses a token: 1 to [`Self::LENGTH_MAX`] visible ASCII characters.
    ///
    /// # Errors
    ///
    /// [`ApiTokenError`], which never repeats the text.
    pub fn parse(text: String) -> Result<Self, ApiTokenError> {
        let token = SecretString::from(text);
        let text = token.expose_secret();
        if text.is_empty() {
            return Err(ApiTokenError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiTokenError::NotVisibleAscii);
        }
        if text.len() > Self::LENGTH_MAX {
            return Err(ApiTokenError::TooLong);
        }
        Ok(Self(token))
    }

    /// The token itself. Only for the store that keeps it, the wire to a router, and the header to its model server.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_visible_ascii_and_never_printed() {
        let token = ApiToken::parse("sk-1".to_owned()).unwrap();
        assert_eq!(token.expose(), "sk-1");
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(
            ApiToken::parse("a\nb".to_owned()).unwrap_err(),
            ApiTokenError::NotVisibleAscii
        );
        assert_eq!(
            ApiToken::parse("a b".to_owned()).unwrap_err(),
            ApiTokenError::NotVisibleAscii
        );
        assert_eq!(ApiToken::parse(String::new()).unwrap_err(), ApiTokenError::Empty);
        assert!(ApiToken::parse("x".repeat(2000)).is_ok());
        assert_eq!(ApiToken::parse("x".repeat(2001)).unwrap_err(), ApiTokenError::TooLong);
    }
}
