//! The head of a snapshot: what it is of, and what stands behind it. Everything as on the wire, in this order: epoch, seq
//! and hash of the last entry it contains; the time of that entry's batch; the state hash; how many books, sessions and
//! orders; the boundaries of the epochs; the configuration; how many files the ledger has, and of each its number, the
//! length up to which it belongs to the snapshot, and the hash of the bytes up to there.

use bytes::{BufMut, BytesMut};
use pygmy_proto::codec::{self, BodyError};
use pygmy_proto::message::{Boundaries, Epoch, LogEnd, Membership};
use pygmy_proto::types::Bounded;
use pygmy_ring::{Base, Checkpoint};

use super::FileRange;
use super::ledger::{ledger_name, ledger_number};
use crate::disk::record::Mark;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) at: Checkpoint,
    pub(super) state_hash: u64,
    pub(super) books: u64,
    pub(super) sessions: u64,
    pub(super) orders: u64,
    pub(super) ledger: Vec<FileRange>,
}

type End = (Epoch, u64, u128, u64);
type Counts = (u64, u64, u64, u64);
type LedgerFile = (u32, u64, u128);

impl Head {
    /// The last entry that the snapshot contains.
    pub(super) fn mark(&self) -> Mark {
        mark_of(&self.at)
    }

    pub(super) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        let base = &self.at.base;
        codec::encode_to::<End>(&(base.end.epoch, base.end.seq, base.hash, base.time_us), &mut out);
        codec::encode_to::<Counts>(&(self.state_hash, self.books, self.sessions, self.orders), &mut out);
        codec::encode_to::<Boundaries>(&Bounded::truncated(self.at.boundaries.clone()), &mut out);
        codec::encode_to(&self.at.membership, &mut out);
        out.put_u32_le(self.ledger.len() as u32);
        for file in &self.ledger {
            let number = ledger_number(&file.name).unwrap_or_default();
            codec::encode_to::<LedgerFile>(&(number, file.len, file.hash), &mut out);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let mut rest = bytes;
        let (epoch, seq, hash, time_us) = next::<End>(&mut rest)?;
        let (state_hash, books, sessions, orders) = next::<Counts>(&mut rest)?;
        let boundaries = next::<Boundaries>(&mut rest)?.into_vec();
        let membership = next::<Membership>(&mut rest)?;
        let files = next::<u32>(&mut rest)?;
        let mut ledger = Vec::new();
        for _ in 0..files {
            let (number, len, hash) = next::<LedgerFile>(&mut rest)?;
            ledger.push(FileRange { name: ledger_name(number), len, hash });
        }
        match rest.len() {
            0 => {}
            extra => return Err(BodyError::Trailing { extra }),
        }
        let base = Base { end: LogEnd { epoch, seq }, hash, time_us };
        Ok(Self { at: Checkpoint { base, boundaries, membership }, state_hash, books, sessions, orders, ledger })
    }
}

/// The entry at a checkpoint.
pub(super) fn mark_of(at: &Checkpoint) -> Mark {
    Mark { epoch: at.base.end.epoch, seq: at.base.end.seq, hash: at.base.hash }
}

/// A part of the head that can be read by itself.
trait Part: Sized {
    fn read(bytes: &[u8]) -> Result<(Self, usize), BodyError>;
}

macro_rules! parts {
    ($($part:ty),*) => {$(
        impl Part for $part {
            fn read(bytes: &[u8]) -> Result<(Self, usize), BodyError> {
                codec::decode_prefix(bytes)
            }
        }
    )*};
}

parts!(End, Counts, Boundaries, Membership, u32, LedgerFile);

fn next<T: Part>(rest: &mut &[u8]) -> Result<T, BodyError> {
    let (value, used) = T::read(rest)?;
    *rest = rest.get(used..).unwrap_or_default();
    Ok(value)
}
