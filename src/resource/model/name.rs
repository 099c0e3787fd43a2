//! The display name of a model.

use super::ModelPartError;

/// The name of a model that users see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName {
    given: Box<str>,
    /// The form in which names are compared, see [`Self::folded()`]. Stored, because every write compares it with the
    /// names of all models.
    folded: Box<str>,
}

impl DisplayName {
    /// The maximum length of a display name, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Parses a display name: 1 to [`Self::LENGTH_MAX`] characters, not all of them white space.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Self, ModelPartError> {
        if text.trim().is_empty() {
            return Err(ModelPartError::DisplayNameBlank);
        }
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::DisplayNameTooLong);
        }
        Ok(Self {
            given: text.into(),
            folded: text.trim().to_lowercase().into(),
        })
    }

    /// The original text, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// Returns the form in which names are compared: lower case, without surrounding white space.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Whether `other` is the same name. Upper and lower case, and surrounding white space, do not matter.
    #[must_use]
    pub fn is_taken_by(&self, other: &Self) -> bool {
        self.folded == other.folded
    }

    /// Derives a model id from the name: lower-case letters and digits, one hyphen for each run of other characters, at
    /// most 63 characters. The result is `model` if nothing is left. It may already be taken by another model.
    ///
    /// ```
    /// use switchboard::resource::model::DisplayName;
    /// assert_eq!(DisplayName::parse("Mistral 7B (GPU 1)")?.to_id(), "mistral-7b-gpu-1");
    /// assert_eq!(DisplayName::parse("模型")?.to_id(), "model");
    /// # Ok::<(), switchboard::resource::model::ModelPartError>(())
    /// ```
    #[must_use]
    pub fn to_id(&self) -> String {
        let mut id = String::new();
        for letter in self.folded.chars() {
            if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                id.push(letter);
            } else if !id.is_empty() && !id.ends_with('-') {
                id.push('-');
            }
        }
        id.truncate(63);
        let id = id.trim_end_matches('-');
        if id.is_empty() { "model" } else { id }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_derived_from_the_display_name() {
        let long = "Long ".repeat(30);
        for (text, id) in [
            ("Mistral", "mistral"),
            ("  Mistral  7B!", "mistral-7b"),
            ("a - b", "a-b"),
            ("---", "model"),
            ("Ünïcode", "n-code"),
            (
                long.as_str(),
                "long-long-long-long-long-long-long-long-long-long-long-long-lon",
            ),
        ] {
            assert_eq!(DisplayName::parse(text).unwrap().to_id(), id, "{text}");
        }
        let cut_at_a_hyphen = format!("{} x", "a".repeat(62));
        assert_eq!(DisplayName::parse(&cut_at_a_hyphen).unwrap().to_id(), "a".repeat(62));
    }

    #[test]
    fn display_names_are_compared_without_case_and_surrounding_white_space() {
        let name = |text| DisplayName::parse(text).unwrap();
        assert!(name(" MISTRAL ").is_taken_by(&name("Mistral")));
        assert!(!name("Mistral 2").is_taken_by(&name("Mistral")));
        assert_eq!(DisplayName::parse(" \t"), Err(ModelPartError::DisplayNameBlank));
        assert!(DisplayName::parse(&"ä".repeat(255)).is_ok());
        assert_eq!(
            DisplayName::parse(&"a".repeat(256)),
            Err(ModelPartError::DisplayNameTooLong)
        );
    }
}
