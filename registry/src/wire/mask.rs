//! Update masks: which fields an update is about, and what it asks of each.

use switchboard::{reason::FieldReason, violation::Violations};

use super::Flaw;
use crate::domain::write::Edit;

/// The paths that a mask may and may not have for one kind of resource.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// What can be set, the leaves of a message under it included: `limits` and `limits.max_queue`.
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

    /// What the update asks of the field at `path`, whose value is absent or present. A path that names a message means
    /// each of its leaves.
    #[must_use]
    pub fn edit<T>(&self, path: &'static str, value: Option<T>) -> Edit<T> {
        let is_meant = match self {
            Self::Present => value.is_some(),
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|named| {
                let rest = path.strip_prefix(named);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }),
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
        self.and_then(|value| match parse(value).map_err(Into::into) {
            Ok(value) => Edit::Set(value),
            Err(flaw) => {
                violations.push(field, flaw.reason, flaw.description);
                Edit::Bad
            }
        })
    }

    /// Reads the value, if one is to be set, with an outcome of its own.
    pub(super) fn and_then<U>(self, read: impl FnOnce(T) -> Edit<U>) -> Edit<U> {
        match self {
            Self::Keep => Edit::Keep,
            Self::Clear => Edit::Clear,
            Self::Bad => Edit::Bad,
            Self::Set(value) => read(value),
        }
    }

    /// A present value that says that there shall be none.
    pub(super) fn or_clear<U>(self, is_value: impl FnOnce(T) -> Option<U>) -> Edit<U> {
        self.and_then(|value| is_value(value).map_or(Edit::Clear, Edit::Set))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::field_descriptor_proto::Label;
    use switchboard::pb::FILE_DESCRIPTOR_SET;

    use super::*;

    const FIELDS: Fields = Fields {
        settable: &["a", "b", "c", "c.x", "c.xy"],
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
    fn a_message_in_a_mask_means_all_its_leaves_and_a_leaf_only_itself() {
        for (paths, x, xy) in [
            (&["c"][..], Edit::Set(1), Edit::Clear),
            (&["c.x"], Edit::Set(1), Edit::Keep),
            (&["c.xy"], Edit::Keep, Edit::Clear),
            (&["*"], Edit::Set(1), Edit::Clear),
            (&[], Edit::Set(1), Edit::Keep),
        ] {
            let (mask, violations) = parse(paths);
            assert!(violations.is_empty());
            assert_eq!(mask.edit("c.x", Some(1)), x, "{paths:?}");
            assert_eq!(mask.edit::<i32>("c.xy", None), xy, "{paths:?}");
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
            let fields_of = |message: &str| -> Vec<prost_types::FieldDescriptorProto> {
                let messages = files.file.iter().flat_map(|file| &file.message_type);
                let mut found = messages.filter(|descriptor| descriptor.name() == message);
                found
                    .next()
                    .map(|descriptor| descriptor.field.clone())
                    .unwrap_or_default()
            };
            let mut in_contract = Vec::new();
            for field in fields_of(message) {
                in_contract.push(field.name().to_owned());
                // Lists, maps and messages that are not ours have no paths inside.
                if field.label() != Label::Repeated && field.type_name().starts_with(".switchboard.") {
                    let leaves = fields_of(field.type_name().rsplit('.').next().unwrap());
                    in_contract.extend(leaves.iter().map(|leaf| format!("{}.{}", field.name(), leaf.name())));
                }
            }
            let mut listed = [fields.settable, fields.fixed].concat();
            in_contract.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, in_contract, "{message}");
        }
    }
}
