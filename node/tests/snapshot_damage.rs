//! Whatever happens to a file of a snapshot: it is noticed, an older state is used, or none; never a wrong one.

mod snapshot_support;

use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::recover::NEVER;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::disk::vote::Vote;
use pygmy_node::snapshot::dir::{snapshot_name, snapshot_seq};
use pygmy_node::snapshot::ledger::{ledger_name, ledger_number};
use pygmy_node::snapshot::open::{OpenError, Opened, open};
use pygmy_node::snapshot::{SnapshotError, Snapshots};
use pygmy_proto::message::{Epoch, LogEnd};
use snapshot_support::*;

/// A disk with two snapshots, the log from the older one on, and a little more; and the state of it.
fn disk() -> (SimFs, Twin, [u64; 2]) {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    for round in 0..2 {
        for salt in 0..2 {
            twin.work(&mut log, round * 10 + salt);
        }
        build(&snapshots, &twin.order()).expect("a snapshot");
    }
    twin.work(&mut log, 99);
    log.close_group().expect("a good disk");
    let kept: Vec<u64> = snapshots.all().iter().map(|info| info.seq()).collect();
    log.cut_below(kept[0] + 1).expect("a good disk");
    (fs.kill(), twin, [kept[0], kept[1]])
}

/// Opens; the state that was found is the one there was.
fn check(fs: &SimFs, twin: &Twin, base: u64, what: &str) {
    let opened = open(fs.clone(), UUID, OPTIONS).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(opened.recovered.base.end.seq, base, "{what}: the base");
    let found = Twin::of(opened.recovered);
    assert_eq!((found.mark(), found.hash()), (twin.mark(), twin.hash()), "{what}");
}

/// Where a file says of which version it is.
const VERSION_AT: usize = 4;

#[test]
fn every_flipped_byte_of_the_newest_snapshot_is_noticed_and_the_older_one_used() {
    let (fs, twin, [older, newest]) = disk();
    let name = snapshot_name(newest);
    let bytes = fs.bytes(&name).expect("a snapshot");
    for at in 0..bytes.len() {
        let copy = fs.copy();
        copy.flip(&name, at as u64, 1 << (at % 8));
        check(&copy, &twin, older, &format!("byte {at} flipped"));
    }
}

#[test]
fn every_cut_or_lengthened_snapshot_is_noticed_and_the_older_one_used() {
    let (fs, twin, [older, newest]) = disk();
    let name = snapshot_name(newest);
    let mut bytes = fs.bytes(&name).expect("a snapshot");
    for len in 0..bytes.len() {
        let copy = fs.copy();
        copy.put(&name, &bytes[..len]);
        check(&copy, &twin, older, &format!("cut to {len} bytes"));
    }
    bytes.push(0);
    fs.put(&name, &bytes);
    check(&fs, &twin, older, "a byte too many");
}

#[test]
fn a_snapshot_under_another_name_is_noticed() {
    let (fs, twin, [older, newest]) = disk();
    let bytes = fs.bytes(&snapshot_name(older)).expect("a snapshot");
    fs.put(&snapshot_name(newest), &bytes);
    check(&fs, &twin, older, "the older under the newer's name");
    let snapshots = Snapshots::open(fs, OPTIONS.snapshots).expect("snapshots");
    assert_eq!(snapshots.all().iter().map(|info| info.seq()).collect::<Vec<_>>(), [older], "it is not there twice");
    assert_eq!(snapshots.damaged(), [newest]);
}

/// Changes the newest snapshot's chunks, each with its header, and makes their checksums right again.
fn forge(fs: &SimFs, name: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let bytes = fs.bytes(name).expect("a snapshot");
    let (preamble, mut rest) = bytes.split_at(16);
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let (chunk, more) = rest.split_at(16 + len);
        chunks.push(chunk.to_vec());
        rest = more;
    }
    change(&mut chunks);
    for chunk in &mut chunks {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&chunk[..12]), &chunk[16..]);
        chunk[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    fs.put(name, &[preamble, &chunks.concat()].concat());
}

