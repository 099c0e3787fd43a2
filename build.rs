//! Compiles the contract in `proto/` to Rust, without an installed protoc.

use std::{
    env,
    error::Error,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
};

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, OneofDescriptor};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();
    let redacted = messages_with_redaction(&compiler.descriptor_pool());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("contract.binpb"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("debug.rs"), redacted_debug(&redacted)?)?;

    // The generated code has messages and stubs only: the code that connects or listens chooses the transport.
    tonic_prost_build::configure()
        .build_transport(false)
        // Sorted maps: equal messages always encode to the same bytes.
        .btree_map(".")
        .skip_debug(redacted.iter().map(|message| format!(".{}", message.full_name())))
        // `Bytes`, so that all messages share one buffer of zeros.
        .bytes(".switchboard.router.v1.StreamInferResponse.padding")
        .compile_fds(descriptors.clone())?;
    shared_streams(descriptors, &out.join("shared"))?;
    Ok(())
}

/// Generates a second server for the change stream whose responses are already encoded, so that all followers share one
/// encoding.
fn shared_streams(mut descriptors: prost_types::FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    for file in &mut descriptors.file {
        if file.name() != "switchboard/registry/v1/config.proto" {
            file.service.clear();
        }
    }
    fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .codec_path("crate::encoded::SlimCodec")
        .extern_path(".switchboard.type.v1", "crate::pb::types")
        .extern_path(".switchboard.router.v1", "crate::pb::router")
        .extern_path(".switchboard.registry.v1", "crate::pb::registry")
        .extern_path(".switchboard.registry.v1.WatchResponse", "crate::encoded::Encoded")
        .extern_path(".switchboard.registry.v1.SubscribeResponse", "crate::encoded::Encoded")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the messages that have a field with the option `debug_redact`: this script generates their `Debug`.
///
/// Messages nested in such a message are included: `skip_debug` applies to them too.
fn messages_with_redaction(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|message| has_redaction(message) && !message.is_map_entry())
        .collect()
}

fn has_redaction(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_redacted(&field))
        || message.parent_message().is_some_and(|outer| has_redaction(&outer))
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let option = options.get_field_by_name("debug_redact");
    option.is_some_and(|option| option.as_bool() == Some(true))
}

/// Writes `Debug` for `messages` and their oneofs: a redacted field shows at most that it is set.
///
/// For tests it also writes `debug_of`, which formats an encoded message by its full name.
fn redacted_debug(messages: &[MessageDescriptor]) -> Result<String, fmt::Error> {
    let mut code = String::new();
    for message in messages {
        write_debug_of_message(&mut code, message)?;
        for oneof in oneofs(message) {
            write_debug_of_oneof(&mut code, &oneof)?;
        }
    }
    writeln!(code, "#[cfg(test)]")?;
    writeln!(
        code,
        "pub(super) fn debug_of(message: &str, bytes: &[u8]) -> Option<String> {{"
    )?;
    writeln!(code, "Some(match message {{")?;
    for message in messages {
        let (name, path) = (message.full_name(), rust_path(message));
        writeln!(
            code,
            "{name:?} => format!(\"{{:?}}\", <{path} as prost::Message>::decode(bytes).ok()?),"
        )?;
    }
    writeln!(code, "_ => return None, }}) }}")?;
    Ok(code)
}

fn write_debug_of_message(code: &mut String, message: &MessageDescriptor) -> fmt::Result {
    writeln!(code, "impl Debug for {} {{", rust_path(message))?;
    writeln!(code, "fn fmt(&self, f: &mut Formatter<'_>) -> Result {{")?;
    writeln!(code, "f.debug_struct({:?})", message.name())?;
    let plain = |field: &FieldDescriptor| field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic());
    for field in message.fields().filter(plain) {
        let name = field.name();
        let value = match is_redacted(&field) {
            false => format!("self.r#{name}"),
            true if field.supports_presence() => format!("self.r#{name}.as_ref().map(|_| Redacted)"),
            true => "Redacted".to_owned(),
        };
        writeln!(code, ".field({name:?}, &{value})")?;
    }
    for oneof in oneofs(message) {
        let name = oneof.name();
        writeln!(code, ".field({name:?}, &self.r#{name})")?;
    }
    writeln!(code, ".finish() }} }}")
}

fn write_debug_of_oneof(code: &mut String, oneof: &OneofDescriptor) -> fmt::Result {
    let message = rust_path(oneof.parent_message());
    let (path, name) = message.rsplit_once("::").unwrap_or_default();
    let (module, oneof_type) = (name.to_snake_case(), oneof.name().to_upper_camel_case());
    writeln!(code, "impl Debug for {path}::{module}::{oneof_type} {{")?;
    writeln!(code, "fn fmt(&self, f: &mut Formatter<'_>) -> Result {{ match self {{")?;
    for field in oneof.fields() {
        let variant = field.name().to_upper_camel_case();
        let (binding, value) = match is_redacted(&field) {
            true => ("_", "&Redacted"),
            false => ("value", "value"),
        };
        writeln!(
            code,
            "Self::{variant}({binding}) => f.debug_tuple({variant:?}).field({value}).finish(),"
        )?;
    }
    writeln!(code, "}} }} }}")
}

/// Returns the oneofs that the `.proto` file declares, without those that the compiler adds for `optional` fields.
fn oneofs(message: &MessageDescriptor) -> impl Iterator<Item = OneofDescriptor> {
    message.oneofs().filter(|oneof| !oneof.is_synthetic())
}

/// Returns the path of a message's type, as seen from a module next to `generated` in `src/pb.rs`.
fn rust_path(message: &MessageDescriptor) -> String {
    let package = message.package_name();
    let within = message.full_name().strip_prefix(package).unwrap_or_default();
    let modules = package.split('.').skip(1).map(|module| format!("r#{module}::"));
    let outer = within
        .trim_start_matches('.')
        .rsplit_once('.')
        .map_or("", |(outer, _)| outer);
    let outer = outer.split('.').filter(|name| !name.is_empty());
    let outer = outer.map(|name| format!("{}::", name.to_snake_case()));
    let path: String = modules.chain(outer).collect();
    format!("super::generated::{path}{}", message.name().to_upper_camel_case())
}
