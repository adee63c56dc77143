//! Compiles the protocol files with protox: no protoc needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let admin = [
        "proto/countersign/admin/v1/admin.proto",
        "proto/countersign/admin/v1/devices.proto",
        "proto/countersign/admin/v1/behavior.proto",
        "proto/countersign/admin/v1/sessions.proto",
    ];
    let authz = ["proto/envoy/service/auth/v3/external_auth.proto"];
    println!("cargo:rerun-if-changed=proto");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(admin, ["proto"])?;
    fs::write(out.join("admin.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().include_file("generated.rs").compile_fds(descriptors)?;
    fs::write(out.join("external_auth.bin"), protox::compile(authz, ["proto"])?.encode_to_vec())?;
    Ok(())
}
