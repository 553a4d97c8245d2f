//! Snapshots are taken, the log is cut behind them, and the state comes back.

mod snapshot_support;

use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::snapshot::BuildError;
use pygmy_node::snapshot::dir::{snapshot_name, snapshot_seq};
use pygmy_node::snapshot::ledger::ledger_number;
use pygmy_node::snapshot::open::Opened;
use snapshot_support::*;

/// Rounds of work with a snapshot, and the cut that it allows, behind each.
fn rounds(fs: &SimFs, twin: &mut Twin, count: u64) {
    let Opened { mut log, snapshots, .. } = opened(fs);
    for round in 0..count {
        for salt in 0..10 {
            twin.work(&mut log, round * 100 + salt);
        }
        let taken = build(&snapshots, &twin.order()).expect("a snapshot");
        assert_eq!(taken.info.mark, twin.mark());
        assert_eq!(taken.cut_below.is_some(), snapshots.all().len() == 2, "nothing is cut behind a single snapshot");
        if let Some(below) = taken.cut_below {
            log.cut_below(below).expect("a good disk");
        }
    }
}

/// Everything that an opening gives is as the loop had it.
fn check_opening(fs: &SimFs, twin: &Twin) {
    let opened = opened(fs);
    assert_eq!(opened.recovered.damaged, None);
    let found = Twin::of(opened.recovered);
    assert_eq!((found.mark(), found.hash()), (twin.mark(), twin.hash()));
    assert_eq!(found.state.sessions().ids(), twin.state.sessions().ids());
    let (own, other) = (found.state.machine(), twin.state.machine());
    assert!(own.catalog().iter().eq(other.catalog().iter()));
    assert!(own.ledger().iter_from(0).eq(other.ledger().iter_from(0)));
    let id = pygmy_proto::BookId::new("always").expect("an id");
    assert_eq!(own.ledger().page(1, Some(&id), 100, None), other.ledger().page(1, Some(&id), 100, None));
}

#[test]
fn a_replica_goes_on_from_its_newest_snapshot() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    rounds(&fs, &mut twin, 1);
    check_opening(&fs.kill(), &twin);
    let fs = fs.kill();
    rounds(&fs, &mut twin, 4);
    let fs = fs.crash(1);
    check_opening(&fs, &twin);
    let fs = fs.kill();
    let Opened { mut log, snapshots, recovered, .. } = opened(&fs);
    assert_eq!(recovered.base.end.seq, twin.seq(), "nothing lay behind the newest snapshot");
    assert_eq!(recovered.membership.as_ref().map(|membership| membership.id), Some(4));
    assert_eq!(recovered.boundaries, twin.order().at.boundaries);
    twin.work(&mut log, 77);
    drop((log, snapshots));
    check_opening(&fs.kill(), &twin);
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    twin.log(&mut log, &[(pygmy_proto::batch::EntryKind::NewEpoch, Vec::new())]);
    let taken = build(&snapshots, &twin.order()).expect("a snapshot");
    assert_eq!(taken.info.files.len(), 1, "no orders, no ledger");
    check_opening(&fs.crash(3), &twin);
}

#[test]
fn two_are_kept_and_the_log_reaches_back_to_the_older() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    rounds(&fs, &mut twin, 12);
    let names = fs.list().expect("a good disk");
    let mut kept: Vec<u64> = names.iter().filter_map(|name| snapshot_seq(name)).collect();
    kept.sort_unstable();
    assert_eq!(kept.len(), 2);
    assert!(names.iter().filter_map(|name| ledger_number(name)).count() > 3, "the ledger has several files");
    let segments = names.iter().filter(|name| name.starts_with("log-")).count();
    // A round fills seven or so, and there were twelve.
    assert!(segments <= 10, "{segments} segments are left of the log");
    // The newer one is lost: the older one and the log give the same.
    fs.flip(&snapshot_name(kept[1]), 60, 1);
    check_opening(&fs.kill(), &twin);
    let opened = opened(&fs.kill());
    assert_eq!(opened.recovered.base.end.seq, kept[0]);
}

#[test]
fn the_ledger_is_the_same_whenever_snapshots_were_taken() {
    let (often, once) = (SimFs::new(), SimFs::new());
    let (mut first, mut second) = (Twin::new(), Twin::new());
    let Opened { log: mut first_log, snapshots: first_snapshots, .. } = opened(&often);
    let Opened { log: mut second_log, snapshots: second_snapshots, .. } = opened(&once);
    for salt in 0..40 {
        first.work(&mut first_log, salt);
        second.work(&mut second_log, salt);
        build(&first_snapshots, &first.order()).expect("a snapshot");
    }
    build(&second_snapshots, &second.order()).expect("a snapshot");
    assert_eq!(first_snapshots.newest(), second_snapshots.newest());
    for file in first_snapshots.newest().expect("a snapshot").files {
        assert!(often.bytes(&file.name) == once.bytes(&file.name), "{} differs", file.name);
    }
}

#[test]
fn an_image_that_is_not_of_the_state_ends_the_process() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    twin.work(&mut log, 1);
    let mut order = twin.order();
    order.state_hash ^= 1;
    assert!(matches!(build(&snapshots, &order), Err(BuildError::Fatal(_))));
    assert_eq!(snapshots.newest(), None);
    // Each part of it counts.
    let before = twin.order();
    twin.work(&mut log, 2);
    for part in 0..3 {
        let mut order = twin.order();
        match part {
            0 => order.image.catalog = before.image.catalog.clone(),
            1 => order.image.orders = before.image.orders.clone(),
            _ => order.image.sessions = before.image.sessions.clone(),
        }
        assert!(matches!(build(&snapshots, &order), Err(BuildError::Fatal(_))), "part {part}");
    }
    build(&snapshots, &twin.order()).expect("a snapshot");
}

