//! Says in plain words why a connection, or another operation of the system, failed.
//!
//! The one hard idea: the words are ours. The errors of libraries repeat their sources, add error numbers, and differ
//! between libraries for the same cause; the words here are the same for every connection, and short enough for the
//! message of a status.

use std::{borrow::Cow, error::Error, fmt, io, iter::successors};

/// What the system's resolver puts in front of its own words.
const LOOKUP_FAILED: &str = "failed to lookup address information: ";

/// Why something failed, in plain words: lower case and ASCII, without a full stop, for example `connection refused`.
///
/// It has no source: the words say everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause(Cow<'static, str>);

impl Cause {
    /// The other side closed the connection.
    pub const CLOSED: Self = Self(Cow::Borrowed("connection closed"));

    /// The maximum number of characters that are taken from the error of a library.
    const LENGTH_MAX: usize = 200;

    /// Creates a cause with words of the caller's own.
    #[must_use]
    pub fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }

    /// Finds the cause in an error: the innermost I/O error, or else the innermost error.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let io_errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
        match io_errors.last() {
            Some(error) => Self::of_io(error),
            None => Self::new(plain(&causes(error).last().unwrap_or(error).to_string())),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;

        let words = match error.kind() {
            Kind::ConnectionRefused => "connection refused",
            Kind::ConnectionReset => "connection reset",
            Kind::ConnectionAborted | Kind::BrokenPipe | Kind::NotConnected | Kind::UnexpectedEof => {
                return Self::CLOSED;
            }
            Kind::TimedOut => "timed out",
            Kind::HostUnreachable => "host unreachable",
            Kind::NetworkUnreachable => "network unreachable",
            Kind::AddrInUse => "address already in use",
            Kind::AddrNotAvailable => "address not available on this machine",
            Kind::PermissionDenied => "permission denied",
            _ => return Self::new(rare(error)),
        };
        Self::new(words)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

/// Returns an error and its causes, the outermost first. Unlike [`Error::source`], it also finds the error that an
/// [`io::Error`] wraps.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Returns the words for an I/O error that has none of its own.
fn rare(error: &io::Error) -> String {
    let text = error.to_string();
    if let Some(why) = text.strip_prefix(LOOKUP_FAILED) {
        return format!("the host name does not resolve ({})", plain(why));
    }
    let number = error.raw_os_error().map(|code| format!(" (os error {code})"));
    plain(text.strip_suffix(&number.unwrap_or_default()).unwrap_or(&text))
}

/// Brings the text of a library into the form of the words here.
fn plain(text: &str) -> String {
    let is_acronym = text.chars().nth(1).is_some_and(char::is_uppercase);
    let characters = text.chars().take(Cause::LENGTH_MAX).enumerate();
    let plain = characters.map(|(index, character)| match character {
        'A'..='Z' if index == 0 && !is_acronym => character.to_ascii_lowercase(),
        ' '..='~' => character,
        _ => '?',
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of a library, which repeats its source in its own text.
    #[derive(Debug, thiserror::Error)]
    #[error("client error: {0}")]
    struct Outer(#[source] io::Error);

    #[test]
    fn each_cause_has_its_words_however_deep_it_is() {
        for (number, words) in [
            (111, "connection refused"),
            (104, "connection reset"),
            (32, "connection closed"),
            (110, "timed out"),
            (113, "host unreachable"),
            (101, "network unreachable"),
            (98, "address already in use"),
            (99, "address not available on this machine"),
            (13, "permission denied"),
            (24, "too many open files"),
        ] {
            let error = || io::Error::from_raw_os_error(number);
            assert_eq!(Cause::of(&error()).to_string(), words);
            assert_eq!(Cause::of(&Outer(error())).to_string(), words);
            assert_eq!(Cause::of(&io::Error::other(Outer(error()))).to_string(), words);
        }
        let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(Cause::of(&closed).to_string(), "connection closed");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_such_a_cause() {
        let error = tokio::net::lookup_host("name.invalid:1").await.err().unwrap();
        let words = Cause::of(&Outer(error)).to_string();
        assert!(words.starts_with("the host name does not resolve ("), "{words}");
        assert_eq!(words, words.to_lowercase());
    }

    #[test]
    fn other_texts_become_plain_and_short() {
        for (text, words) in [
            ("Frame with invalid size", "frame with invalid size"),
            ("TLS is off", "TLS is off"),
            ("a\nb\u{e9}", "a?b?"),
            ("", ""),
        ] {
            assert_eq!(Cause::of(&io::Error::other(text)).to_string(), words);
        }
        let long = io::Error::other("x".repeat(5_000));
        assert_eq!(Cause::of(&long).to_string().len(), Cause::LENGTH_MAX);
    }
}
