//! Whose log a directory holds: the file `meta`, made once when the directory is formatted and never changed.
//!
//! A directory that has none was never formatted, or lost everything: whoever starts on it draws a fresh identity, has
//! no vote and follows as a learner. Only making a cluster gives a log the identity that its configuration names; so
//! an empty disk never votes under an old name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::config::{hex, unhex};
use crate::settings::{NodeSettings, Settings};

/// First line of the file: what it is, and its version.
const MAGIC: &str = "pygmy-meta 1";

/// Whose log a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Id of the cluster.
    pub cluster: [u8; 16],
    /// Number of the node.
    pub node: u16,
    /// Its name.
    pub name: String,
    /// Identity of the log.
    pub log_uuid: [u8; 16],
    /// Hash of the cluster's settings.
    pub settings: u64,
}

/// Why a directory cannot be used by a node.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else, or damaged.
    #[error("{line:?} does not belong in a meta file: it is damaged or another file; {remedy}")]
    Damaged {
        /// The line.
        line: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The checksum does not match.
    #[error("its checksum is {found}, that of its contents is {expected}: it is damaged; {remedy}")]
    Checksum {
        /// As in the file.
        found: String,
        /// As computed.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It belongs to another node or cluster, or was made with other settings.
    #[error("the directory belongs to {what} {theirs}, this is {what} {ours}")]
    Foreign {
        /// What differs.
        what: &'static str,
        /// In the directory.
        theirs: String,
        /// In the configuration.
        ours: String,
    },
}

const REMEDY: &str = "move the directory away to let the node start anew as a learner";

impl Meta {
    /// What is written into the directory of `node`.
    pub fn new(settings: &crate::settings::ClusterSettings, node: &NodeSettings, log_uuid: [u8; 16]) -> Self {
        Self { cluster: settings.id, node: node.number, name: node.name.clone(), log_uuid, settings: settings.hash() }
    }

    /// Reads the file at `path`; none when it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn read(path: &Path) -> Result<Option<Self>, MetaError> {
        match fs::read(path) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the file at `path`, which must not be there. When this returns it is on the disk.
    ///
    /// # Errors
    /// The system refused, or the file is there already.
    pub fn create(&self, path: &Path) -> io::Result<()> {
        let text = self.text();
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }

    fn text(&self) -> String {
        let Self { cluster, node, name, log_uuid, settings } = self;
        let body = format!(
            "{MAGIC}\ncluster = {}\nnode = {node}\nname = {name}\nlog = {}\nsettings = {settings:016x}\n",
            hex(cluster),
            hex(log_uuid)
        );
        let sum = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c = {sum:08x}\n")
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// It is not what it should be.
    pub fn parse(text: &str) -> Result<Self, MetaError> {
        let damaged = |line: &str| MetaError::Damaged { line: line.chars().take(80).collect(), remedy: REMEDY };
        let mut lines = text.lines();
        let mut next = |key: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(" = "));
            value.map(str::to_owned).ok_or_else(|| damaged(line))
        };
        let (first, _) = text.split_once('\n').unwrap_or((text, ""));
        if first != MAGIC {
            return Err(damaged(first));
        }
        let (body, last) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or((text, ""));
        let expected = format!("{:08x}", crc32c::crc32c(format!("{body}\n").as_bytes()));
        let found = last.strip_prefix("crc32c = ").ok_or_else(|| damaged(last))?;
        if found != expected {
            return Err(MetaError::Checksum { found: found.to_owned(), expected, remedy: REMEDY });
        }
        // The first line was looked at already.
        let _ = next(MAGIC);
        let identity = |value: String| unhex(&value).ok_or_else(|| damaged(&value));
        Ok(Self {
            cluster: identity(next("cluster")?)?,
            node: next("node")?.parse().map_err(|_| damaged(first))?,
            name: next("name")?,
            log_uuid: identity(next("log")?)?,
            settings: u64::from_str_radix(&next("settings")?, 16).map_err(|_| damaged(first))?,
        })
    }

    /// Whether this is the directory of the node that `settings` describe.
    ///
    /// # Errors
    /// What differs, with both values.
    pub fn belongs_to(&self, settings: &Settings) -> Result<(), MetaError> {
        let own = settings.own();
        let foreign = |what, theirs: String, ours: String| Err(MetaError::Foreign { what, theirs, ours });
        if self.cluster != settings.cluster.id {
            return foreign("cluster", hex(&self.cluster), hex(&settings.cluster.id));
        }
        if (self.node, self.name.as_str()) != (settings.me, own.name.as_str()) {
            return foreign(
                "node",
                format!("{} (number {})", self.name, self.node),
                format!("{} (number {})", own.name, settings.me),
            );
        }
        let ours = settings.cluster.hash();
        if self.settings != ours {
            return foreign("a cluster with settings", format!("{:016x}", self.settings), format!("{ours:016x}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta { cluster: [7; 16], node: 5, name: "catalog-1".into(), log_uuid: [9; 16], settings: 0x1234 }
    }

    #[test]
    fn what_was_written_is_read_and_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        assert_eq!(Meta::read(&path).unwrap(), None);
        meta().create(&path).unwrap();
        assert_eq!(Meta::read(&path).unwrap(), Some(meta()));
        let other = Meta { log_uuid: [1; 16], ..meta() };
        assert_eq!(other.create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Meta::read(&path).unwrap(), Some(meta()), "left as it was");
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let whole = meta().text().into_bytes();
        for at in 0..whole.len() {
            for bit in [1, 0x20, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                fs::write(&path, &bytes).unwrap();
                // The very last line feed says nothing.
                let harmless = at == whole.len() - 1;
                assert!(harmless || Meta::read(&path).is_err(), "byte {at}, bit {bit:#x}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(at == whole.len() - 1 || Meta::read(&path).is_err(), "cut at {at}");
        }
    }
}
