//! What the tests with real processes share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The servers' program: the one beside this package's, which a test of the whole workspace has built; else it is built
/// now.
pub(crate) fn node_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pygmy-perf")).with_file_name("pygmy-node");
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "pygmy-node", "--bin", "pygmy-node"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "pygmy-node cannot be built");
    }
    path
}

/// Runs `pygmy-perf` to its end.
pub(crate) fn perf(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pygmy-perf")).args(args).output().expect("the program starts")
}