#[test]
fn a_snapshot_whose_checksums_are_right_and_whose_state_is_not_is_noticed() {
    let (fs, twin, [older, newest]) = disk();
    let name = snapshot_name(newest);
    // The chunks are the head, one part, the end. Byte 14 of the part is in the first book's stock.
    let stock = fs.copy();
    forge(&stock, &name, |chunks| chunks[1][16 + 14] ^= 1);
    check(&stock, &twin, older, "another stock");
    let doubled = fs.copy();
    forge(&doubled, &name, |chunks| chunks.insert(1, chunks[1].clone()));
    check(&doubled, &twin, older, "a chunk twice");
    misplaced(&doubled, newest);
    let swapped = fs.copy();
    forge(&swapped, &name, |chunks| {
        // Two parts of the stream, the second before the first.
        let body = chunks[1].split_off(16);
        let (first, second) = body.split_at(body.len() / 2);
        let part = |number: u32, body: &[u8]| {
            [&(body.len() as u32).to_le_bytes()[..], &number.to_le_bytes(), &[2, 0, 0, 0, 0, 0, 0, 0], body].concat()
        };
        let (one, two) = (part(1, first), part(2, second));
        let end = part(3, &3_u64.to_le_bytes());
        chunks.splice(1.., [two, one, end]);
        chunks[3][8] = 3;
    });
    check(&swapped, &twin, older, "two chunks changed places");
    misplaced(&swapped, newest);
    // The same, in order, is as good as the one there was.
    let split = fs.copy();
    forge(&split, &name, |_| {});
    check(&split, &twin, newest, "nothing was changed");
}

/// It is told where the chunks are wrong, before what they hold is looked at.
fn misplaced(fs: &SimFs, seq: u64) {
    let error = Snapshots::verify(fs.clone(), seq).expect_err("a chunk is in another's place");
    assert!(error.to_string().contains("stands in the place of chunk"), "{error}");
}

#[test]
fn parts_of_a_snapshot_that_cannot_be_read_are_as_good_as_damaged() {
    let (fs, twin, [older, newest]) = disk();
    fs.fail_read(&snapshot_name(newest), 600);
    check(&fs, &twin, older, "a sector cannot be read");
}

