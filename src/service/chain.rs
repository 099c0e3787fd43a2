//! Formats an error with all its causes on one line, for log lines and command-line output.

use std::{error::Error, fmt};

/// Displays an error and its causes, joined by colons.
///
/// The errors of some libraries repeat their source at the end of their own text. Such a source is left out, so that no
/// cause is displayed twice.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let inner = error.to_string();
            if !text.ends_with(&inner) {
                write!(f, ": {inner}")?;
                text = inner;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not open the database")]
    struct Outer(#[source] Repeating);

    /// An error as some libraries have them.
    #[derive(Debug, thiserror::Error)]
    #[error("i/o failed: {0}")]
    struct Repeating(#[source] std::io::Error);

    #[test]
    fn every_cause_is_displayed_once() {
        let error = Outer(Repeating(std::io::Error::other("disk on fire")));
        let text = "could not open the database: i/o failed: disk on fire";
        assert_eq!(Chain(&error).to_string(), text);
    }
}
