//! The vote file: its four copies.

use pygmy_proto::message::Epoch;
use serde::Serialize;

use super::{Contents, Finding};
use crate::config::hex;
use crate::disk::vote::{self, CopyError};

pub(super) use crate::disk::vote::MAGIC;

/// What the vote file holds.
#[derive(Debug, Serialize)]
pub struct VoteCopies {
    /// The vote that counts: the one of the highest generation.
    pub promised: Option<Epoch>,
    /// The latest epoch at whose installation a part of the log was removed.
    pub cut: Option<Epoch>,
    /// Identity of the log.
    pub log: Option<String>,
    /// Whether an opening would take the vote for good.
    pub counts: bool,
    /// Two copies in each of two slots.
    pub copies: Vec<CopyView>,
}

/// One copy.
#[derive(Debug, Serialize)]
pub struct CopyView {
    /// Which slot it is in.
    pub slot: usize,
    /// Its generation.
    pub generation: Option<u64>,
    /// What was promised.
    pub promised: Option<Epoch>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Reads the vote file.
pub(super) fn look(bytes: &[u8]) -> (Contents, Vec<Finding>) {
    let found = vote::copies(bytes);
    let mut findings = Vec::new();
    for (index, copy) in found.iter().enumerate() {
        if let Err(error) = copy {
            findings.push(Finding::damage(format!("copy {} of slot {}: {error}", index % 2 + 1, index / 2)));
        }
    }
    let slot_lost = found.chunks(2).any(|slot| slot.iter().all(Result::is_err));
    let newest = found.iter().flatten().max_by_key(|copy| copy.generation);
    let marked = newest.is_some_and(|copy| copy.damaged);
    if slot_lost || marked {
        let what = "the newest vote may be lost, so what was promised is unknown: this log has no vote";
        findings.push(Finding::damage(what));
    }
    let view = |(index, copy): (usize, &Result<vote::Copy, CopyError>)| CopyView {
        slot: index / 2,
        generation: copy.as_ref().ok().map(|copy| copy.generation),
        promised: copy.as_ref().ok().map(|copy| copy.vote.promised),
        error: copy.as_ref().err().map(ToString::to_string),
    };
    let copies = VoteCopies {
        promised: newest.map(|copy| copy.vote.promised),
        cut: newest.map(|copy| copy.vote.cut),
        log: newest.map(|copy| hex(&copy.uuid)),
        counts: !slot_lost && !marked && newest.is_some(),
        copies: found.iter().enumerate().map(view).collect(),
    };
    (Contents::Vote(copies), findings)
}
