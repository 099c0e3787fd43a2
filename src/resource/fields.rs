//! Reading the fields of a message: where each value comes from, and what is wrong with it.

use std::collections::BTreeSet;

use crate::{
    endpoint::EndpointError, names::ModelName, reason::FieldReason, secret::ApiTokenError, violation::Violations,
};

use super::{feature::FeaturePartError, model::ModelPartError};

/// Which fields of a message a write has given, and which it has only kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The message is all that there is: what is present is given.
    Whole,
    /// The message is a stored one with a write laid over it. The other fields are as they were.
    Over {
        /// The paths that the write has set, the leaves of messages included: `limits.max_queue`.
        set: BTreeSet<String>,
        /// The paths that the write has cleared.
        cleared: BTreeSet<String>,
    },
    /// The message is a write, and what is stored is not known: each field is read by itself, and nothing is asked of those
    /// that are absent. Reading never gives a resource then, only violations.
    Alone,
}

/// Where the value of a field comes from, or why it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The write says nothing of it: it is as it was.
    Kept,
    /// The write has set it.
    Set,
    /// The write has cleared it.
    Cleared,
}

impl Given {
    /// The source of the field at `path`, whose value is present or not.
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

/// What is wrong with one value, before it is known which field has it.
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

/// One field as it was read.
#[derive(Debug)]
pub(super) struct Field<T> {
    /// The value. `None`: it has none, or a bad one.
    pub(super) value: Option<T>,
    pub(super) source: Source,
    /// Its value is bad, which is a violation already.
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

    /// Whether the write itself gives the value.
    pub(super) const fn is_given(&self) -> bool {
        matches!(self.source, Source::Set) && self.value.is_some()
    }

    /// The value, if the write itself gives it.
    pub(super) fn given(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.source == Source::Set)
    }
}

impl<T> Field<Option<T>> {
    /// A present value that says that there shall be none is as good as clearing the field.
    pub(super) fn flattened(self) -> Field<T> {
        let says_none = matches!(self.value, Some(None)) && self.source == Source::Set;
        Field {
            value: self.value.flatten(),
            source: if says_none { Source::Cleared } else { self.source },
            is_bad: self.is_bad,
        }
    }
}

/// The fields of one resource that is read, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The name of the resource in the paths of violations.
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

    /// Whether nothing may be asked of the fields together.
    pub(super) fn are_alone(&self) -> bool {
        *self.given == Given::Alone
    }

    pub(super) fn source(&self, path: &str, is_present: bool) -> Source {
        self.given.source(path, is_present)
    }

    /// Reads one field.
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

    /// The value of a field that must have one. `None`: it has none, which is a violation by now.
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

    /// Adds a violation at a field.
    pub(super) fn push(&mut self, path: &str, reason: FieldReason, description: impl Into<String>) {
        let field = format!("{}.{path}", self.resource);
        self.violations.push(field, reason, description);
    }

    /// Adds what is wrong with the value of a field.
    pub(super) fn refuse(&mut self, path: &str, error: impl Into<Flaw>) {
        let flaw = error.into();
        self.push(path, flaw.reason, flaw.description);
    }

    /// The value of a part of a list's entry. `None`: it is bad, which is a violation by now.
    pub(super) fn part<T, E: Into<Flaw>>(&mut self, path: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.refuse(path, error)).ok()
    }
}

/// Reads the name of a model, where another field than `name` gives it.
pub(super) fn model_name(text: &str) -> Result<ModelName, Flaw> {
    ModelName::parse(text).map_err(|error| Flaw::new(error.reason(text), error.to_string()))
}

/// The same of an entry of a list, which has to have one.
pub(super) fn entry_model_name(text: &str) -> Result<ModelName, Flaw> {
    match text {
        "" => Err(Flaw::new(FieldReason::FieldRequired, "must be given")),
        text => model_name(text),
    }
}
