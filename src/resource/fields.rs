//! Reads the fields of a message: the source of each value, and its violations.

use std::collections::BTreeSet;

use crate::{
    endpoint::EndpointError, names::ModelName, reason::FieldReason, secret::ApiTokenError, violation::Violations,
};

use super::{feature::FeaturePartError, model::ModelPartError};

/// Which fields of a message a write has set, and which it has only kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The message is a complete resource: every field that is present counts as set.
    Whole,
    /// The message is a stored resource into which a write was merged. The write keeps the fields that are in neither
    /// list.
    Over {
        /// Paths of the fields that the write has set, down to the leaves of nested messages: `limits.max_queue`.
        set: BTreeSet<String>,
        /// Paths of the fields that the write has cleared.
        cleared: BTreeSet<String>,
    },
    /// The message is a write whose stored resource is not known. Each present field is checked on its own, and absent
    /// fields are not checked. Reading returns only violations and never a resource.
    Alone,
}

/// The source of a field's value, or of its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The write does not mention the field, which keeps its stored value.
    Kept,
    /// The write has set the field.
    Set,
    /// The write has cleared the field.
    Cleared,
}

impl Given {
    /// Returns the source of the field at `path`. `is_present`: whether the message has a value for the field.
    #[must_use]
    pub fn source(&self, path: &str, is_present: bool) -> Source {
        match self {
            Self::Whole | Self::Alone if is_present => Source::Set,
            Self::Whole | Self::Alone => Source::Kept,
            Self::Over { set, .. } if set.contains(path) => Source::Set,
            Self::Over { cleared, .. } if cleared.contains(path) => Source::Cleared,
            Self::Over { .. } => Source::Kept,
        }
    }
}

/// What is wrong with a value. The path of its field is added later.
#[derive(Debug)]
pub(super) struct Flaw {
    reason: FieldReason,
    description: String,
}

impl Flaw {
    pub(super) fn new(reason: FieldReason, description: impl Into<String>) -> Self {
        Self {
            reason,
            description: description.into(),
        }
    }
}

impl From<ModelPartError> for Flaw {
    fn from(error: ModelPartError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<FeaturePartError> for Flaw {
    fn from(error: FeaturePartError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<EndpointError> for Flaw {
    fn from(error: EndpointError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<ApiTokenError> for Flaw {
    fn from(error: ApiTokenError) -> Self {
        let reason = match error {
            ApiTokenError::Empty => FieldReason::FieldRequired,
            ApiTokenError::TooLong => FieldReason::ValueOutOfRange,
            ApiTokenError::NotVisibleAscii => FieldReason::CredentialNotAscii,
        };
        Self::new(reason, error.to_string())
    }
}

/// The result of reading one field.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// The value of the field. `None`: the field has no value, or an invalid one.
    pub(super) value: Option<T>,
    pub(super) source: Source,
    /// Whether the value is invalid. A violation for it was already added.
    pub(super) is_bad: bool,
}

impl<T> Field<T> {
    pub(super) const fn bad(source: Source) -> Self {
        Self {
            value: None,
            source,
            is_bad: true,
        }
    }

    /// Whether the write itself has set the value.
    pub(super) const fn is_given(&self) -> bool {
        matches!(self.source, Source::Set) && self.value.is_some()
    }

    /// Returns the value if the write itself has set it.
    pub(super) fn given(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.source == Source::Set)
    }
}

impl<T> Field<Option<T>> {
    /// Treats a present but empty value as if the write had cleared the field.
    pub(super) fn flattened(self) -> Field<T> {
        let says_none = matches!(self.value, Some(None)) && self.source == Source::Set;
        Field {
            value: self.value.flatten(),
            source: if says_none { Source::Cleared } else { self.source },
            is_bad: self.is_bad,
        }
    }
}

/// Reads the fields of one resource and collects their violations.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The first part of the paths in violations, for example `model`.
    resource: &'static str,
    given: &'a Given,
    pub(super) violations: &'a mut Violations,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(resource: &'static str, given: &'a Given, violations: &'a mut Violations) -> Self {
        Self {
            resource,
            given,
            violations,
        }
    }

    /// Whether the fields can only be checked one by one, because the stored resource is not known.
    pub(super) fn are_alone(&self) -> bool {
        *self.given == Given::Alone
    }

    pub(super) fn source(&self, path: &str, is_present: bool) -> Source {
        self.given.source(path, is_present)
    }

    /// Parses the value of one field and adds a violation if it is invalid.
    pub(super) fn read<T, U, E: Into<Flaw>>(
        &mut self,
        path: &str,
        value: Option<T>,
        parse: impl FnOnce(T) -> Result<U, E>,
    ) -> Field<U> {
        let source = self.source(path, value.is_some());
        match value.map(parse).transpose() {
            Ok(value) => Field {
                value,
                source,
                is_bad: false,
            },
            Err(error) => {
                self.refuse(path, error);
                Field::bad(source)
            }
        }
    }

    /// Returns the value of a required field. `None`: there is no valid value, and a violation was added.
    pub(super) fn required<T>(&mut self, path: &str, field: Field<T>) -> Option<T> {
        if field.value.is_none() && !field.is_bad {
            let description = match field.source {
                Source::Kept | Source::Set => "must be given",
                Source::Cleared => "is required and cannot be cleared",
            };
            self.push(path, FieldReason::FieldRequired, description);
        }
        field.value
    }

    /// Adds a violation for the field at `path`.
    pub(super) fn push(&mut self, path: &str, reason: FieldReason, description: impl Into<String>) {
        let field = format!("{}.{path}", self.resource);
        self.violations.push(field, reason, description);
    }

    /// Adds `error` as a violation for the field at `path`.
    pub(super) fn refuse(&mut self, path: &str, error: impl Into<Flaw>) {
        let flaw = error.into();
        self.push(path, flaw.reason, flaw.description);
    }

    /// Returns the parsed value at `path`, which is usually a part of a list entry. `None`: the value is invalid, and a
    /// violation was added.
    pub(super) fn part<T, E: Into<Flaw>>(&mut self, path: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.refuse(path, error)).ok()
    }
}

/// Parses the name of a model in a field that refers to the model.
pub(super) fn model_name(text: &str) -> Result<ModelName, Flaw> {
    ModelName::parse(text).map_err(|error| Flaw::new(error.reason(text), error.to_string()))
}

/// Parses the name of a model in an entry of a list, where it is required.
pub(super) fn entry_model_name(text: &str) -> Result<ModelName, Flaw> {
    match text {
        "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
        text => model_name(text),
    }
}
