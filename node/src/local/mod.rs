//! A whole cluster on one machine: its directory, its processes, and the commands that start, stop and kill them.
//!
//! A cluster lives in one directory: `cluster.toml`, and for each node a directory with its name that holds `node.pid`
//! (locked by the process for as long as it lives), `node.log` (what it says on standard error) and, for log replicas,
//! `identity` (that its log was born, see [`identity`]).

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigError};
use crate::settings::{ClusterSettings, NodeSettings};

pub mod caller;
pub mod control;
pub mod identity;
pub mod pidfile;
pub mod ports;
pub mod process;
pub mod run;
pub mod up;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It cannot be done as things stand; the text says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// Whom it is about does not run or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The cluster's file cannot be used.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ConfigError,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl LocalError {
    /// Makes an I/O error one that says what was tried.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| LocalError::System { what, source }
    }
}

/// The directory of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDir(PathBuf);

impl ClusterDir {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory used when none is named: `$XDG_DATA_HOME/pygmy/default`, else `$HOME/.local/share/pygmy/default`.
    pub fn by_default() -> Result<Self, LocalError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = set("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local").join("share")));
        let none = || LocalError::Refused("neither XDG_DATA_HOME nor HOME is set; name a directory with --dir".into());
        Ok(Self(data.ok_or_else(none)?.join("pygmy").join("default")))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its `cluster.toml`.
    pub fn config(&self) -> PathBuf {
        self.0.join("cluster.toml")
    }

    /// What the `up` that watches over the cluster holds.
    pub fn up_pid(&self) -> PathBuf {
        self.0.join("up.pid")
    }

    /// The directory of a node.
    pub fn node(&self, name: &str) -> NodeDir {
        NodeDir(self.0.join(name))
    }

    /// Reads `cluster.toml`.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn settings(&self) -> Result<ClusterSettings, LocalError> {
        let path = self.config();
        if !path.exists() {
            let dir = self.0.display();
            return Err(LocalError::Refused(format!("no cluster was made in {dir}; `pygmy-node up` makes one")));
        }
        config::read(&path).map_err(|source| LocalError::Config { path, source })
    }

    /// The node called `name`, which must be in `cluster.toml`.
    ///
    /// # Errors
    /// There is no such node; the text names those that are.
    pub fn find<'a>(&self, settings: &'a ClusterSettings, name: &str) -> Result<&'a NodeSettings, LocalError> {
        settings.node_named(name).ok_or_else(|| {
            let names: Vec<&str> = settings.nodes.iter().map(|node| node.name.as_str()).collect();
            let path = self.config();
            LocalError::Refused(format!("{} has no node {name:?}; it has {}", path.display(), names.join(", ")))
        })
    }
}

/// The directory of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDir(PathBuf);

impl NodeDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// The system refused.
    pub fn create(&self) -> Result<(), LocalError> {
        let what = format!("cannot make the directory {}", self.0.display());
        std::fs::create_dir_all(&self.0).map_err(LocalError::system(what))
    }

    /// What the node's process holds while it runs.
    pub fn pid(&self) -> PathBuf {
        self.0.join("node.pid")
    }

    /// What the node's process says.
    pub fn log(&self) -> PathBuf {
        self.0.join("node.log")
    }

    /// The log identities that were born here.
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }
}
