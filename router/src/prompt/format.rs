//! The format of code completion for each family, as data.

use std::sync::LazyLock;

use serde::Deserialize;
use switchboard::catalogue::{Catalogue, Family};

/// How a family is asked to complete code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Format {
    machine_name: String,
    /// How code is completed if the model sets no infill mode.
    pub(super) mode: FormatMode,
    /// The family's infill tokens. `None`: it has none.
    pub(super) tokens: Option<Tokens>,
    /// How a completion is requested if it is sent as a chat.
    #[serde(default)]
    pub(super) chat: ChatStyle,
    /// Stop texts of a completion.
    #[serde(default)]
    pub(super) stop: Vec<String>,
    /// Option defaults for completing code.
    pub(super) infill: Defaults,
    /// Option defaults for generating code from an instruction.
    #[serde(default)]
    pub(super) generation: Defaults,
}

/// How code is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FormatMode {
    /// As text to continue, with the family's infill tokens.
    Completions,
    /// As a chat.
    Chat,
}

/// How a chat requests a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChatStyle {
    /// With the family's infill tokens, after a system message.
    Tokens,
    /// With a placeholder between prefix and suffix.
    Placeholder,
    /// With a plain marker before the prefix and one before the suffix.
    Marks,
    /// With prefix and suffix in tags.
    #[default]
    Tags,
}

/// A family's infill tokens, which surround the code before and after the cursor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tokens {
    begin: String,
    between: String,
    end: String,
    /// Whether the code after the cursor comes first.
    #[serde(default)]
    suffix_first: bool,
}

impl Tokens {
    /// Returns the code with its infill tokens.
    #[must_use]
    pub(super) fn around(&self, prefix: &str, suffix: &str) -> String {
        let (first, second) = if self.suffix_first {
            (suffix, prefix)
        } else {
            (prefix, suffix)
        };
        [&self.begin, first, &self.between, second, &self.end].concat()
    }
}

/// Option defaults of one kind of task, used if the caller does not set the option. `None`: the family's general
/// default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    /// Sampling temperature.
    pub(super) temperature: Option<f64>,
    /// Maximum number of tokens of the answer.
    pub(super) max_output_tokens: Option<i32>,
}

impl Format {
    /// Returns the format of a family.
    ///
    /// # Panics
    ///
    /// Never in a build that has passed its tests: the data is compiled in, and `read` checks that every family has a
    /// format.
    #[must_use]
    pub(super) fn of(family: &Family) -> &'static Self {
        #[expect(clippy::expect_used, reason = "the data is compiled in, and a test reads it")]
        static FORMATS: LazyLock<Vec<Format>> =
            LazyLock::new(|| read(Catalogue::get()).expect("every family has a well-formed format"));
        #[expect(clippy::expect_used, reason = "`read` checks that every family has one")]
        FORMATS
            .iter()
            .find(|format| format.machine_name == family.machine_name)
            .expect("every family has a format")
    }
}

/// Why the data file cannot be used.
#[derive(Debug, thiserror::Error)]
enum FormatError {
    #[error("the file is malformed")]
    Malformed(#[from] toml::de::Error),
    #[error("family `{0}` must have exactly one format")]
    Count(String),
    #[error("family `{0}` must have `tokens`")]
    NoTokens(String),
}

fn read(catalogue: &Catalogue) -> Result<Vec<Format>, FormatError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Formats {
        family: Vec<Format>,
    }
    let formats = toml::from_str::<Formats>(include_str!("families.toml"))?.family;
    for family in catalogue.families() {
        let mut own = formats
            .iter()
            .filter(|format| format.machine_name == family.machine_name);
        if own.next().is_none() || own.next().is_some() {
            return Err(FormatError::Count(family.machine_name.clone()));
        }
    }
    for format in &formats {
        let needs_tokens = format.mode == FormatMode::Completions || format.chat == ChatStyle::Tokens;
        if needs_tokens && format.tokens.is_none() {
            return Err(FormatError::NoTokens(format.machine_name.clone()));
        }
        if catalogue.family(&format.machine_name).is_none() {
            return Err(FormatError::Count(format.machine_name.clone()));
        }
    }
    Ok(formats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_the_catalogue_has_a_format() {
        let catalogue = Catalogue::get();
        let formats = read(catalogue).unwrap();
        assert_eq!(formats.len(), catalogue.families().len());
        for family in catalogue.families() {
            let format = Format::of(family);
            assert_eq!(format.machine_name, family.machine_name);
            assert!(
                family.chat || format.mode == FormatMode::Completions,
                "{} does not support chat",
                family.machine_name
            );
        }
    }
}
