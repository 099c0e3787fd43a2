//! Compiles the contract in `proto/` to Rust, without an installed protoc.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

/// Messages that carry a secret, a prompt or an answer: their `Debug` is written by hand and shows none of it.
const WITHOUT_DEBUG: [&str; 14] = [
    ".switchboard.registry.v1.Model",
    ".switchboard.registry.v1.GetModelCredentialResponse",
    ".switchboard.router.v1.InferRequest",
    ".switchboard.router.v1.Part",
    ".switchboard.router.v1.Delta",
    ".switchboard.router.v1.InferOptions",
    ".switchboard.router.v1.ToolCall",
    ".switchboard.router.v1.ToolResult",
    ".switchboard.router.v1.Reasoning",
    ".switchboard.router.v1.InfillInput",
    ".switchboard.router.v1.InfillContext",
    ".switchboard.router.v1.Tool",
    ".switchboard.router.v1.ResponseFormat",
    ".switchboard.router.v1.ToolCallDelta",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();

    let descriptors = protox::compile(&files, [root])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("contract.binpb"), descriptors.encode_to_vec())?;

    // The contract carries messages and stubs; who dials or listens picks the transport.
    tonic_prost_build::configure()
        .build_transport(false)
        // In order, so that the same message always has the same bytes.
        .btree_map(".")
        .skip_debug(WITHOUT_DEBUG)
        // The same zeros for every message.
        .bytes(".switchboard.router.v1.StreamInferResponse.padding")
        .compile_fds(descriptors.clone())?;
    shared_streams(descriptors, &out.join("shared"))?;
    Ok(())
}

/// The change stream's server once more, with messages downwards that were encoded before: one encoding serves all who
/// follow.
fn shared_streams(
    mut descriptors: prost_types::FileDescriptorSet,
    out: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
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