#[test]
fn a_damaged_ledger_is_never_served() {
    let (fs, twin, [older, newest]) = disk();
    let snapshots = Snapshots::open(fs.clone(), OPTIONS.snapshots).expect("snapshots");
    let named = |seq: u64| {
        let all = snapshots.all();
        let info = all.iter().find(|info| info.seq() == seq).expect("kept").clone();
        info.files.into_iter().filter(|file| ledger_number(&file.name).is_some())
    };
    let mut outcomes = [0, 0];
    for file in named(newest) {
        // The older snapshot needs a part of it, all of it or nothing.
        let shared = named(older).find(|other| other.name == file.name).map_or(0, |other| other.len);
        for at in 0..file.len {
            let copy = fs.copy();
            copy.flip(&file.name, at, 1 << (at % 8));
            if at >= shared {
                outcomes[0] += 1;
                check(&copy, &twin, older, &format!("byte {at} of {} flipped", file.name));
            } else {
                outcomes[1] += 1;
                check_empty(&copy, &twin, &format!("byte {at} of {} flipped", file.name));
            }
        }
        for len in (0..file.len).step_by(7) {
            let copy = fs.copy();
            copy.put(&file.name, &fs.bytes(&file.name).expect("a ledger")[..len as usize]);
            if len >= shared {
                check(&copy, &twin, older, &format!("{} cut to {len}", file.name));
            } else {
                check_empty(&copy, &twin, &format!("{} cut to {len}", file.name));
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

/// No state is left, and the vote is withheld until all that there was is back.
fn check_empty(fs: &SimFs, twin: &Twin, what: &str) {
    let opened = open(fs.clone(), UUID, OPTIONS).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = opened.recovered;
    assert_eq!((found.base.end.seq, found.batches.len()), (0, 0), "{what}: it begins empty");
    let until = LogEnd { epoch: EPOCH, seq: twin.seq() };
    assert_eq!(found.damaged, Some(until), "{what}: what was acknowledged is owed");
}

#[test]
fn without_a_readable_snapshot_a_replica_begins_empty_and_owes_what_it_had() {
    let (fs, twin, kept) = disk();
    for seq in kept {
        fs.flip(&snapshot_name(seq), 40, 1);
    }
    check_empty(&fs.kill(), &twin, "both damaged");
    // It is remembered over a second start, though the log has a new beginning by then.
    check_empty(&fs.kill(), &twin, "both damaged, and started again");
}

#[test]
fn a_snapshot_that_is_all_there_was_is_owed_by_its_name() {
    for voted in [true, false] {
        let (fs, _, [_, newest]) = disk();
        if voted {
            let vote = Vote { promised: EPOCH, cut: Epoch::default() };
            opened(&fs).votes.write(vote).expect("a good disk");
        }
        for name in fs.list().expect("a good disk") {
            if name.starts_with("log-") || snapshot_seq(&name).is_some_and(|seq| seq != newest) {
                fs.remove(&name).expect("a good disk");
            }
        }
        fs.flip(&snapshot_name(newest), 40, 1);
        let opened = opened(&fs.kill());
        assert_eq!(opened.recovered.base.end.seq, 0);
        let owed = if voted { LogEnd { epoch: EPOCH, seq: newest } } else { NEVER };
        assert_eq!(opened.recovered.damaged, Some(owed), "without a promise nothing tells the epoch");
    }
}

/// The promise may be of a later epoch than all that was lost, and the snapshot's end before the log's.
#[test]
fn a_lost_snapshot_does_not_hide_what_the_log_lost_behind_it() {
    let (fs, twin, kept) = disk();
    let vote = Vote { promised: Epoch { counter: EPOCH.counter + 1, ..EPOCH }, cut: Epoch::default() };
    opened(&fs).votes.write(vote).expect("a good disk");
    for seq in kept {
        fs.flip(&snapshot_name(seq), 40, 1);
    }
    check_empty(&fs.kill(), &twin, "both damaged, and a later epoch promised");
}

#[test]
fn damaged_snapshots_go_when_a_new_one_has_come() {
    let (fs, mut twin, [older, newest]) = disk();
    fs.flip(&snapshot_name(newest), 40, 1);
    let Opened { mut log, snapshots, .. } = opened(&fs);
    assert_eq!(snapshots.damaged(), [newest]);
    twin.work(&mut log, 5);
    let taken = build(&snapshots, &twin.order()).expect("a snapshot over the older one");
    assert_eq!(taken.cut_below, Some(older + 1));
    let names = fs.list().expect("a good disk");
    let mut kept: Vec<u64> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
    kept.sort_unstable();
    assert_eq!(kept, [older, twin.seq()]);
    drop((log, snapshots));
    check(&fs.kill(), &twin, twin.seq(), "the new one");
}

#[test]
fn a_damaged_snapshot_is_replaced_by_a_good_one_of_the_same_entry() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    twin.work(&mut log, 1);
    build(&snapshots, &twin.order()).expect("a snapshot");
    drop((log, snapshots));
    fs.flip(&snapshot_name(twin.seq()), 40, 1);
    let Opened { log, snapshots, .. } = opened(&fs.kill());
    assert_eq!((snapshots.newest(), snapshots.damaged()), (None, vec![twin.seq()]));
    build(&snapshots, &twin.order()).expect("a snapshot");
    drop((log, snapshots));
    check(&fs.kill(), &twin, twin.seq(), "taken again");
}

#[test]
fn a_later_version_is_refused_and_left_alone() {
    let (fs, _, [_, newest]) = disk();
    for name in [snapshot_name(newest), ledger_name(1)] {
        let copy = fs.copy();
        let mut bytes = copy.bytes(&name).expect("a file");
        bytes[VERSION_AT] = 9;
        // Another version says so in a start that is whole; a flipped byte alone is damage.
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        if ledger_number(&name).is_some() {
            // What a later version writes need not be what this one's snapshots name.
            copy.put(&name, &bytes);
            check_damaged_everywhere(&copy);
            continue;
        }
        copy.put(&name, &bytes);
        let before = copy.list().expect("a good disk");
        match open(copy.clone(), UUID, OPTIONS) {
            Err(OpenError::Snapshot(SnapshotError::File(error))) => {
                assert!(error.to_string().contains("version 9"), "{error}");
            }
            Err(error) => panic!("another error: {error}"),
            Ok(_) => panic!("it was opened"),
        }
        assert_eq!(copy.list().expect("a good disk"), before, "nothing was removed");
    }
}

fn check_damaged_everywhere(fs: &SimFs) {
    let opened = opened(fs);
    assert_eq!(opened.recovered.base.end.seq, 0);
    assert!(opened.recovered.damaged.is_some());
}
