//! A snapshot of another replica is received and installed while the power may fail at any point: what is found
//! afterwards is the state before or one behind the snapshot, whole, and never less than what was reported durable.

mod snapshot_support;

use std::collections::BTreeMap;

use pygmy_node::disk::log::LogFiles;
use pygmy_node::disk::queue::{Command, Event, WriteQueue};
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::snapshot::open::Opened;
use pygmy_node::snapshot::transfer::{Done, Failure, Job, Receiving, read};
use pygmy_node::snapshot::{SnapshotInfo, Snapshots};
use pygmy_proto::batch::{Batch, BatchBuilder, EntryKind};
use pygmy_proto::message::{Epoch, SnapshotFetch, SnapshotPart};
use pygmy_ring::StateMachine;
use snapshot_support::*;

/// The epoch in which the receiver's log went its own way.
const OLD: Epoch = Epoch { counter: 2, node: 4 };
/// Parts of a transfer, small enough for several of each file.
const PART: u32 = 700;

/// The replica that gives.
struct Donor {
    snapshots: Snapshots<SimFs>,
    info: SnapshotInfo,
    /// Its whole log, and what the state hashes to at the end of each batch.
    batches: Vec<Batch>,
    hashes: BTreeMap<u64, (u128, u64)>,
}

fn donor() -> Donor {
    let fs = SimFs::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    let mut twin = Twin::new();
    let mut hashes = BTreeMap::from([(0, (0, twin.hash()))]);
    for salt in 0..8 {
        twin.work(&mut log, salt);
    }
    let taken = build(&snapshots, &twin.order()).expect("a snapshot");
    for salt in 8..11 {
        twin.work(&mut log, salt);
    }
    let batches = log.reader().read(1, u64::MAX, usize::MAX).expect("a good disk");
    let mut again = Twin::new();
    for batch in &batches {
        again.apply(batch);
        hashes.insert(again.seq(), (again.mark().hash, again.hash()));
    }
    Donor { snapshots, info: taken.info, batches, hashes }
}

impl Donor {
    fn part(&self, fetch: SnapshotFetch) -> SnapshotPart {
        match read(&self.snapshots, 1, &fetch) {
            Done::Read { answer, .. } => answer.expect("it can be read"),
            other => panic!("{other:?}"),
        }
    }

    fn batches(&self, from: u64, upto: u64) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(move |batch| batch.header().first_seq >= from && batch.last_seq() <= upto)
    }

    /// Whether `mark` is on its history, and the state hash there.
    fn hash_at(&self, mark: Mark) -> Option<u64> {
        self.hashes.get(&mark.seq).filter(|(hash, _)| *hash == mark.hash).map(|(_, state)| *state)
    }
}

/// How far the receiver was told that it had got.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    installed: bool,
    durable: u64,
}

/// Fetches the snapshot, part by part, into `receiving`. False when the power fails.
fn transfer(donor: &Donor, receiving: &mut Receiving<SimFs>) -> bool {
    let begun = receiving.run(Job::Begin { number: 1, info: donor.info.clone() });
    let Some(Done::Begun { wanted, .. }) = begun else { return false };
    for (file, mut offset) in wanted {
        while offset < donor.info.files[file].len {
            let part = donor.part(SnapshotFetch { seq: donor.info.seq(), file: file as u32, offset, len: PART });
            let bytes = part.bytes.into_bytes();
            let len = bytes.len() as u64;
            let written = receiving.run(Job::Write { number: 1, file: file as u32, offset, bytes });
            if !matches!(written, Some(Done::Written { .. })) {
                return false;
            }
            offset += len;
        }
    }
    true
}

