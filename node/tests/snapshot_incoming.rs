//! A snapshot goes from one replica to another, part by part, and nothing that is not whole is ever used.

mod snapshot_support;

use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::snapshot::dir::{is_temporary, snapshot_name};
use pygmy_node::snapshot::open::Opened;
use pygmy_node::snapshot::{FileRange, Incoming, SnapshotError, SnapshotInfo, Snapshots};
use snapshot_support::*;

/// A replica with a snapshot after so many rounds of work.
fn replica(fs: &SimFs, rounds: u64) -> (Twin, Snapshots<SimFs>) {
    let Opened { mut log, snapshots, .. } = opened(fs);
    let mut twin = Twin::new();
    for salt in 0..rounds {
        twin.work(&mut log, salt);
    }
    build(&snapshots, &twin.order()).expect("a snapshot");
    (twin, snapshots)
}

fn empty(fs: &SimFs) -> Snapshots<SimFs> {
    Snapshots::open(fs.clone(), OPTIONS.snapshots).expect("a good disk")
}

/// Sends what is wanted in parts of `step` bytes. How many bytes were sent.
fn send(from: &Snapshots<SimFs>, incoming: &mut Incoming<SimFs>, step: usize) -> u64 {
    let mut sent = 0;
    while let Some(&(index, offset)) = incoming.wanted().first() {
        let file = incoming.info().files[index].clone();
        let len = step.min((file.len - offset) as usize);
        let bytes = from.read(&file.name, offset, len).expect("a part");
        incoming.write(index, offset, &bytes).expect("room");
        sent += len as u64;
    }
    sent
}

fn total(info: &SnapshotInfo) -> u64 {
    info.files.iter().map(|file| file.len).sum()
}

#[test]
fn what_arrives_is_what_was_sent_and_is_there_after_a_crash() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (twin, from) = replica(&theirs, 20);
    let to = empty(&ours);
    let info = from.newest().expect("a snapshot");
    let mut incoming = to.begin_incoming(&info).expect("room");
    assert_eq!(send(&from, &mut incoming, 300), total(&info));
    assert_eq!(to.newest(), None, "it is none before it is finished");
    let loaded = incoming.finish().expect("whole");
    assert_eq!(loaded.checkpoint, twin.order().at);
    assert_eq!(loaded.store.ledger().len(), twin.state.machine().ledger().len());
    assert_eq!(to.newest().as_ref(), Some(&info));
    let opened = opened(&ours.crash(1));
    assert_eq!((opened.recovered.base, opened.recovered.damaged), (twin.base, None));
    assert_eq!(Twin::of(opened.recovered).hash(), twin.hash());
}

#[test]
fn a_replica_that_has_the_older_orders_needs_only_the_newer() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, to) = replica(&ours, 20);
    let (twin, from) = replica(&theirs, 30);
    let info = from.newest().expect("a snapshot");
    let mut incoming = to.begin_incoming(&info).expect("room");
    let sent = send(&from, &mut incoming, 1_000);
    let known: u64 = to.newest().expect("a snapshot").files[1..].iter().rev().skip(1).map(|file| file.len).sum();
    assert!(known > 1_000, "the ledger has several files");
    assert_eq!(sent, total(&info) - known, "files that were full already were sent");
    incoming.finish().expect("whole");
    assert_eq!(to.all().len(), 2);
    // The older one is whole still, though the last file of its ledger was replaced by a longer one.
    to.load(to.all()[0].seq()).expect("the older one");
    assert_eq!(to.load(twin.seq()).expect("the newer one").info, info);
}

#[test]
fn parts_may_come_twice_and_out_of_order_and_the_reading_goes_on_where_it_got_to() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, from) = replica(&theirs, 12);
    let to = empty(&ours);
    let info = from.newest().expect("a snapshot");
    let mut incoming = to.begin_incoming(&info).expect("room");
    let part = |offset, len| from.read(&info.files[0].name, offset, len).expect("a part");
    incoming.write(0, 100, &part(100, 50)).expect("room");
    assert_eq!(incoming.wanted()[0], (0, 0), "what comes before is not there");
    incoming.write(0, 0, &part(0, 80)).expect("room");
    incoming.write(0, 40, &part(40, 70)).expect("room");
    incoming.write(0, 0, &part(0, 80)).expect("room");
    assert_eq!(incoming.wanted()[0], (0, 110));
    for (index, offset) in [(0, info.files[0].len - 1), (0, u64::MAX), (info.files.len(), 0)] {
        assert!(incoming.write(index, offset, &[0; 2]).is_err(), "file {index} has nothing at {offset}");
    }
    send(&from, &mut incoming, 64);
    incoming.finish().expect("whole");
}

#[test]
fn what_was_left_of_one_that_was_never_whole_is_removed() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, from) = replica(&theirs, 12);
    let info = from.newest().expect("a snapshot");
    let temporary = |fs: &SimFs| fs.list().expect("a good disk").into_iter().filter(|name| is_temporary(name)).count();
    drop(empty(&ours).begin_incoming(&info).expect("room"));
    assert_eq!(temporary(&ours), info.files.len());
    let fs = ours.kill();
    let to = empty(&fs);
    assert_eq!(temporary(&fs), 0, "by an opening");
    drop(to.begin_incoming(&info).expect("room"));
    let mut shorter = info.clone();
    shorter.files.truncate(1);
    drop(to.begin_incoming(&shorter).expect("room"));
    assert_eq!(temporary(&fs), 1, "and by the next one that comes");
}

