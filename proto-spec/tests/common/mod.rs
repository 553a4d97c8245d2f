//! What the tests and the fuzz targets of this crate share.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each of them uses a part.

pub mod hex;
pub mod kinds;
pub mod samples;
pub mod strategies;

use std::path::{Path, PathBuf};

/// A file or directory of this crate.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of the specification.
pub fn spec() -> String {
    std::fs::read_to_string(path("SPEC.md")).expect("SPEC.md stands beside Cargo.toml")
}
