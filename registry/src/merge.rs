//! Merges a request's fields into a stored message, as the mask and the presence of each field demand.
//!
//! Only the contract defines which fields a resource has, which of them can be set and which are output only: this
//! module reads the descriptor with the annotations of `google.api.field_behavior`. It does not know what a field
//! means. Nothing is stored, hashed or sent from here, because the maps of a dynamic message have no order. The merged
//! message is converted back to the generated type and read by [`switchboard::resource`], and only the result is
//! written.

use std::{collections::BTreeSet, sync::LazyLock};

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use switchboard::{
    pb::{FILE_DESCRIPTOR_SET, registry},
    reason::FieldReason,
    resource::Given,
    violation::Violations,
};

/// The values of `google.api.FieldBehavior` that this module uses.
mod behavior {
    pub(super) const OUTPUT_ONLY: i32 = 3;
    pub(super) const INPUT_ONLY: i32 = 4;
    pub(super) const IDENTIFIER: i32 = 8;
}

/// A message that can be written by merging fields into the stored message.
pub trait Editable: prost::Message + Default {
    /// Returns the fields of the message.
    fn layout() -> &'static Layout;
}

macro_rules! editable {
    ($($message:ident),*) => {$(
        impl Editable for registry::$message {
            fn layout() -> &'static Layout {
                static LAYOUT: LazyLock<Layout> =
                    LazyLock::new(|| Layout::of(concat!("switchboard.registry.v1.", stringify!($message))));
                &LAYOUT
            }
        }
    )*};
}

editable!(Model, Feature, Settings);

/// The fields of a message, classified by whether a write may set them.
#[derive(Debug)]
pub struct Layout {
    descriptor: MessageDescriptor,
    /// The fields that can be set separately: fields of the resource, and the fields of their messages if these belong
    /// to this contract.
    leaves: Vec<Leaf>,
    /// All paths that a mask may name: the leaves, and the messages that contain them.
    settable: Vec<String>,
    /// The fields that cannot be set: the name, and output-only fields.
    fixed: Vec<String>,
}

/// One field that can be set separately.
#[derive(Debug)]
struct Leaf {
    path: String,
    /// The message field of the resource that contains this field. `None`: the resource contains it directly.
    group: Option<FieldDescriptor>,
    field: FieldDescriptor,
    is_input_only: bool,
}

impl Layout {
    #[expect(clippy::expect_used, reason = "the contract is compiled in, and a test covers it")]
    fn of(message: &str) -> Self {
        static CONTRACT: LazyLock<DescriptorPool> =
            LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the contract is a descriptor set"));
        let descriptor = CONTRACT.get_message_by_name(message).expect("the contract has it");
        let annotation = CONTRACT.get_extension_by_name("google.api.field_behavior");
        let annotation = annotation.expect("the contract declares it");
        let behaves = |field: &FieldDescriptor, behavior: i32| {
            let options = field.options();
            let behaviors = options.get_extension(&annotation);
            behaviors
                .as_list()
                .is_some_and(|list| list.contains(&Value::EnumNumber(behavior)))
        };
        let (mut leaves, mut settable, mut fixed) = (Vec::new(), Vec::new(), Vec::new());
        for field in descriptor.fields() {
            let path = field.name().to_owned();
            if behaves(&field, behavior::OUTPUT_ONLY) || behaves(&field, behavior::IDENTIFIER) {
                fixed.push(path);
                continue;
            }
            settable.push(path.clone());
            match own_message(&field) {
                None => leaves.push(Leaf {
                    is_input_only: behaves(&field, behavior::INPUT_ONLY),
                    path,
                    group: None,
                    field,
                }),
                Some(message) => {
                    for leaf in message.fields() {
                        let path = format!("{path}.{}", leaf.name());
                        settable.push(path.clone());
                        leaves.push(Leaf {
                            is_input_only: behaves(&leaf, behavior::INPUT_ONLY),
                            path,
                            group: Some(field.clone()),
                            field: leaf,
                        });
                    }
                }
            }
        }
        Self {
            descriptor,
            leaves,
            settable,
            fixed,
        }
    }

    /// Returns the paths of all fields that can be set separately.
    pub fn leaves(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().map(|leaf| leaf.path.as_str())
    }

    #[expect(clippy::expect_used, reason = "every message of the contract is in its descriptor")]
    fn reflect(&self, message: &impl prost::Message) -> DynamicMessage {
        let mut dynamic = DynamicMessage::new(self.descriptor.clone());
        dynamic.transcode_from(message).expect("the message is of this type");
        dynamic
    }
}

/// Returns the type of the message in a field if it belongs to this contract. Lists, maps and messages of other
/// packages have no paths inside.
fn own_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_list() && !field.is_map() => {
            message.package_name().starts_with("switchboard.").then_some(message)
        }
        _ => None,
    }
}

