//! Looks into the files of a node, whether or not it runs, and changes nothing.
//!
//! Every file is read as it stands, damaged or not: what can be understood is shown, and what cannot is a
//! [`Finding`] with its place. A file that is whole by itself may still be of no use beside the others; so a directory
//! is looked at as a whole, too: its log is read as an opening would read it ([`directory`]).

pub mod directory;
pub mod segment;
pub mod text;
pub mod vote;

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::config;
use crate::disk::fs::{FsFile as _, LOCK_NAME, RealFile};
use crate::disk::{record, segments};
use crate::local::meta::{Meta, MetaError};
use crate::snapshot::dir::{is_temporary, snapshot_seq};
use crate::snapshot::examine;
use crate::snapshot::ledger::ledger_number;

/// The longest file that is read at once; none that a node makes is longer.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// What the file is, and whether it is whole.
    Summary,
    /// Its records, too.
    Records,
    /// And what is in them.
    Entries,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; it happens to files that are well, such as after a crash.
    Note,
    /// Something is lost or wrong.
    Damage,
}

/// Something about a file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What and where.
    pub what: String,
}

impl Finding {
    /// Something worth knowing.
    pub fn note(what: impl Into<String>) -> Self {
        Self { severity: Severity::Note, what: what.into() }
    }

    /// Something lost or wrong.
    pub fn damage(what: impl Into<String>) -> Self {
        Self { severity: Severity::Damage, what: what.into() }
    }
}

/// What a file or directory is.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Contents {
    /// A segment of the log.
    LogSegment(segment::Segment),
    /// Zeros: a segment that is ready to be used, or is being made so.
    Spare,
    /// The vote file.
    Vote(vote::VoteCopies),
    /// The state as of one entry.
    Snapshot(examine::SnapshotView),
    /// Orders.
    Ledger(examine::LedgerView),
    /// What a snapshot was being made of, or received into, and never became one.
    Unfinished,
    /// Whose directory it is.
    Meta(MetaFields),
    /// A cluster's file.
    Cluster {
        /// Id of the cluster.
        id: String,
        /// Hash of what all nodes must share.
        settings: String,
        /// Names of the nodes.
        nodes: Vec<String>,
    },
    /// Locked by the process that uses the directory; it has no contents.
    Lock,
    /// The id of a process that runs, or ran.
    Pid,
    /// What a process has said.
    Messages,
    /// A node's files.
    Directory(directory::Directory),
    /// Nothing that a node makes.
    Unknown,
}

/// The fields of a meta file.
#[derive(Debug, Serialize)]
pub struct MetaFields {
    /// Id of the cluster.
    pub cluster: String,
    /// Number of the node.
    pub node: u16,
    /// Its name.
    pub name: String,
    /// Identity of its log.
    pub log: String,
    /// Hash of the cluster's settings.
    pub settings: String,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file or directory.
    pub path: String,
    /// Its length in bytes; for a directory that of its files.
    pub bytes: u64,
    /// What it is.
    #[serde(flatten)]
    pub contents: Contents,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is lost or wrong.
    pub fn is_whole(&self) -> bool {
        let parts_whole = match &self.contents {
            Contents::Directory(directory) => directory.files.iter().all(Report::is_whole),
            _ => true,
        };
        parts_whole && self.findings.iter().all(|finding| finding.severity != Severity::Damage)
    }
}

