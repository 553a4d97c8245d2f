//! A whole cluster on one machine: its directory, its processes, and the commands that start, stop and kill them.
//!
//! A cluster lives in one directory: `cluster.toml`, and for each node a directory with its name (that of a process which
//! has taken another's place ends in its incarnation, as in `catalog-2.1`) that holds `node.pid`
//! (locked by the process for as long as it lives), `node.log` (what it says on standard error) and, for log replicas,
//! the directory `data` with its log (see [`crate::disk`]) and whose that is (see [`meta`]).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigError};
use crate::settings::{ClusterSettings, NodeSettings};

pub mod caller;
pub mod control;
pub mod meta;
pub mod pidfile;
pub mod ports;
pub mod process;
pub mod replace;
pub mod run;
pub mod up;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It was asked for wrongly, whatever the state of things.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done as things stand; the text says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// Whom it is about does not run or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// Another process has this one's place for good.
    #[error("{0}")]
    Removed(String),
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

/// Name of the file that says what a cluster is.
const FILE_NAME: &str = "cluster.toml";

/// A path as a word of a shell's command line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
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
        let none = || LocalError::Usage("neither XDG_DATA_HOME nor HOME is set; name a directory with --dir".into());
        Ok(Self(data.ok_or_else(none)?.join("pygmy").join("default")))
    }

    /// The directory that `path` stands for: its own, or that of a `cluster.toml`.
    ///
    /// # Errors
    /// It is another file.
    pub fn named(path: &Path) -> Result<Self, LocalError> {
        let path = std::path::absolute(path)
            .map_err(LocalError::system(format!("cannot make sense of {}", path.display())))?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        match path.parent() {
            Some(dir) if path.file_name().is_some_and(|name| name == FILE_NAME) => Ok(Self::new(dir)),
            _ if path.is_file() || (is_toml && !path.is_dir()) => Err(LocalError::Usage(format!(
                "{} is no cluster's directory, nor its file, which is called {FILE_NAME}",
                path.display()
            ))),
            _ => Ok(Self(path)),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its path as a word of a shell's command line.
    pub fn quoted(&self) -> String {
        quoted(&self.0)
    }

    /// Its `cluster.toml`.
    pub fn config(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }

    /// What the `up` that watches over the cluster holds.
    pub fn up_pid(&self) -> PathBuf {
        self.0.join("up.pid")
    }

    /// The incarnations of the node called `name` that have a directory, in order; of all nodes, when it is empty.
    ///
    /// # Errors
    /// The system refused to look.
    pub fn incarnations(&self, name: &str) -> Result<Vec<u16>, LocalError> {
        let what = || LocalError::system(format!("cannot look into {}", self.0.display()));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(what())? {
            let entry = entry.map_err(what())?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            let Some((node, digits)) = file.rsplit_once('.') else { continue };
            let is_one = (name.is_empty() || node == name) && entry.path().is_dir();
            found.extend(digits.parse::<u16>().ok().filter(|_| is_one));
        }
        found.sort_unstable();
        Ok(found)
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
            LocalError::Usage(format!("{} has no node {name:?}; it has {}", path.display(), names.join(", ")))
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

    /// Removes what a node leaves behind, its log included, and the directory itself when nothing else is in it.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn clear(&self) -> Result<(), LocalError> {
        let data = self.data();
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(std::fs::remove_dir_all(&data))
            .map_err(LocalError::system(format!("cannot remove {}", data.display())))?;
        for file in [self.pid(), self.log(), self.address()] {
            // What is not there, or somebody else's, may stay as it is.
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::remove_dir(&self.0);
        Ok(())
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

    /// Where the process of a node that is about to take another's place listens, until `cluster.toml` says so.
    fn address(&self) -> PathBuf {
        self.0.join("address")
    }

    /// Writes down where a process listens that `cluster.toml` does not name yet.
    pub(crate) fn write_address(&self, address: &str) -> Result<(), LocalError> {
        let path = self.address();
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            writeln!(file, "{address}")?;
            file.sync_all()?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(LocalError::system(format!("cannot write {}", path.display())))
    }

    /// Reads it again.
    pub(crate) fn read_address(&self) -> Result<String, LocalError> {
        let path = self.address();
        let text =
            std::fs::read_to_string(&path).map_err(LocalError::system(format!("cannot read {}", path.display())))?;
        let address = text.trim_end();
        if config::is_address(address) {
            return Ok(address.to_owned());
        }
        let (path, form) = (path.display(), config::ADDRESS_FORM);
        Err(LocalError::Refused(format!("{path} holds no address; allowed is {form}, without the quotes")))
    }

    /// What the node's process says.
    pub fn log(&self) -> PathBuf {
        self.0.join("node.log")
    }

    /// The files of the node's log.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Whose log that is.
    pub fn meta(&self) -> PathBuf {
        self.data().join("meta")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_its_directory_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let named = |path: &str| ClusterDir::named(&dir.path().join(path)).map(|named| named.0);
        assert_eq!(named("").unwrap(), dir.path());
        assert_eq!(named("cluster.toml").unwrap(), dir.path());
        assert_eq!(named("new").unwrap(), dir.path().join("new"));
        std::fs::write(dir.path().join("other"), "").unwrap();
        for wrong in ["other", "missing.toml"] {
            assert!(matches!(named(wrong), Err(LocalError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn paths_can_be_pasted() {
        assert_eq!(quoted(Path::new("/tmp/a-b/c.d")), "/tmp/a-b/c.d");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