/// Does what a node does: receives, begins the log anew, appends what follows.
fn receive(donor: &Donor, opened: Opened<SimFs>) -> Progress {
    let Opened { log, votes, snapshots, .. } = opened;
    let mut progress = Progress::default();
    let mut receiving = Receiving::new(snapshots);
    if !transfer(donor, &mut receiving) {
        return progress;
    }
    let Some(Done::Loaded { loaded, .. }) = receiving.run(Job::Finish { number: 1 }) else { return progress };
    assert_eq!(
        Some(loaded.store.state_hash().wrapping_add(loaded.sessions.state_hash())),
        donor.hash_at(donor.info.mark)
    );
    progress.installed = true;
    let mut queue = WriteQueue::new(log, votes);
    queue.take([Command::RestartAt(EPOCH, donor.info.mark)]);
    queue.take(donor.batches(donor.info.seq() + 1, u64::MAX).map(|batch| Command::Batch(EPOCH, batch.clone())));
    while !queue.is_empty() {
        let told = queue.work(|event| {
            if let Event::Durable { seq, .. } = event {
                progress.durable = seq;
            }
        });
        if told.is_err() {
            return progress;
        }
    }
    progress
}

/// Opens what is left and compares it with the donor's history.
fn check(donor: &Donor, fs: &SimFs, before: Mark, progress: Progress) {
    let Opened { recovered, .. } = opened(fs);
    assert_eq!(recovered.damaged, None, "nothing that was acknowledged is missing: {progress:?}");
    let twin = Twin::of(recovered);
    let mark = twin.mark();
    if mark == before && !progress.installed {
        return;
    }
    assert!(mark.seq >= donor.info.seq(), "{mark:?} is neither what was there before nor behind the snapshot");
    assert!(mark.seq >= progress.durable, "{mark:?} is less than what was reported: {progress:?}");
    assert_eq!(Some(twin.hash()), donor.hash_at(mark), "at {mark:?}");
}

/// Writes what the receiver has before.
fn prepare(fill: impl FnOnce(&mut LogFiles<SimFs>)) -> (SimFs, Mark) {
    let fs = SimFs::new();
    let Opened { mut log, .. } = opened(&fs);
    fill(&mut log);
    log.close_group().expect("a good disk");
    let end = log.end();
    drop(log);
    (fs, end)
}

/// Entries of an epoch that lost, behind those that all have.
fn own_way(log: &mut LogFiles<SimFs>, donor: &Donor, common: u64, upto: u64) {
    for batch in donor.batches(1, common) {
        log.write(&[(OLD, batch.clone())]).expect("room");
    }
    while log.end().seq < upto {
        let Mark { seq, hash, .. } = log.end();
        let mut builder = BatchBuilder::new(OLD, OLD.node, seq + 1, 10_000 + seq, hash);
        builder.push(EntryKind::Register, b"");
        builder.push(EntryKind::Register, b"");
        log.write(&[(OLD, builder.finish().expect("entries"))]).expect("room");
    }
    log.sync().expect("a good disk");
}

/// The power fails at every point in turn.
fn everywhere(donor: &Donor, prepared: &SimFs, before: Mark) {
    for point in 1.. {
        let fs = prepared.copy();
        let files = opened(&fs);
        fs.power_off_after(point);
        let progress = receive(donor, files);
        for seed in 0..3 {
            check(donor, &fs.copy_after_crash(seed * 1_000 + point), before, progress);
        }
        check(donor, &fs.crash(point), before, progress);
        let last = donor.batches.last().expect("it has a log").last_seq();
        if progress == (Progress { installed: true, durable: last }) {
            assert!(point > 20, "there is something to fail at");
            return;
        }
    }
}

#[test]
fn a_fresh_replica_is_what_it_was_or_what_it_got() {
    let donor = donor();
    let (fs, before) = prepare(|_| {});
    everywhere(&donor, &fs, before);
}

#[test]
fn so_is_one_whose_log_is_behind() {
    let donor = donor();
    let half = donor.info.seq() / 2;
    let (fs, before) = prepare(|log| own_way(log, &donor, half, 0));
    everywhere(&donor, &fs, before);
}

/// What it has beyond the snapshot's position lost, and is not on top of it after a restart.
#[test]
fn so_is_one_whose_log_went_its_own_way_even_farther() {
    let donor = donor();
    let (common, far) = (donor.info.seq() / 2, donor.info.seq() + 40);
    let (fs, before) = prepare(|log| own_way(log, &donor, common, far));
    everywhere(&donor, &fs, before);
}

