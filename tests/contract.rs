//! Checks the contract as its clients see it: every edit of the `.proto` files is visible in review, and every
//! declaration is documented.
//!
//! `buf` compares the contract with the version that was merged last (`.ci/run contract`). The listing in
//! `tests/contract/listing.txt` is for the reviewer of a change. [`RENEW`] writes the listing again after an intended
//! edit.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read must fail the test, in helpers too"
)]

use std::{collections::HashMap, env, fs, path::Path};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use similar::TextDiff;

/// The command that writes the listing again.
const RENEW: &str = "SWITCHBOARD_UPDATE_LISTING=1 cargo test --test contract";

/// Field numbers of `descriptor.proto` that make up the path of a location in a descriptor.
mod place {
    pub(crate) const MESSAGE: i32 = 4;
    pub(crate) const ENUM: i32 = 5;
    pub(crate) const SERVICE: i32 = 6;
    pub(crate) const FIELD_OF_MESSAGE: i32 = 2;
    pub(crate) const MESSAGE_OF_MESSAGE: i32 = 3;
    pub(crate) const ENUM_OF_MESSAGE: i32 = 4;
    pub(crate) const ONEOF_OF_MESSAGE: i32 = 8;
    pub(crate) const VALUE_OF_ENUM: i32 = 2;
    pub(crate) const METHOD_OF_SERVICE: i32 = 2;
}

/// One line of the listing.
#[derive(Debug)]
struct Declaration {
    /// Path of the declaration in the descriptor, made of the numbers in [`place`].
    path: Vec<i32>,
    /// Its full name.
    name: String,
    /// The line that the listing has for the declaration.
    line: String,
}

/// Returns the files of the contract itself, without the files that it imports from other packages.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(switchboard::pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut files: Vec<_> = set
        .file
        .into_iter()
        .filter(|file| file.package().starts_with("switchboard."))
        .collect();
    files.sort_by(|a, b| a.name().cmp(b.name()));
    files
}

fn declarations(file: &FileDescriptorProto) -> Vec<Declaration> {
    let mut found = Vec::new();
    let package = file.package();
    for (i, service) in (0..).zip(&file.service) {
        let name = format!("{package}.{}", service.name());
        found.push(Declaration {
            path: vec![place::SERVICE, i],
            line: format!("service {name}"),
            name: name.clone(),
        });
        for (j, method) in (0..).zip(&service.method) {
            found.push(Declaration {
                path: vec![place::SERVICE, i, place::METHOD_OF_SERVICE, j],
                name: format!("{name}/{}", method.name()),
                line: format!(
                    "  {}({}{}) returns ({}{})",
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    relative(method.input_type(), package),
                    if method.server_streaming() { "stream " } else { "" },
                    relative(method.output_type(), package),
                ),
            });
        }
    }
    for (i, message) in (0..).zip(&file.message_type) {
        list_message(message, &[place::MESSAGE, i], package, package, &mut found);
    }
    for (i, enumeration) in (0..).zip(&file.enum_type) {
        list_enum(enumeration, &[place::ENUM, i], package, &mut found);
    }
    found
}

fn list_message(message: &DescriptorProto, path: &[i32], scope: &str, package: &str, found: &mut Vec<Declaration>) {
    let name = format!("{scope}.{}", message.name());
    found.push(Declaration {
        path: path.to_vec(),
        line: format!("message {name}{}", reserved(message)),
        name: name.clone(),
    });
    for (i, field) in (0..).zip(&message.field) {
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                format!(" of {}", message.oneof_decl[usize::try_from(index).unwrap()].name())
            }
            _ => String::new(),
        };
        found.push(Declaration {
            path: [path, &[place::FIELD_OF_MESSAGE, i]].concat(),
            name: format!("{name}.{}", field.name()),
            line: format!(
                "  {} {}: {}{oneof}",
                field.number(),
                field.name(),
                type_of(field, package)
            ),
        });
    }
    for (i, oneof) in (0..).zip(&message.oneof_decl) {
        // The compiler generates a hidden oneof for each `optional` field. It is not in the source, so it has no
        // comment.
        if !oneof.name().starts_with('_') {
            found.push(Declaration {
                path: [path, &[place::ONEOF_OF_MESSAGE, i]].concat(),
                name: format!("{name}.{}", oneof.name()),
                line: format!("  oneof {}", oneof.name()),
            });
        }
    }
    for (i, nested) in (0..).zip(&message.nested_type) {
        // The message that the compiler generates for a map field is not in the source.
        if nested.options.as_ref().is_some_and(|options| options.map_entry()) {
            continue;
        }
        list_message(
            nested,
            &[path, &[place::MESSAGE_OF_MESSAGE, i]].concat(),
            &name,
            package,
            found,
        );
    }
    for (i, nested) in (0..).zip(&message.enum_type) {
        list_enum(nested, &[path, &[place::ENUM_OF_MESSAGE, i]].concat(), &name, found);
    }
}

/// Formats the reserved numbers and names of the message, which no new field may use.
fn reserved(message: &DescriptorProto) -> String {
    let numbers = message
        .reserved_range
        .iter()
        .map(|range| match (range.start(), range.end() - 1) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first} to {last}"),
        });
    let all: Vec<_> = numbers.chain(message.reserved_name.iter().cloned()).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!(" (reserved: {})", all.join(", "))
    }
}

fn list_enum(enumeration: &EnumDescriptorProto, path: &[i32], scope: &str, found: &mut Vec<Declaration>) {
    let name = format!("{scope}.{}", enumeration.name());
    found.push(Declaration {
        path: path.to_vec(),
        line: format!("enum {name}"),
        name: name.clone(),
    });
    for (i, value) in (0..).zip(&enumeration.value) {
        found.push(Declaration {
            path: [path, &[place::VALUE_OF_ENUM, i]].concat(),
            name: format!("{name}.{}", value.name()),
            line: format!("  {} {}", value.number(), value.name()),
        });
    }
}

