//! The checked-in code is what the `.proto` files give. `UPDATE=1 cargo test -p control-plane-wire generated` writes it anew.

use std::{fs, path::Path};

#[test]
fn generated_code_is_what_the_proto_files_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    generate(root, fresh.path());

    let checked_in = root.join("src/generated");
    let name = "nebula.discovery.v1.rs";
    let code = fs::read_to_string(fresh.path().join(name)).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(checked_in.join(name), &code).unwrap();
    }
    let before = fs::read_to_string(checked_in.join(name)).unwrap_or_default();
    assert!(before == code, "src/generated/{name} is stale: run UPDATE=1 cargo test -p control-plane-wire generated");
}

fn generate(root: &Path, out: &Path) {
    let protos = ["nebula/discovery/v1/discovery.proto", "nebula/discovery/v1/resources.proto"];
    let descriptors = protox::compile(protos, [root.join("proto")]).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        // They hold private keys or what checks passwords; their Debug is in proto.rs.
        .skip_debug([
            ".nebula.discovery.v1.Resource",
            ".nebula.discovery.v1.Certificate",
            ".nebula.discovery.v1.BasicUser",
        ])
        .out_dir(out)
        .compile_fds(descriptors)
        .unwrap();
}