#[test]
fn a_snapshot_that_came_spoilt_is_refused_and_leaves_nothing() {
    let donor = donor();
    let files = donor.info.files.len();
    assert!(files > 2, "the ledger has several files");
    for spoilt in 0..files {
        let (fs, before) = prepare(|_| {});
        let Opened { snapshots, .. } = opened(&fs);
        let mut receiving = Receiving::new(snapshots.clone());
        assert!(transfer(&donor, &mut receiving));
        let first = donor.part(SnapshotFetch { seq: donor.info.seq(), file: spoilt as u32, offset: 0, len: PART });
        let mut bytes = first.bytes.into_bytes().to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        receiving.run(Job::Write { number: 1, file: spoilt as u32, offset: 0, bytes: bytes.into() });
        let finished = receiving.run(Job::Finish { number: 1 });
        assert!(matches!(finished, Some(Done::Failed { failure: Failure::Unusable(_), .. })), "{finished:?}");
        assert_eq!(snapshots.newest(), None);
        check(&donor, &fs, before, Progress::default());
    }
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let donor = donor();
    let (fs, before) = prepare(|_| {});
    let Opened { snapshots, .. } = opened(&fs);
    let mut receiving = Receiving::new(snapshots.clone());
    assert!(matches!(receiving.run(Job::Begin { number: 1, info: donor.info.clone() }), Some(Done::Begun { .. })));
    fs.set_budget(Some(0));
    let bytes = donor.part(SnapshotFetch { seq: donor.info.seq(), file: 0, offset: 0, len: PART }).bytes.into_bytes();
    let written = receiving.run(Job::Write { number: 1, file: 0, offset: 0, bytes });
    assert!(matches!(written, Some(Done::Failed { failure: Failure::Full, .. })), "{written:?}");
    fs.set_budget(None);
    assert!(receiving.run(Job::Finish { number: 1 }).is_none(), "it is over");
    check(&donor, &fs, before, Progress::default());
    // And the next one comes.
    let mut receiving = Receiving::new(snapshots);
    assert!(transfer(&donor, &mut receiving));
    assert!(matches!(receiving.run(Job::Finish { number: 1 }), Some(Done::Loaded { .. })));
}

/// After a failed sync nobody knows what the disk has, as with the log.
#[test]
fn what_cannot_be_made_durable_ends_the_process() {
    let donor = donor();
    let finish = |syncs: u64| {
        let (fs, _) = prepare(|_| {});
        let Opened { snapshots, .. } = opened(&fs);
        let mut receiving = Receiving::new(snapshots);
        assert!(transfer(&donor, &mut receiving));
        fs.fail_sync_after(syncs);
        receiving.run(Job::Finish { number: 1 })
    };
    // One for each file, and two of the directory.
    let syncs = donor.info.files.len() as u64 + 2;
    for failing in 0..syncs {
        let finished = finish(failing);
        let fatal = matches!(finished, Some(Done::Failed { failure: Failure::Fatal(_), .. }));
        assert!(fatal, "sync {failing} of {syncs}: {finished:?}");
    }
    assert!(matches!(finish(syncs), Some(Done::Loaded { .. })), "there are no more");
}

#[test]
fn so_does_a_part_that_cannot_be_written() {
    let donor = donor();
    let (fs, _) = prepare(|_| {});
    let Opened { snapshots, .. } = opened(&fs);
    let mut receiving = Receiving::new(snapshots);
    assert!(matches!(receiving.run(Job::Begin { number: 1, info: donor.info.clone() }), Some(Done::Begun { .. })));
    let bytes = donor.part(SnapshotFetch { seq: donor.info.seq(), file: 0, offset: 0, len: PART }).bytes.into_bytes();
    fs.fail_write_after(0);
    let written = receiving.run(Job::Write { number: 1, file: 0, offset: 0, bytes });
    assert!(matches!(written, Some(Done::Failed { failure: Failure::Fatal(_), .. })), "{written:?}");
}