fn type_of(field: &FieldDescriptorProto, package: &str) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => relative(field.type_name(), package),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    match field.label() {
        Label::Repeated => format!("repeated {kind}"),
        _ if field.proto3_optional() => format!("optional {kind}"),
        _ => kind,
    }
}

/// Returns a type's name as it can be written inside `package`.
fn relative(type_name: &str, package: &str) -> String {
    let full = type_name.trim_start_matches('.');
    full.strip_prefix(package)
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or(full)
        .to_owned()
}

/// Returns the comment on each declaration of a file, keyed by the declaration's path.
fn comments(file: &FileDescriptorProto) -> HashMap<&[i32], &str> {
    let source = file.source_code_info.as_ref().unwrap();
    source
        .location
        .iter()
        .map(|location| (location.path.as_slice(), location.leading_comments().trim()))
        .filter(|(_, comment)| !comment.is_empty())
        .collect()
}

#[test]
fn the_contract_equals_the_listing() {
    let mut listing = String::new();
    for file in files() {
        for declaration in declarations(&file) {
            if !declaration.line.starts_with(' ') && !listing.is_empty() {
                listing.push('\n');
            }
            listing.push_str(&declaration.line);
            listing.push('\n');
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/listing.txt");
    if env::var_os("SWITCHBOARD_UPDATE_LISTING").is_some() {
        fs::write(&path, &listing).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(kept == listing, "{}", difference(&kept, &listing));
}

#[test]
fn the_failure_message_shows_the_changed_lines_and_the_renew_command() {
    let lines: Vec<String> = (0..100)
        .map(|number| format!("  {number} field_{number}: string\n"))
        .collect();
    let kept = lines.concat();
    let listing = kept
        .replace("  7 field_7: string\n", "")
        .replace("field_93: string", "field_93: bool");
    let expected = "\
the contract differs from tests/contract/listing.txt:
@@ -7,3 +7,2 @@
   6 field_6: string
-  7 field_7: string
   8 field_8: string
@@ -93,3 +92,3 @@
   92 field_92: string
-  93 field_93: string
+  93 field_93: bool
   94 field_94: string

If the edit is intended, renew the listing: SWITCHBOARD_UPDATE_LISTING=1 cargo test --test contract";
    assert_eq!(difference(&kept, &listing), expected);
}

#[test]
fn every_service_method_message_field_and_value_is_documented() {
    let undocumented: Vec<_> = files()
        .iter()
        .flat_map(|file| {
            let comments = comments(file);
            declarations(file)
                .into_iter()
                .filter(|declaration| !comments.contains_key(declaration.path.as_slice()))
                .map(|declaration| declaration.name)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        undocumented.is_empty(),
        "these declarations have no comment: {undocumented:#?}"
    );
}

#[test]
fn the_router_contract_does_not_import_the_registry_contract() {
    for file in files() {
        if file.package() != "switchboard.registry.v1" {
            let imports: Vec<_> = file
                .dependency
                .iter()
                .filter(|path| path.contains("/registry/"))
                .collect();
            assert!(imports.is_empty(), "{} imports {imports:?}", file.name());
        }
    }
}

#[test]
fn fields_have_types_that_every_client_language_has() {
    let strange: Vec<_> = every_field()
        .filter(|(_, field)| {
            !matches!(
                field.r#type(),
                Type::Bool
                    | Type::Int32
                    | Type::Int64
                    | Type::Double
                    | Type::String
                    | Type::Bytes
                    | Type::Message
                    | Type::Enum
            )
        })
        .map(|(message, field)| format!("{message}.{}", field.name()))
        .collect();
    assert!(strange.is_empty(), "these fields have other types: {strange:?}");
}

/// Every field that a write can set has presence, because `"disabled": false` must be distinguishable from an absent
/// field.
#[test]
fn every_field_that_can_be_set_has_presence() {
    let mut lacking = Vec::new();
    for file in files() {
        let comments = comments(&file);
        for (i, message) in (0..).zip(&file.message_type) {
            if !["Model", "Feature", "Settings"].contains(&message.name()) {
                continue;
            }
            for (j, field) in (0..).zip(&message.field) {
                let comment = comments[[place::MESSAGE, i, place::FIELD_OF_MESSAGE, j].as_slice()];
                let is_set_by_nobody = comment.starts_with("Output only") || comment.starts_with("Identifier");
                let has_presence = field.proto3_optional() || field.r#type() == Type::Message;
                if !is_set_by_nobody && !has_presence && field.label() != Label::Repeated {
                    lacking.push(format!("{}.{}", message.name(), field.name()));
                }
            }
        }
    }
    assert!(lacking.is_empty(), "these fields are not `optional`: {lacking:?}");
}

/// Returns the message for an outdated listing: the changed lines, each with one line of context, and the command to
/// run.
fn difference(kept: &str, listing: &str) -> String {
    let changed = TextDiff::from_lines(kept, listing);
    let hunks = changed.unified_diff().context_radius(1).to_string();
    format!(
        "the contract differs from tests/contract/listing.txt:\n{hunks}\nIf the edit is intended, renew the listing: {RENEW}"
    )
}

/// Every field of every top-level message, with the message's name.
fn every_field() -> impl Iterator<Item = (String, FieldDescriptorProto)> {
    files()
        .into_iter()
        .flat_map(|file| file.message_type)
        .flat_map(|message| {
            let name = message.name().to_owned();
            message.field.into_iter().map(move |field| (name.clone(), field))
        })
}
