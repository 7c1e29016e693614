use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn protos(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
}

/// No overrides: the contracts, and the protos of errors that lie beside them.
fn main() {
    env::set_var("PROTOC", protoc_bin_vendored::protoc_bin_path().unwrap());
    println!("cargo::rerun-if-env-changed=DREY_PROTO");
    let root = PathBuf::from(env::var("DREY_PROTO").unwrap_or("../../../proto".into()));
    let mut files = Vec::new();
    protos(&root.join("drey"), &mut files);
    protos(&root.join("google/rpc"), &mut files);
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("contracts.rs")
        .compile_protos(&files, &[root])
        .unwrap();
}
