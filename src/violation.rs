//! What is wrong with a request, field by field, collected until all is known.

use crate::reason::FieldReason;

/// One bad field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path from the request down, for example `model.endpoints[1].uri`.
    pub field: String,
    /// The reason, for programs.
    pub reason: FieldReason,
    /// What was wrong and what would be right, for people. Never repeats a secret.
    pub description: String,
}

/// Bad fields in the order in which they were found. Empty: nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, field: impl Into<String>, reason: FieldReason, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            reason,
            description: description.into(),
        });
    }

    /// Adds all of another collection.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The same for a part of a larger request: `prefix` stands before each field, for example `requests[2].`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for violation in &mut self.0 {
            violation.field.insert_str(0, prefix);
        }
        self
    }

    /// The same for a resource that stands at another path of the request: `model.family` is
    /// `config.models[3].family` when `model` moves to `config.models[3]`.
    #[must_use]
    pub fn moved(mut self, from: &str, to: &str) -> Self {
        for violation in &mut self.0 {
            if let Some(rest) = violation.field.strip_prefix(from) {
                violation.field = format!("{to}{rest}");
            }
        }
        self
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// The value, or all that is wrong.
    ///
    /// # Errors
    ///
    /// The violations themselves, when there are any.
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