#[test]
fn a_snapshot_is_of_its_entry_whatever_has_come_behind_it() {
    let fs = SimFs::new();
    let (mut twin, mut then) = (Twin::new(), Twin::new());
    let mut orders = Vec::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    for salt in 0..60 {
        twin.work(&mut log, salt);
        if salt % 10 == 9 {
            orders.push(twin.order());
        }
    }
    drop((log, snapshots));
    let Opened { mut log, .. } = opened(&SimFs::new());
    // Each is written when all that came behind it has been done.
    for (number, order) in orders.iter().enumerate() {
        let Opened { snapshots, .. } = opened(&SimFs::new());
        for salt in 0..10 {
            then.work(&mut log, number as u64 * 10 + salt);
        }
        assert_eq!(order.state_hash, then.hash());
        build(&snapshots, order).expect("a snapshot");
        let loaded = snapshots.load(then.seq()).expect("it is whole");
        assert!(loaded.store.catalog().iter().eq(then.state.machine().catalog().iter()), "order {number}");
        assert!(loaded.store.ledger().iter_from(0).eq(then.state.machine().ledger().iter_from(0)), "order {number}");
        for id in then.state.sessions().ids() {
            assert_eq!(loaded.sessions.get(id), then.state.sessions().get(id), "order {number}");
        }
    }
}

#[test]
fn files_of_the_ledger_that_are_damaged_or_gone_are_written_anew() {
    for harm in 0..3 {
        let fs = SimFs::new();
        let mut twin = Twin::new();
        rounds(&fs, &mut twin, 3);
        let Opened { mut log, snapshots, .. } = opened(&fs);
        let files = snapshots.newest().expect("a snapshot").files;
        let (first, last) = (&files[1].name, &files[files.len() - 1].name);
        assert_ne!(first, last, "the ledger has several files");
        match harm {
            0 => fs.flip(last, 40, 1),
            1 => fs.remove(last).expect("a good disk"),
            _ => fs.remove(first).expect("a good disk"),
        }
        twin.work(&mut log, 500);
        build(&snapshots, &twin.order()).expect("a snapshot");
        drop((log, snapshots));
        check_opening(&fs.kill(), &twin);
    }
}

#[test]
fn an_order_that_a_newer_snapshot_has_overtaken_is_given_up() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    twin.work(&mut log, 1);
    let order = twin.order();
    twin.work(&mut log, 2);
    build(&snapshots, &twin.order()).expect("a snapshot");
    assert!(matches!(build(&snapshots, &order), Err(BuildError::Later(_))));
    assert_eq!(snapshots.newest().map(|info| info.mark), Some(twin.mark()));
}

#[test]
fn a_full_disk_leaves_no_part_of_a_snapshot_and_stops_nothing() {
    let fs = SimFs::new();
    let mut twin = Twin::new();
    let Opened { mut log, snapshots, .. } = opened(&fs);
    for salt in 0..10 {
        twin.work(&mut log, salt);
    }
    let before = used(&fs);
    let mut refused = 0;
    for room in (0..).step_by(100) {
        fs.set_budget(Some(before + room));
        match build(&snapshots, &twin.order()) {
            Ok(_) => break,
            Err(BuildError::Later(_)) => refused += 1,
            Err(error) => panic!("with {room} bytes of room: {error}"),
        }
        assert_eq!(used(&fs), before, "with {room} bytes of room something was left");
    }
    assert!(refused > 10, "only {refused} sizes were too small");
    twin.work(&mut log, 99);
    // Whoever starts writes its vote anew first, which takes some room.
    fs.set_budget(None);
    check_opening(&fs.kill(), &twin);
}

fn used(fs: &SimFs) -> u64 {
    let names = fs.list().expect("a good disk");
    names.iter().filter_map(|name| fs.bytes(name)).map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn a_crash_at_any_point_leaves_the_state_that_there_was() {
    let prepared = SimFs::new();
    let mut twin = Twin::new();
    rounds(&prepared, &mut twin, 2);
    for salt in 0..6 {
        let Opened { mut log, .. } = opened(&prepared);
        twin.work(&mut log, 1_000 + salt);
    }
    let mut completed = false;
    for point in 1.. {
        let fs = prepared.copy();
        let Opened { mut log, snapshots, .. } = opened(&fs);
        fs.power_off_after(point);
        let built = build(&snapshots, &twin.order());
        if built.is_ok() {
            let newest = opened(&fs.copy_after_crash(point)).snapshots.newest();
            assert_eq!(newest.map(|info| info.mark), Some(twin.mark()), "it is durable when it is told of");
        }
        let cut = built.as_ref().ok().and_then(|taken| taken.cut_below).map(|below| log.cut_below(below).is_ok());
        for seed in 0..4 {
            check_opening(&fs.copy_after_crash(seed * 1_000 + point), &twin);
        }
        check_opening(&fs.crash(point), &twin);
        if cut == Some(true) {
            completed = true;
            break;
        }
    }
    assert!(completed);
}
