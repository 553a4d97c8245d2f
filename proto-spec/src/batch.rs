//! Log entries in bytes: one layout for the wire, the log and every reader of them. `SPEC.md` §14.
//!
//! A batch is a 72-byte header and a run of entries: kind (`u8`), length (`u32`), body.
//! Entries are chained: the hash of an entry covers the hash before it, its batch's epoch, origin and time, its seq, its
//! kind and its body.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use crate::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, CLIENT_BODY_MAX};
use crate::message::Epoch;

/// Length of a batch's header in bytes.
pub const BATCH_HEADER_LEN: usize = 72;
/// Bytes of an entry before its body.
pub const ENTRY_HEADER_LEN: usize = 5;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Registers a session; its seq is the session's id. No body.
    Register = 1,
    /// A command of a session: session, counter, first incomplete (`u64` each), then what the state machine reads.
    Command = 2,
    /// Begins an epoch; body [`crate::message::EpochStart`]. Alone in its batch.
    NewEpoch = 3,
    /// A configuration; body [`crate::message::Membership`]. Alone in its batch.
    Config = 4,
}

impl EntryKind {
    /// The kind with this number.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Register),
            2 => Some(Self::Command),
            3 => Some(Self::NewEpoch),
            4 => Some(Self::Config),
            _ => None,
        }
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than its header or entries need.
    #[error("the batch is cut short")]
    Short,
    /// More bytes than its entries need.
    #[error("bytes follow the batch's last entry")]
    Trailing,
    /// No entries, or more than allowed.
    #[error("{0} entries in a batch, allowed are 1 to {BATCH_ENTRIES_MAX}")]
    Count(u32),
    /// The first seq is 0 or the last does not fit.
    #[error("a batch cannot begin at seq {0}")]
    Seq(u64),
    /// The reserved bytes are not zero: a later version gave them a meaning that is not known here.
    #[error("the batch's reserved bytes are {0:#x}, must be 0")]
    Reserved(u64),
    /// The entries are not those whose hash the header names.
    #[error("the hash of the batch's entries is not the one in its header")]
    Hash,
    /// An entry of no known kind.
    #[error("entry kind {0} is not known")]
    Kind(u8),
    /// An entry too long.
    #[error("an entry of {0} bytes is above the limit of {CLIENT_BODY_MAX}")]
    EntryTooLong(u32),
}

/// Header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Epoch in which it was ordered.
    pub epoch: Epoch,
    /// Number of the node that ordered it.
    pub origin: u16,
    /// Position of its first entry.
    pub first_seq: u64,
    /// Microseconds since 1970-01-01 UTC; higher than that of the batch before.
    pub time_us: u64,
    /// Hash of the entry before the first.
    pub hash_before: u128,
    /// Hash of the last entry.
    pub hash_last: u128,
    /// Number of entries.
    pub count: u32,
}

impl BatchHeader {
    /// What all its entries share.
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, origin: self.origin, time_us: self.time_us }
    }

    /// Position of the last entry; of an empty batch, which none is that was built or parsed, the one before the first.
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.count.into()).saturating_sub(1)
    }

    fn write(&self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.epoch.counter.to_le_bytes());
        out[8..10].copy_from_slice(&self.epoch.node.to_le_bytes());
        out[10..12].copy_from_slice(&self.origin.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.time_us.to_le_bytes());
        out[32..48].copy_from_slice(&self.hash_before.to_le_bytes());
        out[48..64].copy_from_slice(&self.hash_last.to_le_bytes());
        out[64..72].fill(0);
    }

    fn read(bytes: &[u8; BATCH_HEADER_LEN]) -> Result<Self, BatchError> {
        fn at<const N: usize>(bytes: &[u8; BATCH_HEADER_LEN], from: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[from..from + N]);
            out
        }
        let reserved = u64::from_le_bytes(at(bytes, 64));
        if reserved != 0 {
            return Err(BatchError::Reserved(reserved));
        }
        let header = Self {
            epoch: Epoch { counter: u64::from_le_bytes(at(bytes, 0)), node: u16::from_le_bytes(at(bytes, 8)) },
            origin: u16::from_le_bytes(at(bytes, 10)),
            count: u32::from_le_bytes(at(bytes, 12)),
            first_seq: u64::from_le_bytes(at(bytes, 16)),
            time_us: u64::from_le_bytes(at(bytes, 24)),
            hash_before: u128::from_le_bytes(at(bytes, 32)),
            hash_last: u128::from_le_bytes(at(bytes, 48)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        if self.count == 0 || self.count as usize > BATCH_ENTRIES_MAX {
            return Err(BatchError::Count(self.count));
        }
        if self.first_seq == 0 || self.first_seq.checked_add(self.count.into()).is_none() {
            return Err(BatchError::Seq(self.first_seq));
        }
        Ok(())
    }
}

/// One entry, lent from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its position.
    pub seq: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Its body.
    pub body: &'a [u8],
}

/// What all entries of a batch share and what their hashes cover, since it reaches the state: an order bears its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Epoch in which they were ordered.
    pub epoch: Epoch,
    /// Number of the node that ordered them.
    pub origin: u16,
    /// When, in microseconds since 1970-01-01 UTC.
    pub time_us: u64,
}