#[test]
fn what_is_not_whole_or_not_right_changes_nothing() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, from) = replica(&theirs, 12);
    let (own, to) = replica(&ours, 4);
    let info = from.newest().expect("a snapshot");
    let files = ours.list().expect("a good disk");
    // Not all has come.
    let incoming = to.begin_incoming(&info).expect("room");
    assert!(matches!(incoming.finish(), Err(SnapshotError::Unusable(_))));
    assert_eq!(ours.list().expect("a good disk"), files);
    // A byte is another one, in any of the files that had to be sent.
    let wanted = to.begin_incoming(&info).expect("room").wanted();
    assert!(wanted.len() > 2, "the ledger has several files");
    for (index, _) in wanted {
        let mut incoming = to.begin_incoming(&info).expect("room");
        send(&from, &mut incoming, 1 << 20);
        let at = info.files[index].len - 3;
        let byte = from.read(&info.files[index].name, at, 1).expect("a byte")[0];
        incoming.write(index, at, &[byte ^ 4]).expect("room");
        assert!(incoming.finish().is_err(), "file {index} was damaged on the way");
        assert_eq!(ours.list().expect("a good disk"), files, "file {index} left something");
        assert_eq!(to.newest().map(|info| info.seq()), Some(own.seq()));
    }
}

#[test]
fn an_older_one_is_not_installed() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, from) = replica(&theirs, 4);
    let (own, to) = replica(&ours, 12);
    let mut incoming = to.begin_incoming(&from.newest().expect("a snapshot")).expect("room");
    send(&from, &mut incoming, 1 << 20);
    assert!(matches!(incoming.finish(), Err(SnapshotError::Superseded(seq)) if seq == own.seq()));
    to.load(own.seq()).expect("its own is as it was");
}

#[test]
fn one_that_is_not_what_was_announced_is_not_installed() {
    let (theirs, ours) = (SimFs::new(), SimFs::new());
    let (_, from) = replica(&theirs, 4);
    let to = empty(&ours);
    let good = from.newest().expect("a snapshot");
    let mut announced = good.clone();
    announced.mark.hash ^= 1;
    let mut incoming = to.begin_incoming(&announced).expect("room");
    send(&from, &mut incoming, 1 << 20);
    assert!(matches!(incoming.finish(), Err(SnapshotError::Unusable(_))));
    assert_eq!(to.newest(), None);
}

#[test]
fn announcements_that_name_other_files_are_refused() {
    let fs = SimFs::new();
    let (_, to) = replica(&fs, 4);
    let good = to.newest().expect("a snapshot");
    let file = |name: &str| FileRange { name: name.to_owned(), len: 10, hash: 0 };
    let mut infos = vec![SnapshotInfo { files: Vec::new(), ..good.clone() }];
    for name in ["../vote", "vote", "log-00000001", "ledger-00000002", "ledger-1", "snapshot-0000000000000001"] {
        infos.push(SnapshotInfo { files: vec![file(name)], ..good.clone() });
        infos.push(SnapshotInfo { files: vec![good.files[0].clone(), file(name)], ..good.clone() });
    }
    for info in infos {
        assert!(matches!(to.begin_incoming(&info), Err(SnapshotError::Unusable(_))), "{info:?}");
    }
    for name in ["vote", "../vote", "log-00000001", "incoming-ledger-00000001"] {
        assert!(to.read(name, 0, 1).is_err(), "{name} was read");
    }
    assert!(to.read(&snapshot_name(good.seq()), u64::MAX, 2).is_err());
}

#[test]
fn a_crash_at_any_point_leaves_the_own_snapshot_or_the_new_one() {
    let (theirs, prepared) = (SimFs::new(), SimFs::new());
    let (new, from) = replica(&theirs, 12);
    let (old, _) = replica(&prepared, 4);
    let info = from.newest().expect("a snapshot");
    let mut seen = [false, false];
    for point in 1.. {
        let fs = prepared.copy();
        let to = empty(&fs);
        fs.power_off_after(point);
        let finished = to.begin_incoming(&info).and_then(|mut incoming| {
            for (index, file) in info.files.iter().enumerate() {
                incoming.write(index, 0, &from.read(&file.name, 0, file.len as usize)?)?;
            }
            incoming.finish()
        });
        for seed in 0..4 {
            let opened = opened(&fs.copy_after_crash(seed * 1_000 + point));
            check_one_of(opened, [&old, &new], &mut seen);
        }
        check_one_of(opened(&fs.crash(point)), [&old, &new], &mut seen);
        if finished.is_ok() {
            break;
        }
    }
    assert_eq!(seen, [true, true]);
}

fn check_one_of(opened: Opened<SimFs>, [old, new]: [&Twin; 2], seen: &mut [bool; 2]) {
    let base = opened.recovered.base.end.seq;
    let twin = if base == new.seq() { new } else { old };
    seen[usize::from(base == new.seq())] = true;
    let found = Twin::of(opened.recovered);
    assert_eq!((found.mark(), found.hash()), (twin.mark(), twin.hash()));
}
