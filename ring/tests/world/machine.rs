//! The smallest state machine that can tell whether anything was executed twice, out of order or differently.

use bytes::BytesMut;
use pygmy_ring::StateMachine;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Identity of an operation: client and counter, the first 16 bytes of every payload.
pub type Op = (u64, u64);

/// Writes down what it is fed.
#[derive(Debug, Default, Clone)]
pub struct Journal {
    hash: u64,
    /// What was executed, in order.
    pub effects: Vec<(u64, Op)>,
}

impl StateMachine for Journal {
    fn apply(&mut self, seq: u64, time_us: u64, command: &[u8], answer: &mut BytesMut) {
        self.effects.push((seq, op_of(command)));
        self.hash = xxh3_64_with_seed(command, self.hash ^ seq ^ time_us.rotate_left(32));
        answer.extend_from_slice(&seq.to_le_bytes());
        answer.extend_from_slice(&self.hash.to_le_bytes());
    }

    fn state_hash(&self) -> u64 {
        self.hash
    }
}

/// A payload of `len` bytes beyond the operation's identity.
pub fn payload(op: Op, len: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(16 + len);
    payload.extend_from_slice(&op.0.to_le_bytes());
    payload.extend_from_slice(&op.1.to_le_bytes());
    payload.resize(16 + len, op.1 as u8);
    payload
}

fn op_of(payload: &[u8]) -> Op {
    let word = |at: usize| payload[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    (word(0), word(8))
}

/// The body of a command entry.
pub fn body(session: u64, counter: u64, first_incomplete: u64, payload: &[u8]) -> bytes::Bytes {
    let mut body = BytesMut::with_capacity(24 + payload.len());
    for word in [session, counter, first_incomplete] {
        body.extend_from_slice(&word.to_le_bytes());
    }
    body.extend_from_slice(payload);
    body.freeze()
}