/// The hash of an entry, given the hash of the one before.
pub fn entry_hash(before: u128, stamp: Stamp, seq: u64, kind: EntryKind, body: &[u8]) -> u128 {
    // One run over head and body; the streaming hasher costs more than a copy for the short bodies that are usual.
    const HEAD: usize = 48;
    const SMALL: usize = 256;
    let mut head = [0_u8; HEAD];
    head[0..16].copy_from_slice(&before.to_le_bytes());
    head[16..24].copy_from_slice(&stamp.epoch.counter.to_le_bytes());
    head[24..26].copy_from_slice(&stamp.epoch.node.to_le_bytes());
    head[26..28].copy_from_slice(&stamp.origin.to_le_bytes());
    head[28] = kind as u8;
    head[32..40].copy_from_slice(&stamp.time_us.to_le_bytes());
    head[40..48].copy_from_slice(&seq.to_le_bytes());
    if body.len() <= SMALL - HEAD {
        let mut all = [0_u8; SMALL];
        all[..HEAD].copy_from_slice(&head);
        all[HEAD..HEAD + body.len()].copy_from_slice(body);
        return xxhash_rust::xxh3::xxh3_128(&all[..HEAD + body.len()]);
    }
    let mut hasher = Xxh3::new();
    hasher.update(&head);
    hasher.update(body);
    hasher.digest128()
}

/// Builds a batch entry by entry.
#[derive(Debug)]
pub struct BatchBuilder {
    out: BytesMut,
    header: BatchHeader,
}

impl BatchBuilder {
    /// A batch that begins at `first_seq` behind an entry with `hash_before`.
    pub fn new(epoch: Epoch, origin: u16, first_seq: u64, time_us: u64, hash_before: u128) -> Self {
        let header = BatchHeader { epoch, origin, first_seq, time_us, hash_before, hash_last: hash_before, count: 0 };
        Self { out: BytesMut::zeroed(BATCH_HEADER_LEN), header }
    }

    /// Whether an entry with a body of `len` bytes still belongs in. The first always does.
    pub fn has_room(&self, len: usize) -> bool {
        let count = self.header.count as usize;
        count == 0
            || (count < BATCH_ENTRIES_MAX
                && self.out.len() - BATCH_HEADER_LEN + ENTRY_HEADER_LEN + len <= BATCH_BYTES_MAX)
    }

    /// Adds an entry; its seq.
    pub fn push(&mut self, kind: EntryKind, body: &[u8]) -> u64 {
        let seq = self.header.first_seq + u64::from(self.header.count);
        self.header.hash_last = entry_hash(self.header.hash_last, self.header.stamp(), seq, kind, body);
        self.header.count += 1;
        self.out.extend_from_slice(&[kind as u8]);
        self.out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.out.extend_from_slice(body);
        seq
    }

    /// The batch, or `None` when nothing was added.
    pub fn finish(mut self) -> Option<Batch> {
        if self.header.count == 0 {
            return None;
        }
        self.header.write(&mut self.out[..BATCH_HEADER_LEN]);
        Some(Batch { header: self.header, bytes: self.out.freeze() })
    }
}

/// A batch whose bytes have been checked: every entry is whole, the counts and the hash chain are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Checks and takes `bytes`. The last entry's hash is recomputed, so a batch that is accepted is what was chained.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let head = bytes.first_chunk::<BATCH_HEADER_LEN>().ok_or(BatchError::Short)?;
        let header = BatchHeader::read(head)?;
        let mut hash = header.hash_before;
        let mut at = BATCH_HEADER_LEN;
        for index in 0..header.count {
            let (entry, next) = read_entry(&bytes, at, header.first_seq + u64::from(index))?;
            hash = entry_hash(hash, header.stamp(), entry.seq, entry.kind, entry.body);
            at = next;
        }
        if at != bytes.len() {
            return Err(BatchError::Trailing);
        }
        if hash != header.hash_last {
            return Err(BatchError::Hash);
        }
        Ok(Self { header, bytes })
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
    /// Position of its last entry.
    pub fn last_seq(&self) -> u64 {
        self.header.last_seq()
    }
    /// Its bytes, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// Its entries in order.
    pub fn entries(&self) -> Entries<'_> {
        Entries { bytes: &self.bytes, at: BATCH_HEADER_LEN, seq: self.header.first_seq }
    }
}

/// Iterates over the entries of a batch.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    seq: u64,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;
    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, next) = read_entry(self.bytes, self.at, self.seq).ok()?;
        self.at = next;
        self.seq += 1;
        Some(entry)
    }
}

/// The entry at `at`, and where the next one begins.
fn read_entry(bytes: &[u8], at: usize, seq: u64) -> Result<(Entry<'_>, usize), BatchError> {
    let head = bytes.get(at..).and_then(<[u8]>::first_chunk::<ENTRY_HEADER_LEN>).ok_or(BatchError::Short)?;
    let [kind, len @ ..] = *head;
    let len = u32::from_le_bytes(len);
    if len as usize > CLIENT_BODY_MAX {
        return Err(BatchError::EntryTooLong(len));
    }
    let start = at + ENTRY_HEADER_LEN;
    let end = start + len as usize;
    let body = bytes.get(start..end).ok_or(BatchError::Short)?;
    let kind = EntryKind::from_u8(kind).ok_or(BatchError::Kind(kind))?;
    Ok((Entry { seq, kind, body }, end))
}
