use std::{env, fs, path::{Path, PathBuf}};

fn protos(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, out);
        } else if path.extension().is_some_and(|e| e == "proto") {
            out.push(path);
        }
    }
}

fn main() {
    env::set_var("PROTOC", protoc_bin_vendored::protoc_bin_path().unwrap());
    let root = PathBuf::from(env::var("DREY_PROTO").expect("DREY_PROTO names the folder proto/"));
    let mut files = Vec::new();
    protos(&root.join("drey"), &mut files);
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("drey.rs")
        .compile_protos(&files, &[root])
        .unwrap();
}
