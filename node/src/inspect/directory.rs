//! A node's files together: each by itself, and the log as an opening would find it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{Contents, Detail, Finding, Report};
use crate::config::unhex;
use crate::disk::chain::Chain;
use crate::disk::fs::{LOCK_NAME, ReadOnlyFs, RealFile};
use crate::disk::record::Mark;
use crate::disk::scan::{self, Source};
use crate::disk::segments::segment_generation;
use crate::local::pidfile;
use crate::snapshot::Snapshots;

/// A directory and what is in it.
#[derive(Debug, Serialize)]
pub struct Directory {
    /// The process that uses it. What is read while it writes may not fit together.
    pub used_by: Option<i32>,
    /// The log, if there are segments of one.
    pub log: Option<LogView>,
    /// Its files, by name.
    pub files: Vec<Report>,
}

/// The log that the segments mean together.
#[derive(Debug, Serialize)]
pub struct LogView {
    /// The position before its first.
    pub behind: u64,
    /// Its last position.
    pub last_seq: u64,
    /// Epoch counter and coordinator of its last entry.
    pub epoch: pygmy_proto::message::Epoch,
    /// Hash of its last entry.
    pub hash: String,
    /// Whether it was ended in order, so that an opening goes on where it ends.
    pub closed: bool,
    /// Bytes behind the end that were written and never acknowledged.
    pub torn_bytes: u64,
}

/// Looks at all files in `path`, and in the directories in it.
pub(super) fn inspect(path: &Path, detail: Detail) -> io::Result<Report> {
    let mut names: Vec<_> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    names.sort();
    let mut files = Vec::new();
    for name in names {
        match super::inspect(&name, detail) {
            Ok(report) => files.push(report),
            // Files come and go while a node runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => files.push(Report {
                path: name.display().to_string(),
                bytes: 0,
                contents: Contents::Unknown,
                findings: vec![Finding::damage(format!("it cannot be read: {error}"))],
            }),
        }
    }
    let mut findings = Vec::new();
    let log = log(path, &files, &mut findings)?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    let used_by = pidfile::holder(&path.join(LOCK_NAME))?;
    if used_by.is_some() {
        findings.push(Finding::note("a process writes these files meanwhile: what is read may not fit together"));
    }
    let contents = Contents::Directory(Directory { used_by, log, files });
    Ok(Report { path: path.display().to_string(), bytes, contents, findings })
}

/// Whose log it is: by the meta file, or else by most segments.
fn identity(files: &[Report]) -> Option<[u8; 16]> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        match &file.contents {
            Contents::Meta(meta) => return unhex(&meta.log),
            Contents::LogSegment(segment) => {
                if let Some(log) = &segment.log {
                    *votes.entry(log).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    votes.into_iter().max_by_key(|(_, count)| *count).and_then(|(log, _)| unhex(log))
}

fn log(path: &Path, files: &[Report], findings: &mut Vec<Finding>) -> io::Result<Option<LogView>> {
    let Some(uuid) = identity(files) else { return Ok(None) };
    let mut sources = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Some(generation) = segment_generation(&entry.file_name().to_string_lossy()) {
            sources.push(Source { generation, file: RealFile::read_only(&entry.path())? });
        }
    }
    if sources.is_empty() {
        return Ok(None);
    }
    sources.sort_by_key(|source| source.generation);
    let mut scanned = match scan::scan(&sources, uuid, Chain::new(anchor(path, files, findings))) {
        Ok(scanned) => scanned,
        Err(error) => {
            findings.push(Finding::damage(error.to_string()));
            return Ok(None);
        }
    };
    scanned.chain.finish();
    for place in &scanned.damaged {
        findings.push(Finding::damage(format!("acknowledged bytes of the log are damaged at {place}")));
    }
    if let Some((epoch, seq)) = scanned.chain.owed() {
        let what = format!(
            "entries up to seq {seq} of epoch {}.{} may have been acknowledged and are not all here: this log has no \
             vote until it has them back from the others",
            epoch.counter, epoch.node
        );
        findings.push(Finding::damage(what));
    }
    if scanned.cut_bytes > 0 {
        let what = format!("{} bytes behind the end were never acknowledged: an opening cuts them", scanned.cut_bytes);
        findings.push(Finding::note(what));
    }
    let (base, end) = (scanned.chain.base(), scanned.chain.end());
    Ok(Some(LogView {
        behind: base.seq,
        last_seq: end.seq,
        epoch: end.epoch,
        hash: format!("{:032x}", end.hash),
        closed: scanned.clean,
        torn_bytes: scanned.cut_bytes,
    }))
}

/// What the log need not reach back beyond: the newest snapshot that is whole, the ledger's files included.
fn anchor(path: &Path, files: &[Report], findings: &mut Vec<Finding>) -> Mark {
    let views = files.iter().filter_map(|file| match &file.contents {
        Contents::Snapshot(view) => Some(view),
        _ => None,
    });
    let mut newest = Mark::default();
    for view in views {
        match Snapshots::verify(ReadOnlyFs::new(path), view.seq) {
            Ok(()) if view.seq > newest.seq => {
                let hash = u128::from_str_radix(&view.hash, 16).unwrap_or_default();
                newest = Mark { epoch: view.epoch, seq: view.seq, hash };
            }
            Ok(()) => {}
            Err(error) => {
                findings.push(Finding::damage(format!("the snapshot of seq {} cannot be used: {error}", view.seq)));
            }
        }
    }
    newest
}