/// Looks at a file, or at a directory with all that is in it.
///
/// # Errors
/// It cannot be read.
pub fn inspect(path: &Path, detail: Detail) -> io::Result<Report> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return directory::inspect(path, detail);
    }
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a directory"));
    }
    if about.len() > FILE_BYTES_MAX {
        let what = format!("it has {} bytes, no file of a node has more than {FILE_BYTES_MAX}", about.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (contents, findings) = match snapshot(&name, path)? {
        Some(found) => found,
        None => look(&name, &fs::read(path)?, detail),
    };
    Ok(Report { path: path.display().to_string(), bytes: about.len(), contents, findings })
}

/// By its first bytes, or by its name where those are damaged.
fn look(name: &str, bytes: &[u8], detail: Detail) -> (Contents, Vec<Finding>) {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(record::MAGIC) || segments::segment_generation(name).is_some() {
        return segment::look(name, bytes, detail);
    }
    if is_temporary(name) {
        return (Contents::Unfinished, vec![Finding::note("the next start removes it")]);
    }
    if starts(&examine::LEDGER_MAGIC) || ledger_number(name).is_some() {
        return ledger(name, bytes, detail);
    }
    if starts(vote::MAGIC) || name == crate::disk::vote::VOTE_NAME {
        return vote::look(bytes);
    }
    if starts(b"pygmy-meta") || name == "meta" {
        return meta(bytes);
    }
    if name.ends_with(".toml") {
        return cluster(bytes);
    }
    if segments::is_spare(name) {
        let used = bytes.iter().any(|byte| *byte != 0);
        // One that was in use before keeps its old records, which its next name makes invisible.
        let note = used.then(|| Finding::note("it was in use before; what it holds counts no more"));
        return (Contents::Spare, note.into_iter().collect());
    }
    let plain = match name {
        LOCK_NAME => Some(Contents::Lock),
        _ if name.ends_with(".pid") => Some(Contents::Pid),
        _ if name.ends_with(".log") => Some(Contents::Messages),
        _ => None,
    };
    if let Some(contents) = plain {
        return (contents, Vec::new());
    }
    (Contents::Unknown, vec![Finding::note("no node makes a file like this")])
}

/// A snapshot, which is read chunk by chunk.
fn snapshot(name: &str, path: &Path) -> io::Result<Option<(Contents, Vec<Finding>)>> {
    let file = RealFile::read_only(path)?;
    let mut start = [0; 4];
    let begins = file.read_at(&mut start, 0).is_ok() && start == examine::SNAPSHOT_MAGIC;
    if is_temporary(name) || !(begins || snapshot_seq(name).is_some()) {
        return Ok(None);
    }
    Ok(Some(match examine::snapshot(name, file) {
        Ok((view, broken)) => {
            let finding = broken.map(|error| Finding::damage(error.to_string()));
            (Contents::Snapshot(view), finding.into_iter().collect())
        }
        Err(error) => (Contents::Unknown, vec![Finding::damage(error.to_string())]),
    }))
}

/// Behind what a snapshot names there may be bytes that nobody trusts; looked at alone, the file cannot tell.
fn ledger(name: &str, bytes: &[u8], detail: Detail) -> (Contents, Vec<Finding>) {
    let (view, broken) = examine::ledger(name, bytes, detail >= Detail::Records);
    let finding = broken.map(|error| Finding::damage(error.to_string()));
    (Contents::Ledger(view), finding.into_iter().collect())
}

fn meta(bytes: &[u8]) -> (Contents, Vec<Finding>) {
    match Meta::parse(&String::from_utf8_lossy(bytes)) {
        Ok(Meta { cluster, node, name, log_uuid, settings }) => {
            let (cluster, log) = (config::hex(&cluster), config::hex(&log_uuid));
            (Contents::Meta(MetaFields { cluster, node, name, log, settings: format!("{settings:016x}") }), Vec::new())
        }
        Err(error @ (MetaError::Damaged { .. } | MetaError::Checksum { .. })) => {
            (Contents::Unknown, vec![Finding::damage(format!("a meta file: {error}"))])
        }
        Err(error) => (Contents::Unknown, vec![Finding::damage(error.to_string())]),
    }
}

fn cluster(bytes: &[u8]) -> (Contents, Vec<Finding>) {
    match config::parse(&String::from_utf8_lossy(bytes)) {
        Ok(settings) => {
            let (id, hash) = (config::hex(&settings.id), format!("{:016x}", settings.hash()));
            let nodes = settings.nodes.iter().map(|node| node.name.clone()).collect();
            (Contents::Cluster { id, settings: hash, nodes }, Vec::new())
        }
        Err(error) => (Contents::Unknown, vec![Finding::damage(format!("a cluster's file: {error}"))]),
    }
}
