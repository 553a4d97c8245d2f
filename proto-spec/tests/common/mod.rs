//! What the tests and the fuzz targets of this crate share.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each of them uses a part.

pub mod hex;
pub mod kinds;
pub mod samples;
pub mod strategies;

use std::path::{Path, PathBuf};

use pygmy_proto::batch::{Batch, BatchBuilder};

/// A file or directory of this crate.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A batch built anew from what is read from `batch`.
pub fn rebuilt(batch: &Batch) -> Batch {
    let header = batch.header();
    let mut builder =
        BatchBuilder::new(header.epoch, header.origin, header.first_seq, header.time_us, header.hash_before);
    for entry in batch.entries() {
        assert_eq!(builder.push(entry.kind, entry.body), entry.seq);
    }
    builder.finish().expect("a batch has entries")
}

/// The text of the specification.
pub fn spec() -> String {
    std::fs::read_to_string(path("SPEC.md")).expect("SPEC.md stands beside Cargo.toml")
}
