//! The birth of a log: a process may vote under the identity that `cluster.toml` gives its log once, and never again.
//!
//! This build keeps the log in memory, so a process that ends takes along every entry and every acknowledgement that it
//! gave. One that came back under the same identity could acknowledge something else in the same place, and what a
//! majority had would be had by nobody. So the first process writes down that the log was born, before it says a word;
//! a later one finds that, draws a fresh identity, which no majority counts, and follows as a learner.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::config::{hex, unhex};

const HEADER: &str = "# Logs that were born here, one identity a line. A process votes under one only at its birth.\n";

/// Under which identity a process keeps its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The configured one: this process is its birth.
    Born([u8; 16]),
    /// A fresh one: the configured one was born before, and what it knew is lost.
    Learner([u8; 16]),
}

impl Identity {
    /// The identity itself.
    pub fn log_uuid(self) -> [u8; 16] {
        match self {
            Identity::Born(uuid) | Identity::Learner(uuid) => uuid,
        }
    }
}

/// Takes the identity `configured` if it was not born yet according to the file at `path`, and `fresh` otherwise.
/// When this returns, the birth is on disk. The caller holds the node's lock, so that two cannot be born at once.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn claim(path: &Path, configured: [u8; 16], fresh: [u8; 16]) -> io::Result<Identity> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if born(&text)?.contains(&configured) {
        return Ok(Identity::Learner(fresh));
    }
    // A torn last line must not run into the new one; it is refused above if it is not an identity.
    let lead = if text.is_empty() { HEADER } else { "" };
    file.write_all(format!("{lead}{}\n", hex(&configured)).as_bytes())?;
    file.sync_all()?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(Identity::Born(configured))
}

/// The identities in `text`. An unreadable line is an error rather than a birth forgotten.
fn born(text: &str) -> io::Result<Vec<[u8; 16]>> {
    let broken = |line: &str| {
        let why = format!("{line:?} is not an identity of 32 hex digits on a line of its own");
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    if let Some(torn) = text.lines().last().filter(|_| !text.ends_with('\n')) {
        return Err(broken(torn));
    }
    text.lines().filter(|line| !line.starts_with('#')).map(|line| unhex(line).ok_or_else(|| broken(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [0xaa; 16];
    const B: [u8; 16] = [0xbb; 16];
    const FRESH: [u8; 16] = [0x11; 16];

    #[test]
    fn an_identity_is_born_once_and_every_later_process_is_a_learner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        assert_eq!(claim(&path, A, FRESH).unwrap(), Identity::Born(A));
        assert_eq!(claim(&path, A, FRESH).unwrap(), Identity::Learner(FRESH));
        assert_eq!(claim(&path, A, FRESH).unwrap().log_uuid(), FRESH);
    }

    #[test]
    fn a_new_cluster_in_the_same_directory_is_born_anew_and_the_old_one_stays_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        claim(&path, A, FRESH).unwrap();
        assert_eq!(claim(&path, B, FRESH).unwrap(), Identity::Born(B));
        assert_eq!(claim(&path, A, FRESH).unwrap(), Identity::Learner(FRESH));
        assert_eq!(claim(&path, B, FRESH).unwrap(), Identity::Learner(FRESH));
    }

    #[test]
    fn a_damaged_file_gives_no_vote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        for text in ["garbage\n", "aaaa", &hex(&A)] {
            std::fs::write(&path, text).unwrap();
            let error = claim(&path, B, FRESH).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "left as it was");
        }
    }
}
