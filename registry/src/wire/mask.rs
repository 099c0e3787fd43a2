//! Update masks: which fields an update is about, and what it asks of each.

use switchboard::{reason::FieldReason, violation::Violations};

use super::Flaw;
use crate::domain::write::Edit;

/// The paths that a mask may and may not have for one kind of resource.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// What can be set.
    pub settable: &'static [&'static str],
    /// What cannot be set: the name and everything that is output only.
    pub fixed: &'static [&'static str],
}

/// Which fields an update is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Those that are present.
    Present,
    /// All that can be set.
    All,
    /// Exactly these.
    Paths(Vec<&'static str>),
}

impl Mask {
    /// Reads a mask; without one, or with an empty one, the fields that are present are the mask. Bad paths are added to
    /// `violations`.
    #[must_use]
    pub fn parse(mask: Option<&prost_types::FieldMask>, fields: Fields, violations: &mut Violations) -> Self {
        const FIELD: &str = "update_mask";
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return Self::Present;
        }
        let mut known = Vec::new();
        for path in paths.iter().filter(|path| *path != "*") {
            // A path is repeated to the caller, but not a book of one.
            let shown: String = path.chars().take(64).collect();
            if let Some(settable) = fields.settable.iter().find(|settable| *settable == path) {
                known.push(*settable);
            } else if fields.fixed.contains(&path.as_str()) {
                violations.push(FIELD, FieldReason::FieldOutputOnly, format!("`{shown}` cannot be set"));
            } else {
                let settable = fields.settable.join(", ");
                let description = format!("`{shown}` is not a field that a mask can name; these are: {settable}");
                violations.push(FIELD, FieldReason::FieldUnknown, description);
            }
        }
        if paths.iter().any(|path| path == "*") {
            Self::All
        } else {
            Self::Paths(known)
        }
    }

    /// What the update asks of the field at `path`, whose value is absent or present.
    #[must_use]
    pub fn edit<T>(&self, path: &'static str, value: Option<T>) -> Edit<T> {
        let is_meant = match self {
            Self::Present => value.is_some(),
            Self::All => true,
            Self::Paths(paths) => paths.contains(&path),
        };
        match value {
            Some(value) if is_meant => Edit::Set(value),
            None if is_meant => Edit::Clear,
            _ => Edit::Keep,
        }
    }

    /// Adds a violation when there is neither a mask nor a field that is present.
    pub(super) fn check_not_empty(&self, is_any_present: bool, violations: &mut Violations) {
        if *self == Self::Present && !is_any_present {
            violations.push(
                "update_mask",
                FieldReason::UpdateEmpty,
                "nothing is set: give at least one field that can be set, or a mask with the fields to clear",
            );
        }
    }
}

impl<T> Edit<T> {
    /// Parses the value, if one is to be set. A bad one is added to `violations`.
    pub(super) fn parsed<U, E: Into<Flaw>>(
        self,
        field: &str,
        violations: &mut Violations,
        parse: impl FnOnce(T) -> Result<U, E>,
    ) -> Edit<U> {
        match self {
            Self::Keep => Edit::Keep,
            Self::Clear => Edit::Clear,
            Self::Bad => Edit::Bad,
            Self::Set(value) => match parse(value).map_err(Into::into) {
                Ok(value) => Edit::Set(value),
                Err(flaw) => {
                    violations.push(field, flaw.reason, flaw.description);
                    Edit::Bad
                }
            },
        }
    }

    /// A present value that says that there shall be none.
    pub(super) fn or_clear<U>(self, is_value: impl FnOnce(T) -> Option<U>) -> Edit<U> {
        match self {
            Self::Keep => Edit::Keep,
            Self::Clear => Edit::Clear,
            Self::Bad => Edit::Bad,
            Self::Set(value) => is_value(value).map_or(Edit::Clear, Edit::Set),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use switchboard::pb::FILE_DESCRIPTOR_SET;

    use super::*;

    const FIELDS: Fields = Fields {
        settable: &["a", "b"],
        fixed: &["name"],
    };

    fn parse(paths: &[&str]) -> (Mask, Violations) {
        let mut violations = Violations::new();
        let mask = prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        };
        (Mask::parse(Some(&mask), FIELDS, &mut violations), violations)
    }

    #[test]
    fn a_mask_decides_what_silence_means() {
        for (paths, present, absent) in [
            (&[][..], Edit::Set(1), Edit::Keep),
            (&["a"][..], Edit::Set(1), Edit::Clear),
            (&["b"][..], Edit::Keep, Edit::Keep),
            (&["*"][..], Edit::Set(1), Edit::Clear),
        ] {
            let (mask, violations) = parse(paths);
            assert!(violations.is_empty());
            assert_eq!(mask.edit("a", Some(1)), present, "{paths:?}");
            assert_eq!(mask.edit::<i32>("a", None), absent, "{paths:?}");
        }
    }

    #[test]
    fn every_bad_path_is_told() {
        let (_, violations) = parse(&["a", "x", "name", "a.b", "a[0]"]);
        let reasons: Vec<_> = violations.as_slice().iter().map(|violation| violation.reason).collect();
        use FieldReason::{FieldOutputOnly, FieldUnknown};
        assert_eq!(reasons, [FieldUnknown, FieldOutputOnly, FieldUnknown, FieldUnknown]);
    }

    #[test]
    fn every_field_of_a_resource_is_either_settable_or_fixed() {
        let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        for (message, fields) in [
            ("Model", crate::wire::model::FIELDS),
            ("Feature", crate::wire::feature::FIELDS),
            ("Settings", crate::wire::settings::FIELDS),
        ] {
            let mut in_contract: Vec<&str> = files
                .file
                .iter()
                .flat_map(|file| &file.message_type)
                .filter(|descriptor| descriptor.name() == message)
                .flat_map(|descriptor| &descriptor.field)
                .map(|field| field.name())
                .collect();
            let mut listed = [fields.settable, fields.fixed].concat();
            in_contract.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, in_contract, "{message}");
        }
    }
}
