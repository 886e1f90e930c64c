//! Compiles `proto/` without a protoc on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler
        .open_file("stategate/entity.proto")?
        .open_file("stategate/event.proto")?;

    // Kept raw for reflection: decoded into prost's types, the http annotations would be lost.
    let raw = compiler.encode_file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &raw)?;
    let descriptors = || prost_types::FileDescriptorSet::decode(raw.as_slice());

    let messages = out.join("messages");
    fs::create_dir_all(&messages)?;
    tonic_prost_build::configure()
        .out_dir(&messages)
        .codec_path("crate::codec::Codec")
        // Values are decoded into the model's tree, and encoded from it, with none in between.
        .extern_path(".google.protobuf.Struct", "crate::Struct")
        .build_server(false)
        .compile_fds(descriptors()?)?;

    let servers = out.join("servers");
    fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .out_dir(&servers)
        .codec_path("crate::codec::Codec")
        // A server answers events it encoded once, however many subscribers get them.
        .extern_path(".stategate.Event", "crate::Encoded")
        .extern_path(".stategate.Events", "crate::EventPage")
        .extern_path(".stategate.TransactResponse", "crate::Transacted")
        .extern_path(".stategate", "crate::pb")
        .extern_path(".google.protobuf.Struct", "crate::Struct")
        .build_client(false)
        .compile_fds(descriptors()?)?;
    Ok(())
}