impl Leaf {
    /// Returns the value if it is present. An empty list or map counts as absent.
    fn get(&self, message: &DynamicMessage) -> Option<Value> {
        let of = |message: &DynamicMessage| {
            let is_present = message.has_field(&self.field);
            is_present.then(|| message.get_field(&self.field).into_owned())
        };
        match &self.group {
            None => of(message),
            Some(group) if message.has_field(group) => message.get_field(group).as_message().and_then(of),
            Some(_) => None,
        }
    }

    fn put(&self, message: &mut DynamicMessage, value: Option<Value>) {
        let holder = match &self.group {
            None => Some(message),
            Some(group) if value.is_some() || message.has_field(group) => message.get_field_mut(group).as_message_mut(),
            Some(_) => None,
        };
        match (holder, value) {
            (Some(holder), Some(value)) => holder.set_field(&self.field, value),
            (Some(holder), None) => holder.clear_field(&self.field),
            (None, _) => {}
        }
    }
}

/// The fields that an update covers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mask {
    /// The fields that are present in the request.
    Present,
    /// All fields that can be set.
    All,
    /// Exactly these fields, each including everything below it.
    Paths(Vec<String>),
}

impl Mask {
    /// Reads a mask. Without a mask, or with an empty one, the update covers the fields that are present. Invalid paths
    /// are added to `violations`.
    fn parse(mask: Option<&prost_types::FieldMask>, layout: &Layout, violations: &mut Violations) -> Self {
        const FIELD: &str = "update_mask";
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return Self::Present;
        }
        let mut known = Vec::new();
        for path in paths.iter().filter(|path| *path != "*") {
            // The path is shown to the caller, but not at any length.
            let shown: String = path.chars().take(64).collect();
            if layout.settable.contains(path) {
                known.push(path.clone());
            } else if layout.fixed.contains(path) {
                violations.push(FIELD, FieldReason::FieldOutputOnly, format!("`{shown}` cannot be set"));
            } else {
                let settable = layout.settable.join(", ");
                let description = format!("`{shown}` is not a field that a mask can name; it can name {settable}");
                violations.push(FIELD, FieldReason::FieldUnknown, description);
            }
        }
        if paths.iter().any(|path| path == "*") {
            Self::All
        } else {
            Self::Paths(known)
        }
    }

    /// Returns whether the update covers a leaf. `is_present`: whether the request contains a value for it.
    fn means(&self, leaf: &Leaf, is_present: bool) -> bool {
        match self {
            Self::Present => is_present,
            // A caller cannot read an input-only field and send it back, so its absence does not clear it.
            Self::All => is_present || !leaf.is_input_only,
            Self::Paths(paths) => paths.iter().any(|named| {
                let rest = leaf.path.strip_prefix(named.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }),
        }
    }
}

/// The content of an update request.
#[derive(Debug)]
pub struct Edit<M> {
    given: M,
    mask: Mask,
}

impl<M: Editable> Edit<M> {
    /// Reads a request: the message, and the mask of the fields to change. Violations in the mask are added to
    /// `violations`.
    #[must_use]
    pub fn new(given: M, mask: Option<&prost_types::FieldMask>, violations: &mut Violations) -> Self {
        let mask = Mask::parse(mask, M::layout(), violations);
        Self { given, mask }
    }

    /// Returns the message, regardless of the mask.
    #[must_use]
    pub const fn given(&self) -> &M {
        &self.given
    }

    /// Adds a violation if the request has neither a mask nor a present field.
    pub fn check_not_empty(&self, violations: &mut Violations) {
        let layout = M::layout();
        let given = layout.reflect(&self.given);
        if self.mask == Mask::Present && layout.leaves.iter().all(|leaf| leaf.get(&given).is_none()) {
            violations.push(
                "update_mask",
                FieldReason::UpdateEmpty,
                "nothing is set: give at least one field that can be set, or a mask with the fields to clear",
            );
        }
    }

    /// Merges the fields into a stored message, and returns the result and which fields were set and cleared.
    ///
    /// # Panics
    ///
    /// Never: the dynamic message was made from the same type.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the message was made from this type")]
    pub fn over(&self, stored: &M) -> (M, Given) {
        let layout = M::layout();
        let (given, mut merged) = (layout.reflect(&self.given), layout.reflect(stored));
        let (mut set, mut cleared) = (BTreeSet::new(), BTreeSet::new());
        for leaf in &layout.leaves {
            let value = leaf.get(&given);
            if !self.mask.means(leaf, value.is_some()) {
                continue;
            }
            let paths = if value.is_some() { &mut set } else { &mut cleared };
            paths.insert(leaf.path.clone());
            leaf.put(&mut merged, value);
        }
        let merged = merged.transcode_to().expect("the message is of this type");
        (merged, Given::Over { set, cleared })
    }

    /// Returns the covered fields alone, for use when the stored message is not known.
    #[must_use]
    pub fn alone(&self) -> M {
        self.over(&M::default()).0
    }
}

