//! A cluster for the tests that need one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::node_program;

/// A cluster that ends with the test.
pub(crate) struct Cluster {
    pub(crate) program: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

impl Cluster {
    /// One of the usual shape, on free ports.
    pub(crate) fn up() -> Self {
        let cluster = Self { program: node_program(), dir: tempfile::tempdir().expect("a temporary directory") };
        assert!(cluster.node(&["up", "--detach", "--base-port", "0"]), "the cluster starts");
        cluster
    }

    fn node(&self, args: &[&str]) -> bool {
        let mut command = Command::new(&self.program);
        let output = command.args(args).arg("--dir").arg(self.dir.path()).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whatever does not run any more need not be stopped.
        let _ = self.node(&["down"]);
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
