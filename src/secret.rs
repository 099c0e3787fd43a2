//! The type of API tokens: it does not print its value.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// Why a text is not a valid API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiTokenError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than [`ApiToken::LENGTH_MAX`] characters.
    #[error("must have at most {} characters", ApiToken::LENGTH_MAX)]
    TooLong,
    /// The text contains a character other than visible ASCII, which is not allowed in the value of an HTTP header.
    #[error("must contain only visible ASCII characters, no spaces and no line breaks")]
    NotVisibleAscii,
}

/// The API token of a model server. It is never printed, and is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct ApiToken(SecretString);

impl ApiToken {
    /// The maximum length of a token, in characters.
    pub const LENGTH_MAX: usize = 2000;

    /// Parses a token: 1 to [`Self::LENGTH_MAX`] visible ASCII characters.
    ///
    /// # Errors
    ///
    /// [`ApiTokenError`]. Its message never contains the text.
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

    /// Returns the secret itself. Only for storing it, for sending it to a router, and for the header of requests to
    /// the model server.
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
    fn a_token_is_visible_ascii_and_is_never_printed() {
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
