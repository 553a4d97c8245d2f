//! The layout of a record of the log, and positions in the stream of records.
//!
//! A record is a header of [`HEADER_LEN`] bytes and a body. All numbers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic, `PYLG` |
//! | 4 | version, 1 |
//! | 5 | kind: 1 batch, 2 copy, 3 padding, 4 closing |
//! | 6..8 | reserved, 0 |
//! | 8..12 | length of the body |
//! | 12..16 | count: entries in the body |
//! | 16..24 | position of this record in the stream; its upper half is the segment's generation |
//! | 24..32 | stable position: all before it was known to be synced when this record was written |
//! | 32..40 | where the stream went on from: what lies between that and this group is not part of it |
//! | 40..50 | epoch in which this was submitted: counter, node |
//! | 50..60 | epoch of the entry before: counter, node |
//! | 60..64 | reserved, 0 |
//! | 64..72 | first seq |
//! | 72..88 | hash of the entry before |
//! | 88..104 | the log's UUID |
//! | 104..108 | CRC-32C of the body |
//! | 108..112 | CRC-32C of bytes 0..108 |
//!
//! The body of a batch or a copy is the batch, verbatim. That of a closing record may begin with an epoch (counter,
//! node) and a seq: an end that this log had and lost to damage. Everything else in bodies is zero.
//!
//! **A batch and a closing record say that the log ends before `first seq` with that entry before it, and goes on from
//! there.** So each supersedes what came earlier at and above its first seq, and each shows, by the hash, whether
//! something that came earlier is missing. A copy says again what may be there already, and takes nothing away when it
//! is; padding says nothing, since behind a copy there may be more of the log than it knows of.

use pygmy_proto::batch::{BATCH_HEADER_LEN, ENTRY_HEADER_LEN};
use pygmy_proto::limits::{BATCH_BYTES_MAX, CLIENT_BODY_MAX};
use pygmy_proto::message::Epoch;

/// Bytes of a header.
pub const HEADER_LEN: usize = 112;
/// What is written together starts and ends at multiples of this, so that a block with acknowledged bytes is never
/// written again.
pub const BLOCK: usize = 4096;
/// The largest body: a batch of the most bytes, or one with a single longest entry.
pub const BODY_MAX: usize = BATCH_HEADER_LEN + BATCH_BYTES_MAX + ENTRY_HEADER_LEN + CLIENT_BODY_MAX;
/// The version written and read by this build.
pub const VERSION: u8 = 1;
/// Bytes of the end named by a closing record.
pub const OWED_LEN: usize = 20;

/// First bytes of a record.
pub const MAGIC: &[u8; 4] = b"PYLG";
const CRC_AT: usize = HEADER_LEN - 4;

/// A place in the log seen as one endless stream of bytes: generation of the segment and offset in it. A generation is
/// used once, so a later byte always has a higher position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Offset `offset` of segment `generation`.
    pub fn new(generation: u32, offset: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(offset))
    }

    /// The segment.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in it.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }

    /// So many bytes on in the same segment.
    #[must_use]
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.generation(), self.offset())
    }
}

/// An entry, named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Epoch in which it was ordered.
    pub epoch: Epoch,
    /// Its place; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: u128,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A batch that was submitted.
    Batch = 1,
    /// A batch found at opening and written again, so that it is surely on disk.
    Copy = 2,
    /// Fills a group's last block.
    Padding = 3,
    /// Ends what was written before a pause: it makes the group before not the last.
    Closing = 4,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Batch),
            2 => Some(Self::Copy),
            3 => Some(Self::Padding),
            4 => Some(Self::Closing),
            _ => None,
        }
    }

    /// Whether its body is a batch.
    pub fn has_batch(self) -> bool {
        matches!(self, Self::Batch | Self::Copy)
    }
}

/// Header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the body.
    pub len: u32,
    /// Entries in the body.
    pub count: u32,
    /// Where it is.
    pub position: Position,
    /// All before this was known to be synced.
    pub stable: Position,
    /// Where the stream went on from.
    pub follows: Position,
    /// Epoch in which it was submitted.
    pub tag: Epoch,
    /// The entry before its first.
    pub before: Mark,
    /// The log.
    pub uuid: [u8; 16],
    /// Checksum of the body.
    pub body_crc: u32,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The file ends before it does.
    #[error("cut short")]
    Short,
    /// Something else stands there.
    #[error("no record begins here")]
    Magic,
    /// The checksum of the header or the body is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// Written by another version.
    #[error("version {0} is not known")]
    Version(u8),
    /// The checksum is right and the content cannot be.
    #[error("impossible header")]
    Impossible,
}

impl Header {
    /// The first seq that it speaks of.
    pub fn first_seq(&self) -> u64 {
        self.before.seq.saturating_add(1)
    }

    /// The last seq in its body; that of the entry before if it has none.
    pub fn last_seq(&self) -> u64 {
        self.before.seq.saturating_add(self.count.into())
    }