/// Returns the sorted paths of the leaves that differ between two messages.
#[must_use]
pub fn differing<M: Editable>(before: &M, after: &M) -> Vec<String> {
    let layout = M::layout();
    let (before, after) = (layout.reflect(before), layout.reflect(after));
    let leaves = layout
        .leaves
        .iter()
        .filter(|leaf| leaf.get(&before) != leaf.get(&after));
    let mut paths: Vec<_> = leaves.map(|leaf| leaf.path.clone()).collect();
    paths.sort_unstable();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(paths: &[&str], given: registry::Model) -> (Edit<registry::Model>, Violations) {
        let mut violations = Violations::new();
        let mask = prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        };
        (Edit::new(given, Some(&mask), &mut violations), violations)
    }

    /// Returns what an update does with the field at a path.
    fn source(given: &Given, path: &str) -> switchboard::resource::Source {
        given.source(path, false)
    }

    #[test]
    fn a_mask_decides_whether_absent_fields_are_kept_or_cleared() {
        use switchboard::resource::Source::{Cleared, Kept, Set};
        let stored = registry::Model {
            display_name: Some("stored".to_owned()),
            identifier: Some("stored".to_owned()),
            ..Default::default()
        };
        for (paths, present, absent) in [
            (&[][..], Set, Kept),
            (&["display_name", "identifier"][..], Set, Cleared),
            (&["family"][..], Kept, Kept),
            (&["*"][..], Set, Cleared),
        ] {
            let given = registry::Model {
                display_name: Some("given".to_owned()),
                ..Default::default()
            };
            let (edit, violations) = edit(paths, given);
            assert!(violations.is_empty());
            let (merged, given) = edit.over(&stored);
            assert_eq!(source(&given, "display_name"), present, "{paths:?}");
            assert_eq!(source(&given, "identifier"), absent, "{paths:?}");
            let text = |source| match source {
                Set => Some("given"),
                Kept => Some("stored"),
                Cleared => None,
            };
            assert_eq!(merged.display_name.as_deref(), text(present), "{paths:?}");
            assert_eq!(merged.identifier.as_deref(), text(absent), "{paths:?}");
        }
    }

    #[test]
    fn a_message_in_a_mask_covers_all_its_leaves_and_a_leaf_only_itself() {
        let limits = |max_queue, max_concurrency| {
            Some(registry::ModelLimits {
                max_queue,
                max_concurrency,
                ..Default::default()
            })
        };
        let stored = registry::Model {
            limits: limits(Some(1), Some(1)),
            ..Default::default()
        };
        for (paths, max_queue, max_concurrency) in [
            (&["limits"][..], Some(2), None),
            (&["limits.max_queue"], Some(2), Some(1)),
            (&["limits.max_concurrency"], Some(1), None),
            (&["*"], Some(2), None),
            (&[], Some(2), Some(1)),
        ] {
            let given = registry::Model {
                limits: limits(Some(2), None),
                ..Default::default()
            };
            let (edit, violations) = edit(paths, given);
            assert!(violations.is_empty());
            let (merged, _) = edit.over(&stored);
            assert_eq!(merged.limits, limits(max_queue, max_concurrency), "{paths:?}");
        }
    }

    #[test]
    fn a_full_replacement_keeps_input_only_fields() {
        let (edit, _) = edit(&["*"], registry::Model::default());
        let (_, given) = edit.over(&registry::Model::default());
        assert_eq!(source(&given, "api_token"), switchboard::resource::Source::Kept);
        assert_eq!(source(&given, "labels"), switchboard::resource::Source::Cleared);
    }

    #[test]
    fn every_invalid_path_is_reported() {
        let (_, violations) = edit(
            &["family", "x", "name", "family.b", "labels[0]", "etag"],
            registry::Model::default(),
        );
        let reasons: Vec<_> = violations.as_slice().iter().map(|violation| violation.reason).collect();
        use FieldReason::{FieldOutputOnly, FieldUnknown};
        assert_eq!(
            reasons,
            [
                FieldUnknown,
                FieldOutputOnly,
                FieldUnknown,
                FieldUnknown,
                FieldOutputOnly
            ]
        );
    }

    #[test]
    fn the_settable_fields_are_those_of_the_contract() {
        let settings = registry::Settings::layout();
        assert_eq!(settings.settable, ["beta_enabled", "inference_paused"]);
        assert_eq!(settings.fixed, ["name", "etag", "revision", "update_time"]);
        let model = registry::Model::layout();
        for path in ["limits", "limits.queue_timeout", "tls.ca_pem", "endpoint", "labels"] {
            assert!(model.settable.iter().any(|settable| settable == path), "{path}");
        }
        assert!(
            !model
                .leaves()
                .any(|path| path == "limits" || path == "limits.queue_timeout.seconds")
        );
    }
}
