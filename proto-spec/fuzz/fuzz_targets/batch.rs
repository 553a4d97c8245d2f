//! Batches of the log: what is taken is what the builder makes of what is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pygmy_proto::batch::{
    BATCH_HEADER_LEN, Batch, BatchBuilder, BatchError, ENTRY_HEADER_LEN, EntryKind, Stamp, entry_hash,
};
use pygmy_proto::message::Epoch;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    let parsed = match Batch::parse(bytes.clone().into()) {
        // The fuzzer cannot guess a hash; with the right one it gets further.
        Err(BatchError::Hash) => {
            mend(&mut bytes);
            Batch::parse(bytes.into())
        }
        other => other,
    };
    let Ok(batch) = parsed else { return };
    let header = batch.header();
    let mut builder =
        BatchBuilder::new(header.epoch, header.origin, header.first_seq, header.time_us, header.hash_before);
    for entry in batch.entries() {
        assert_eq!(builder.push(entry.kind, entry.body), entry.seq);
    }
    assert_eq!(builder.finish().as_ref(), Some(&batch));
    assert_eq!(batch.entries().last().map(|entry| entry.seq), Some(batch.last_seq()));
});

/// Writes the hash of the entries into the header of a batch that is otherwise whole.
fn mend(bytes: &mut [u8]) {
    fn number(bytes: &[u8], at: usize, len: usize) -> u128 {
        bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
    }
    let epoch = Epoch { counter: number(bytes, 0, 8) as u64, node: number(bytes, 8, 2) as u16 };
    let stamp = Stamp { epoch, origin: number(bytes, 10, 2) as u16, time_us: number(bytes, 24, 8) as u64 };
    let mut hash = number(bytes, 32, 16);
    let mut at = BATCH_HEADER_LEN;
    let mut seq = number(bytes, 16, 8) as u64;
    while at < bytes.len() {
        let kind = EntryKind::from_u8(bytes[at]).expect("the parser came as far as the hash");
        let start = at + ENTRY_HEADER_LEN;
        let end = start + number(bytes, at + 1, 4) as usize;
        hash = entry_hash(hash, stamp, seq, kind, &bytes[start..end]);
        (at, seq) = (end, seq + 1);
    }
    bytes[48..64].copy_from_slice(&hash.to_le_bytes());
}