    /// Where the next record of the group begins.
    pub fn end(&self) -> Position {
        self.position.plus(HEADER_LEN + self.len as usize)
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.stable.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.follows.0.to_le_bytes());
        put_epoch(&mut out[40..50], self.tag);
        put_epoch(&mut out[50..60], self.before.epoch);
        out[64..72].copy_from_slice(&self.first_seq().to_le_bytes());
        out[72..88].copy_from_slice(&self.before.hash.to_le_bytes());
        out[88..104].copy_from_slice(&self.uuid);
        out[104..108].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header at the start of `bytes`. The body is not looked at.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let head = bytes.first_chunk::<HEADER_LEN>().ok_or(RecordError::Short)?;
        if head[0..4] != *MAGIC {
            return Err(RecordError::Magic);
        }
        if crc32c::crc32c(&head[..CRC_AT]).to_le_bytes() != head[CRC_AT..] {
            return Err(RecordError::Checksum);
        }
        if head[4] != VERSION {
            return Err(RecordError::Version(head[4]));
        }
        let before_seq = u64::from_le_bytes(at(head, 64)).checked_sub(1).ok_or(RecordError::Impossible)?;
        let header = Self {
            kind: Kind::from_u8(head[5]).ok_or(RecordError::Impossible)?,
            len: u32::from_le_bytes(at(head, 8)),
            count: u32::from_le_bytes(at(head, 12)),
            position: Position(u64::from_le_bytes(at(head, 16))),
            stable: Position(u64::from_le_bytes(at(head, 24))),
            follows: Position(u64::from_le_bytes(at(head, 32))),
            tag: get_epoch(head, 40),
            before: Mark { epoch: get_epoch(head, 50), seq: before_seq, hash: u128::from_le_bytes(at(head, 72)) },
            uuid: at(head, 88),
            body_crc: u32::from_le_bytes(at(head, 104)),
        };
        let possible = header.len as usize <= BODY_MAX && header.kind.has_batch() == (header.count > 0);
        if possible { Ok(header) } else { Err(RecordError::Impossible) }
    }
}

/// The body of a closing record, `len` bytes long.
pub fn closing_body(owed: Option<(Epoch, u64)>, len: usize) -> Vec<u8> {
    let mut body = vec![0; len];
    if let (Some((epoch, seq)), Some(out)) = (owed, body.first_chunk_mut::<OWED_LEN>()) {
        put_epoch(&mut out[0..10], epoch);
        out[12..20].copy_from_slice(&seq.to_le_bytes());
    }
    body
}

/// The end that a closing record names.
pub fn owed(body: &[u8]) -> Option<(Epoch, u64)> {
    let body = body.first_chunk::<OWED_LEN>()?;
    let seq = u64::from_le_bytes(at(body, 12));
    (seq > 0).then(|| (get_epoch(body, 0), seq))
}

pub(super) fn put_epoch(out: &mut [u8], epoch: Epoch) {
    out[0..8].copy_from_slice(&epoch.counter.to_le_bytes());
    out[8..10].copy_from_slice(&epoch.node.to_le_bytes());
}

pub(super) fn get_epoch(bytes: &[u8], from: usize) -> Epoch {
    Epoch { counter: u64::from_le_bytes(at(bytes, from)), node: u16::from_le_bytes(at(bytes, from + 8)) }
}

/// The bytes from `from` on. Callers have checked the length; what is missing reads as zero.
pub(super) fn at<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    bytes.get(from..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

/// The next multiple of [`BLOCK`].
pub fn block_end(offset: usize) -> usize {
    offset.next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Batch,
            len: 0x0102,
            count: 3,
            position: Position::new(2, 0x3000),
            stable: Position::new(2, 0x2000),
            follows: Position::new(1, 0x1000),
            tag: Epoch { counter: 9, node: 4 },
            before: Mark { epoch: Epoch { counter: 8, node: 5 }, seq: 6, hash: 0x7777 },
            uuid: [0xab; 16],
            body_crc: 0x0403_0201,
        }
    }

    #[test]
    fn the_layout_is_the_one_in_the_table() {
        let mut expected = Vec::from(*b"PYLG\x01\x01\0\0\x02\x01\0\0\x03\0\0\0");
        for position in [[0x3000, 2], [0x2000, 2], [0x1000, 1_u32]] {
            position.iter().for_each(|half| expected.extend(half.to_le_bytes()));
        }
        expected.extend(*b"\x09\0\0\0\0\0\0\0\x04\0\x08\0\0\0\0\0\0\0\x05\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        expected.extend(0x7777_u128.to_le_bytes());
        expected.extend([0xab; 16]);
        expected.extend([1, 2, 3, 4]);
        let bytes = header().encode();
        assert_eq!(bytes[..CRC_AT], expected);
        assert_eq!(bytes[CRC_AT..], crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!(Header::decode(&bytes), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes = header().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::decode(&flipped), Err(RecordError::Magic | RecordError::Checksum)), "bit {bit}");
        }
        for len in 0..HEADER_LEN {
            assert_eq!(Header::decode(&bytes[..len]), Err(RecordError::Short));
        }
    }

    #[test]
    fn what_is_owed_is_read_as_it_was_written() {
        let end = Some((Epoch { counter: 3, node: 2 }, 17));
        assert_eq!(owed(&closing_body(end, 100)), end);
        assert_eq!(owed(&closing_body(None, 100)), None);
        assert_eq!(owed(&[1; OWED_LEN - 1]), None);
    }
}
