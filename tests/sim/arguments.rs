//! The command line: of the simulation, and as much of that of every test binary as people and scripts use.

use std::{iter::Peekable, num::ParseIntError};

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// Play this run alone, and print it.
    pub(crate) seed: Option<u64>,
    /// Play so many runs, and nothing else.
    pub(crate) seeds: Option<u64>,
    /// Say which tests there are.
    pub(crate) list: bool,
    /// Only tests that none of the others are like.
    is_ignored_only: bool,
    is_exact: bool,
    filters: Vec<String>,
    skipped: Vec<String>,
}

/// Why a command line is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("{0} needs a value")]
    ValueMissing(String),
    #[error("{option} needs a number")]
    NoNumber { option: String, source: ParseIntError },
    #[error("{0} is not known: there are --seed N, --seeds COUNT, --list, --exact, --skip TEXT and parts of names")]
    Unknown(String),
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut arguments = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let (option, mut given) = match word.split_once('=') {
                Some((option, given)) if word.starts_with("--") => (option.to_owned(), Some(given.to_owned())),
                _ => (word, None),
            };
            match &*option {
                "--seed" => arguments.seed = Some(number(option, &mut given, &mut words)?),
                "--seeds" => arguments.seeds = Some(number(option, &mut given, &mut words)?),
                "--list" => arguments.list = true,
                "--exact" => arguments.is_exact = true,
                "--ignored" => arguments.is_ignored_only = true,
                "--skip" => arguments.skipped.push(value(option, &mut given, &mut words)?),
                // What is said is always shown, and how many threads there are does not matter to a run.
                "--nocapture" | "--no-capture" | "--show-output" | "--include-ignored" | "--quiet" | "-q" => {}
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    value(option, &mut given, &mut words)?;
                }
                _ if option.starts_with('-') => return Err(ArgumentError::Unknown(option)),
                _ => arguments.filters.push(option),
            }
        }
        Ok(arguments)
    }

    /// Whether the test of this name is asked for.
    pub(crate) fn selects(&self, name: &str) -> bool {
        let fits = |text: &String| {
            if self.is_exact {
                name == text
            } else {
                name.contains(text)
            }
        };
        let is_wanted = self.filters.is_empty() || self.filters.iter().any(fits);
        is_wanted && !self.skipped.iter().any(fits) && !self.is_ignored_only
    }
}

fn number(
    option: String,
    given: &mut Option<String>,
    words: &mut Peekable<impl Iterator<Item = String>>,
) -> Result<u64, ArgumentError> {
    let text = value(option.clone(), given, words)?;
    text.parse()
        .map_err(|source| ArgumentError::NoNumber { option, source })
}

fn value(
    option: String,
    given: &mut Option<String>,
    words: &mut Peekable<impl Iterator<Item = String>>,
) -> Result<String, ArgumentError> {
    given
        .take()
        .or_else(|| words.next())
        .ok_or(ArgumentError::ValueMissing(option))
}
