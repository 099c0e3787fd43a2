//! Violations: the invalid fields of a request, collected so that one response can report all of them.

use crate::reason::FieldReason;

/// One invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, starting at the request, for example `model.endpoints[1].uri`.
    pub field: String,
    /// The reason, for programs.
    pub reason: FieldReason,
    /// For people: what is wrong with the value and which values are valid. Never contains a secret.
    pub description: String,
}

/// Invalid fields in the order in which they were found. Empty: no field is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Creates an empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a violation.
    pub fn push(&mut self, field: impl Into<String>, reason: FieldReason, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            reason,
            description: description.into(),
        });
    }

    /// Adds all violations of another collection.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Puts `prefix` in front of each field path, for a part of a larger request, for example `requests[2].`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for violation in &mut self.0 {
            violation.field.insert_str(0, prefix);
        }
        self
    }

    /// Replaces the prefix `from` of field paths by `to`, for a resource that has another path in the request: with
    /// `model` and `config.models[3]`, `model.family` becomes `config.models[3].family`.
    #[must_use]
    pub fn moved(mut self, from: &str, to: &str) -> Self {
        for violation in &mut self.0 {
            if let Some(rest) = violation.field.strip_prefix(from) {
                violation.field = format!("{to}{rest}");
            }
        }
        self
    }

    /// Whether there are no violations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All violations.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// Returns `value` if there are no violations.
    ///
    /// # Errors
    ///
    /// The violations, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
