//! What is a batch of the log and what is not.

mod common;

use common::samples;
use pygmy_proto::batch::{
    BATCH_HEADER_LEN, Batch, BatchBuilder, BatchError, BatchHeader, ENTRY_HEADER_LEN, EntryKind, Stamp, entry_hash,
};
use pygmy_proto::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, CLIENT_BODY_MAX};
use pygmy_proto::message::Epoch;

const EPOCH: Epoch = Epoch { counter: 3, node: 2 };

fn builder() -> BatchBuilder {
    BatchBuilder::new(EPOCH, 5, 100, 1_000, 42)
}

/// The sample batch, changed by `harm`, as the parser sees it.
fn parse_harmed(harm: impl FnOnce(&mut Vec<u8>)) -> Result<Batch, BatchError> {
    let mut bytes = samples::batch().bytes().to_vec();
    harm(&mut bytes);
    Batch::parse(bytes.into())
}

#[test]
fn each_refusal_has_its_reason() {
    let first = BATCH_HEADER_LEN;
    let second = first + ENTRY_HEADER_LEN;
    let set = |at: usize, value: &'static [u8]| move |b: &mut Vec<u8>| b[at..at + value.len()].copy_from_slice(value);
    let refusal = |harm: &dyn Fn(&mut Vec<u8>)| parse_harmed(harm).expect_err("a harmed batch");
    assert!(parse_harmed(|_| ()).is_ok());
    assert_eq!(refusal(&|b| b.truncate(BATCH_HEADER_LEN - 1)), BatchError::Short);
    assert_eq!(refusal(&|b| b.truncate(BATCH_HEADER_LEN + 2)), BatchError::Short);
    assert_eq!(refusal(&|b| b.truncate(b.len() - 1)), BatchError::Short);
    assert_eq!(refusal(&|b| b.push(0)), BatchError::Trailing);
    assert_eq!(refusal(&set(12, &[0, 0, 0, 0])), BatchError::Count(0));
    assert_eq!(refusal(&set(12, &[1, 0, 0, 0])), BatchError::Trailing);
    assert_eq!(refusal(&set(12, &[3, 0, 0, 0])), BatchError::Short);
    assert_eq!(refusal(&set(12, &[1, 32, 0, 0])), BatchError::Count(BATCH_ENTRIES_MAX as u32 + 1));
    assert_eq!(refusal(&set(16, &[0; 8])), BatchError::Seq(0));
    assert_eq!(refusal(&set(16, &[255; 8])), BatchError::Seq(u64::MAX));
    assert_eq!(refusal(&set(71, &[1])), BatchError::Reserved(1 << 56));
    for unknown in [0, 5, 255] {
        assert_eq!(refusal(&|b| b[first] = unknown), BatchError::Kind(unknown));
    }
    let long = CLIENT_BODY_MAX as u32 + 1;
    assert_eq!(
        refusal(&|b| b[second + 1..second + 5].copy_from_slice(&long.to_le_bytes())),
        BatchError::EntryTooLong(long)
    );
}

/// The chain covers epoch, origin, time, position, kinds and bodies, and what came before.
#[test]
fn the_hash_covers_the_entries_and_their_place() {
    let len = samples::batch().bytes().len();
    let covered = [0, 8, 10, 16, 24, 32, 48, BATCH_HEADER_LEN, len - 1];
    for at in covered {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 3;
        assert_eq!(parse_harmed(flip), Err(BatchError::Hash), "byte {at}");
    }
}

#[test]
fn short_and_long_bodies_are_hashed_alike() {
    // The head and the body in one run and in two must give the same hash on both sides of the switch between them.
    for len in [0, 1, 207, 208, 209, 1_000] {
        let body = vec![7; len];
        let mut all = Vec::new();
        all.extend_from_slice(&42_u128.to_le_bytes());
        all.extend_from_slice(&EPOCH.counter.to_le_bytes());
        all.extend_from_slice(&EPOCH.node.to_le_bytes());
        all.extend_from_slice(&5_u16.to_le_bytes());
        all.extend_from_slice(&[EntryKind::Command as u8, 0, 0, 0]);
        all.extend_from_slice(&77_u64.to_le_bytes());
        all.extend_from_slice(&100_u64.to_le_bytes());
        all.extend_from_slice(&body);
        let expected = xxhash_rust::xxh3::xxh3_128(&all);
        let stamp = Stamp { epoch: EPOCH, origin: 5, time_us: 77 };
        assert_eq!(entry_hash(42, stamp, 100, EntryKind::Command, &body), expected, "{len} bytes");
    }
}

#[test]
fn a_batch_is_full_at_its_count() {
    let mut full = builder();
    for _ in 0..BATCH_ENTRIES_MAX {
        assert!(full.has_room(0));
        full.push(EntryKind::Register, &[]);
    }
    assert!(!full.has_room(0));
    let batch = full.finish().expect("it has entries");
    assert_eq!(Batch::parse(batch.bytes().clone()).as_ref(), Ok(&batch));
    assert_eq!(batch.last_seq(), 100 + BATCH_ENTRIES_MAX as u64 - 1);
}

#[test]
fn a_batch_is_full_at_its_bytes() {
    let body = vec![1; CLIENT_BODY_MAX];
    let mut full = builder();
    assert!(full.has_room(BATCH_BYTES_MAX + 1), "the first entry always belongs in");
    for _ in 0..3 {
        full.push(EntryKind::Command, &body);
    }
    let left = BATCH_BYTES_MAX - 3 * (CLIENT_BODY_MAX + ENTRY_HEADER_LEN) - ENTRY_HEADER_LEN;
    assert!(full.has_room(left) && !full.has_room(left + 1));
    full.push(EntryKind::Command, &body[..left]);
    let batch = full.finish().expect("it has entries");
    assert_eq!(batch.bytes().len(), BATCH_HEADER_LEN + BATCH_BYTES_MAX);
    assert_eq!(Batch::parse(batch.bytes().clone()), Ok(batch));
}

#[test]
fn nothing_is_no_batch() {
    assert_eq!(builder().finish(), None);
    let empty = BatchHeader { count: 0, first_seq: 0, ..*samples::batch().header() };
    assert_eq!(empty.last_seq(), 0);
}
