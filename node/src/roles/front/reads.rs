//! What a front adds to the reads that it passes on: the position that their answers must not lie before.

use bytes::Bytes;
use pygmy_proto::header::FLAG_TRACE;
use pygmy_proto::message::Trace;
use pygmy_proto::{Kind, codec};

use super::Front;

impl Front {
    /// The body to pass on: a read's floor (its first field) is raised to what this front has acknowledged to anyone.
    pub(super) fn raise_floor(&self, kind: Kind, body: &[u8]) -> Bytes {
        let is_read = !matches!(kind, Kind::Write | Kind::OpenSession);
        match body.split_first_chunk::<8>() {
            Some((floor, rest)) if is_read && u64::from_le_bytes(*floor) < self.acknowledged => {
                let mut raised = Vec::with_capacity(body.len());
                raised.extend_from_slice(&self.acknowledged.to_le_bytes());
                raised.extend_from_slice(rest);
                raised.into()
            }
            _ => Bytes::copy_from_slice(body),
        }
    }

    /// The position of a write is the first field of its answer.
    pub(super) fn note_acknowledged(&mut self, flags: u8, body: &[u8]) {
        let skip = if flags & FLAG_TRACE == 0 {
            0
        } else {
            codec::decode_prefix::<Trace>(body).map_or(body.len(), |(_, used)| used)
        };
        if let Some((seq, _)) = body.get(skip..).and_then(<[u8]>::split_first_chunk::<8>) {
            self.acknowledged = self.acknowledged.max(u64::from_le_bytes(*seq));
        }
    }
}
