//! What is damaged, cut, full or broken: every file kind, and each with its own outcome.

mod disk_support;

use disk_support::*;
use pygmy_node::disk::chain::end_of;
use pygmy_node::disk::direct::LogWrites;
use pygmy_node::disk::fs::{DirError, Fs, RealFs};
use pygmy_node::disk::log::{LogError, LogFiles, OpenError, Options};
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::recover;
use pygmy_node::disk::scan::ScanError;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::disk::vote::{Found, VOTE_NAME, Vote, VoteError, VoteFile};
use pygmy_proto::batch::Batch;

/// Appends batches of two entries of `len` bytes until the log ends at `upto`; a group and a sync each.
fn append(log: &mut LogFiles<SimFs>, counter: u64, upto: u64, len: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    while log.end().seq < upto {
        let next = batch(epoch(counter), log.end(), 2, len, log.end().seq);
        log.write(&[(epoch(counter), next.clone())]).expect("room");
        log.sync().expect("a good disk");
        batches.push(next);
    }
    batches
}

/// The segment in which the log of a fresh disk begins.
const FIRST: &str = "log-00000001";

/// Where the record of the batch that begins at `seq` stands in the first segment.
fn find(fs: &SimFs, seq: u64) -> u64 {
    let bytes = fs.bytes(FIRST).expect("the first segment");
    let header = (0..bytes.len()).step_by(4096).find(|&at| {
        let header = pygmy_node::disk::record::Header::decode(&bytes[at..]);
        header.is_ok_and(|header| header.first_seq() == seq && header.count > 0)
    });
    header.expect("a record at a block") as u64
}

#[test]
fn an_acknowledged_batch_that_is_damaged_is_no_torn_tail() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    append(&mut log, 1, 20, 50);
    fs.flip(FIRST, find(&fs, 11) + 150, 1);
    let (log, found) = open(&fs.crash(1));
    check_chain(&found);
    assert_eq!(found.end.seq, 10, "the prefix before the hole");
    let damage = found.damaged.expect("damage");
    assert_eq!((damage.end, damage.places.len()), ((epoch(1), 20), 1));
    assert_eq!(log.owed(), Some((epoch(1), 20)));
}

#[test]
fn the_last_group_is_not_mistaken_for_torn_once_it_is_closed() {
    for closed in [false, true] {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs);
        append(&mut log, 1, 20, 50);
        if closed {
            log.close_group().unwrap();
        }
        fs.flip(FIRST, find(&fs, 19) + 150, 1);
        let (_, found) = open(&fs.crash(1));
        assert_eq!(found.end.seq, 18);
        assert_eq!(found.damaged.map(|damage| damage.end), closed.then_some((epoch(1), 20)));
    }
}

#[test]
fn damage_is_remembered_over_openings_until_what_was_lost_is_back() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    let batches = append(&mut log, 1, 20, 50);
    fs.flip(FIRST, find(&fs, 11) + 150, 1);
    let mut fs = fs;
    for (count, refetched) in batches[5..].iter().enumerate() {
        fs = fs.crash(count as u64);
        let (mut log, found) = open(&fs);
        assert_eq!(found.end.seq, 10 + 2 * count as u64);
        assert_eq!(found.damaged.map(|damage| damage.end), Some((epoch(1), 20)), "after {count} of 5");
        // Submitted in a later epoch, as a repair is; that alone brings nothing back.
        log.write(&[(epoch(9), refetched.clone())]).unwrap();
        log.sync().unwrap();
    }
    let (log, found) = open(&fs.crash(9));
    assert_eq!((found.end.seq, found.damaged, log.owed()), (20, None, None));
    assert_eq!(found.tag, epoch(9));
}

#[test]
fn a_debt_is_written_down_and_outlives_the_records_that_showed_it() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    append(&mut log, 1, 20, 50);
    let anchor = Mark { seq: 10, ..end_of(&log.reader().read(9, 10, 1).unwrap()[0]) };
    fs.flip(FIRST, find(&fs, 11) + 150, 1);
    let fs = fs.crash(1);
    let (mut log, found) = open(&fs);
    assert_eq!(found.damaged.map(|damage| damage.end), Some((epoch(1), 20)));
    log.cut_below(11).unwrap();
    drop(log);
    assert_eq!(fs.bytes(FIRST), None, "the first segment is out of use");
    let (_, found) = LogFiles::open(fs.crash(2), UUID, Options { anchor, ..SMALL }).unwrap();
    assert_eq!((found.end, found.damaged.map(|damage| damage.end)), (anchor, Some((epoch(1), 20))));
}

#[test]
fn a_snapshot_repairs_what_it_covers() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    append(&mut log, 1, 20, 50);
    let anchor = log.end();
    append(&mut log, 1, 30, 50);
    fs.flip(FIRST, find(&fs, 11) + 150, 1);
    let options = Options { anchor, ..SMALL };
    let (_, found) = LogFiles::open(fs.crash(1), UUID, options).unwrap();
    assert_eq!((found.damaged, found.end.seq), (None, 30));
}

#[test]
fn a_log_that_ends_below_its_snapshot_begins_anew_behind_it() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    append(&mut log, 1, 20, 50);
    let anchor = Mark { epoch: epoch(2), seq: 100, hash: 77 };
    let (mut log, found) = LogFiles::open(fs.crash(1), UUID, Options { anchor, ..SMALL }).unwrap();
    assert_eq!((found.base, found.end, found.batches.len()), (anchor, anchor, 0));
    append(&mut log, 2, 104, 50);
    log.restart_at(epoch(3), Mark { epoch: epoch(3), seq: 200, hash: 78 }).unwrap();
    append(&mut log, 3, 204, 50);
    let anchor = Mark { epoch: epoch(3), seq: 200, hash: 78 };
    let (_, found) = LogFiles::open(fs.crash(1), UUID, Options { anchor, ..SMALL }).unwrap();
    assert_eq!((found.base, found.end.seq, found.damaged), (anchor, 204, None));
}

#[test]
fn a_missing_segment_is_damage() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    append(&mut log, 1, 60, 2_000);
    fs.remove("log-00000002").unwrap();
    fs.sync_dir().unwrap();
    let (_, found) = open(&fs.crash(1));
    check_chain(&found);
    assert_eq!(found.damaged.map(|damage| damage.end), Some((epoch(1), 60)));
}

/// A small log of three segments, with a truncation, and what must be found.
fn small_log() -> (SimFs, Vec<Mark>) {
    let fs = SimFs::new();
    let options = Options { segment_bytes: 16 * 1024, ..SMALL };
    let (mut log, _) = LogFiles::open(fs.clone(), UUID, options).expect("the log opens");
    let mut ends = vec![GENESIS];
    for (upto, counter) in [(6, 1), (4, 2), (10, 2)] {
        if upto < log.end().seq {
            let at: Mark = ends[upto as usize / 2 - 1];
            log.write(&[(epoch(counter), batch(epoch(counter), at, 2, 90, 5))]).expect("room");
            log.sync().expect("a good disk");
            ends.push(log.end());
        }
        ends.extend(append(&mut log, counter, upto, 90).iter().map(end_of));
    }
    log.close_group().expect("a good disk");
    (fs, ends)
}

/// Opens a copy of `fs` that was changed, and checks that what is found is a log that there was. Without damage it must
/// be the last one.
fn check_changed(fs: &SimFs, ends: &[Mark], what: &str) -> bool {
    let Ok((_, found)) = LogFiles::open(fs.clone(), UUID, Options { segment_bytes: 16 * 1024, ..SMALL }) else {
        panic!("{what}: the log does not open");
    };
    check_chain(&found);
    assert!(ends.contains(&found.end), "{what}: {:?} never was", found.end);
    let whole = Some(&found.end) == ends.last();
    assert!(whole || found.damaged.is_some(), "{what}: acknowledged data is lost without a word");
    found.damaged.is_some()
}

#[test]
fn a_log_with_any_byte_flipped_opens_to_a_prefix_and_says_what_is_missing() {
    let (fs, ends) = small_log();
    let names: Vec<String> = fs.list().unwrap().into_iter().filter(|name| name.starts_with("log-")).collect();
    assert!(names.len() >= 2, "{names:?}");
    let mut damaged = 0;
    for name in names {
        let bytes = fs.bytes(&name).unwrap();
        // Zeros behind a record's padding are tried at some places only.
        for at in (0..bytes.len()).filter(|&at| bytes[at] != 0 || at % 61 == 0) {
            let copy = fs.copy();
            copy.flip(&name, at as u64, 1 << (at % 8));
            damaged += u32::from(check_changed(&copy, &ends, &format!("{name} flipped at {at}")));
        }
    }
    assert!(damaged > 500, "{damaged}");
}

#[test]
fn a_log_cut_at_any_length_opens_to_a_prefix() {
    let (fs, ends) = small_log();
    for name in fs.list().unwrap().into_iter().filter(|name| name.starts_with("log-")) {
        let bytes = fs.bytes(&name).unwrap();
        for len in (0..bytes.len()).step_by(37) {
            let copy = fs.copy();
            copy.put(&name, &bytes[..len]);
            let options = Options { segment_bytes: 16 * 1024, ..SMALL };
            let (_, found) =
                LogFiles::open(copy, UUID, options).unwrap_or_else(|error| panic!("{name} {len}: {error}"));
            check_chain(&found);
            assert!(ends.contains(&found.end), "{name} cut to {len}: {:?} never was", found.end);
        }
    }
}

#[test]
fn a_vote_survives_any_flipped_byte_and_any_cut_or_says_that_it_did_not() {
    let fs = SimFs::new();
    let (mut file, found) = VoteFile::open(fs.clone(), UUID).unwrap();
    assert_eq!(found, Found::Nothing);
    for counter in 1..=3 {
        file.write(Vote { promised: epoch(counter), cut: epoch(counter - 1) }).unwrap();
    }
    let vote = Vote { promised: epoch(3), cut: epoch(2) };
    let bytes = fs.bytes(VOTE_NAME).unwrap();
    for at in 0..bytes.len() as u64 {
        let copy = fs.copy();
        copy.flip(VOTE_NAME, at, 1 << (at % 8));
        assert_eq!(VoteFile::open(copy, UUID).unwrap().1, Found::Vote(vote), "flipped at {at}");
    }
    for len in 0..bytes.len() {
        let copy = fs.copy();
        copy.put(VOTE_NAME, &bytes[..len]);
        match VoteFile::open(copy, UUID).unwrap().1 {
            // The last block is one of two copies, and its end is empty.
            Found::Vote(found) => assert!(found == vote && len >= 8 * 1024 + 64, "cut to {len}"),
            Found::Damaged(_) => assert!(len < 8 * 1024 + 64, "cut to {len}"),
            Found::Nothing => panic!("cut to {len}: forgotten"),
        }
    }
}

#[test]
fn a_slot_with_two_bad_copies_is_damage() {
    let fs = SimFs::new();
    let (mut file, _) = VoteFile::open(fs.clone(), UUID).unwrap();
    let vote = |counter| Vote { promised: epoch(counter), cut: epoch(1) };
    (1..=4).for_each(|counter| file.write(vote(counter)).unwrap());
    for slot in 0..2 {
        let copy = fs.copy();
        for block in 0..2 {
            copy.flip(VOTE_NAME, (slot * 2 + block) * 4096 + 20, 1);
        }
        let (mut file, found) = VoteFile::open(copy.clone(), UUID).unwrap();
        assert!(matches!(found, Found::Damaged(Some(older)) if older == vote(3) || older == vote(4)));
        file.write(vote(5)).unwrap();
        let (_, found) = VoteFile::open(copy.clone(), UUID).unwrap();
        assert_eq!(found, Found::Damaged(Some(vote(5))), "a new vote does not bring back a lost one");
    }
}

#[test]
fn a_promise_never_goes_back_over_any_crash() {
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut fs = SimFs::new();
        let (mut given, mut tried) = (Vote::default(), Vote::default());
        for _ in 0..8 {
            if random.below(3) == 0 {
                fs.power_off_after(1 + random.below(12));
            }
            if let Ok((mut file, found)) = VoteFile::open(fs.clone(), UUID) {
                given = match found {
                    Found::Vote(vote) if (given.promised..=tried.promised).contains(&vote.promised) => vote,
                    Found::Nothing if given == Vote::default() => given,
                    other => panic!("seed {seed}: {other:?}, but {given:?} was given and {tried:?} tried"),
                };
                tried = given;
                for _ in 0..random.below(4) {
                    tried.promised.counter += 1;
                    if file.write(tried).is_err() {
                        break;
                    }
                    given = tried;
                }
                if random.below(2) == 0 {
                    fs.power_off_after(1 + random.below(2));
                    tried.promised.counter += 1;
                    let _ = file.write(tried).map(|()| given = tried);
                }
            }
            fs = if random.below(3) == 0 { fs.kill() } else { fs.crash(random.next()) };
        }
    }
}

#[test]
fn a_vote_that_goes_back_is_refused_and_so_is_that_of_another_log() {
    let fs = SimFs::new();
    let (mut file, _) = VoteFile::open(fs.clone(), UUID).unwrap();
    file.write(Vote { promised: epoch(3), cut: epoch(2) }).unwrap();
    let back = Vote { promised: epoch(2), cut: epoch(2) };
    assert!(matches!(file.write(back), Err(VoteError::Backwards { .. })));
    assert!(matches!(VoteFile::open(fs, [1; 16]), Err(VoteError::Foreign)));
}

#[test]
fn the_log_of_another_is_refused() {
    let fs = SimFs::new();
    append(&mut open(&fs).0, 1, 4, 50);
    let other = LogFiles::open(fs, [1; 16], SMALL);
    assert!(matches!(other, Err(OpenError::Scan(ScanError::Foreign { .. }))));
}

#[test]
fn what_cannot_be_read_is_damage_where_it_was_acknowledged_and_otherwise_unknown() {
    for (seq, known) in [(11, true), (19, false)] {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs);
        append(&mut log, 1, 20, 50);
        let fs = fs.crash(1);
        fs.fail_read(FIRST, find(&fs, seq));
        match LogFiles::open(fs, UUID, SMALL) {
            Ok((_, found)) => assert!(known && found.damaged.is_some()),
            Err(OpenError::Scan(ScanError::Unreadable { .. })) => assert!(!known),
            Err(other) => panic!("{other}"),
        }
    }
}

/// What an opening copies is not all there is until it has copied all of it.
#[test]
fn a_place_that_cannot_be_read_is_not_forgotten_for_the_copies_of_half_of_it() {
    let (mut unknown, mut whole) = (0, 0);
    for steps in 1..30 {
        for seed in 0..10 {
            let fs = SimFs::new();
            let (mut log, _) = open(&fs);
            append(&mut log, 1, 4, 50);
            let first = batch(epoch(1), log.end(), 1, 50, 0);
            let second = batch(epoch(1), end_of(&first), 2, 50, 0);
            log.append(&[(epoch(1), first), (epoch(1), second)]).unwrap();
            let end = log.end();
            let fs = fs.crash(seed);
            let at = find(&fs, end.seq - 2);
            fs.power_off_after(steps);
            let opened = LogFiles::open(fs.clone(), UUID, SMALL).is_ok();
            let fs = fs.crash(seed);
            fs.fail_read(FIRST, at);
            match LogFiles::open(fs, UUID, SMALL) {
                Ok((_, found)) => {
                    assert!(found.end == end || found.damaged.is_some(), "{steps}, {seed}: {:?}", found.end);
                    whole += 1;
                }
                Err(OpenError::Scan(ScanError::Unreadable { .. })) => {
                    assert!(!opened);
                    unknown += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(unknown > 0 && whole > 0, "{unknown}, {whole}");
}

#[test]
fn on_a_full_disk_nothing_is_lost_and_a_cut_makes_room() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    log.prepare(true).unwrap();
    log.prepare(true).unwrap();
    fs.set_budget(Some(4 * 64 * 1024));
    let mut warned_at = None;
    let refused = loop {
        let next = batch(epoch(1), log.end(), 2, 1_500, 0);
        log.prepare(true).unwrap();
        if log.is_full() && warned_at.is_none() {
            warned_at = Some(log.end().seq);
        }
        match log.write(&[(epoch(1), next.clone())]) {
            Ok(()) => drop(log.sync().unwrap()),
            Err(LogError::Full) => break next,
            Err(other) => panic!("{other}"),
        }
    };
    let end = log.end();
    assert!(warned_at.is_some_and(|seq| seq + 10 < end.seq), "{warned_at:?} of {}", end.seq);
    assert_eq!(log.reader().read(1, u64::MAX, 10_000_000).unwrap().last().map(Batch::last_seq), Some(end.seq));
    // A crash of a full disk finds its spare.
    let fs = fs.crash(3);
    let (mut log, found) = open(&fs);
    assert_eq!((found.end, found.damaged), (end, None));
    log.cut_below(end.seq).unwrap();
    log.write(&[(epoch(1), refused)]).unwrap();
    log.sync().unwrap();
    assert_eq!(log.end().seq, end.seq + 2);
    log.prepare(true).unwrap();
    assert!(!log.is_full());
}

/// In order or not: what an opening needs it has.
#[test]
fn a_disk_that_is_full_to_the_last_byte_keeps_nobody_from_opening() {
    for ended in [true, false] {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs);
        let (mut file, _) = VoteFile::open(fs.clone(), UUID).unwrap();
        let vote = Vote { promised: epoch(3), cut: epoch(2) };
        file.write(vote).unwrap();
        append(&mut log, 1, 20, 50);
        log.prepare(true).unwrap();
        if ended {
            log.close_group().unwrap();
        }
        for _ in 0..3 {
            let full = fs.kill();
            full.set_budget(Some(full.used()));
            let opened = recover::open(full.clone(), UUID, SMALL).expect("nothing more is needed");
            assert_eq!((opened.found.end.seq, opened.found.damaged), (20, None));
            assert_eq!(opened.vote, Found::Vote(vote));
            full.set_budget(None);
        }
    }
}

/// What was found in a cache must be safe before anything is written over the vote that it replaced.
#[test]
fn a_vote_whose_sync_failed_is_safe_once_it_was_found() {
    for fails in [true, false] {
        let fs = SimFs::new();
        let (mut file, _) = VoteFile::open(fs.clone(), UUID).unwrap();
        let vote = |counter| Vote { promised: epoch(counter), cut: epoch(1) };
        file.write(vote(2)).unwrap();
        if fails {
            fs.fail_sync_after(0);
        } else {
            fs.power_off_after(1);
        }
        assert!(file.write(vote(3)).is_err());
        let fs = fs.kill();
        assert_eq!(VoteFile::open(fs.clone(), UUID).unwrap().1, Found::Vote(vote(3)));
        for seed in 0..50 {
            assert_eq!(VoteFile::open(fs.copy_after_crash(seed), UUID).unwrap().1, Found::Vote(vote(3)));
        }
    }
}

#[test]
fn the_first_failed_write_or_sync_is_the_last_word() {
    for write in [true, false] {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs);
        append(&mut log, 1, 4, 50);
        if write {
            fs.fail_write_after(0)
        } else {
            fs.fail_sync_after(0)
        }
        let group = [(epoch(1), batch(epoch(1), log.end(), 2, 50, 0))];
        let failed = log.append(&group);
        assert!(matches!(failed, Err(LogError::Io(_))));
        let counts = fs.counts();
        assert!(matches!(log.sync(), Err(LogError::Failed(_))));
        assert!(matches!(log.write(&group), Err(LogError::Failed(_))));
        assert!(matches!(log.close_group(), Err(LogError::Failed(_))));
        assert_eq!(fs.counts(), counts, "nothing is tried again");
    }
}

#[test]
fn a_batch_that_does_not_go_on_from_the_log_is_refused() {
    let (mut log, _) = open(&SimFs::new());
    append(&mut log, 1, 4, 50);
    for mark in [Mark { seq: 6, ..log.end() }, Mark { hash: 1, ..log.end() }, Mark { seq: 2, ..log.end() }] {
        let wrong = batch(epoch(1), mark, 1, 50, 0);
        assert!(matches!(log.write(&[(epoch(1), wrong)]), Err(LogError::Gap { .. })), "{mark:?}");
    }
}

#[test]
fn segments_are_used_again_once_they_are_cut() {
    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    for round in 1..40 {
        append(&mut log, 1, round * 30, 1_500);
        let end = log.end().seq;
        log.cut_below(end).unwrap();
        assert_eq!(log.reader().read(end - 1, end, 1).unwrap().len(), 1);
        let files = fs.list().unwrap().len();
        assert!(files <= 5, "{files} files after {round} rounds");
    }
    let newest = fs.list().unwrap().into_iter().filter(|name| name.starts_with("log-")).max();
    assert!(newest.is_some_and(|name| name.as_str() > "log-00000014"), "segments were used again");
    let anchor = log.end();
    append(&mut log, 1, anchor.seq + 10, 50);
    let (_, found) = LogFiles::open(fs.crash(1), UUID, Options { anchor, ..SMALL }).unwrap();
    assert_eq!((found.end.seq, found.damaged), (anchor.seq + 10, None), "old records are invisible");
}

#[test]
fn two_processes_cannot_use_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = RealFs::open(dir.path(), LogWrites::default()).unwrap();
    let Err(DirError::Taken { pid, .. }) = RealFs::open(dir.path(), LogWrites::default()) else {
        panic!("both hold it")
    };
    assert_eq!(pid, std::process::id() as i32);
    drop(first);
    RealFs::open(dir.path(), LogWrites::default()).unwrap();
}

/// After a sync that failed, the cache shows what the disk will never have.
#[test]
fn a_closing_group_that_never_reached_the_disk_takes_nothing_with_it() {
    for seed in 0..20 {
        let fs = SimFs::new();
        let (mut log, _) = open(&fs);
        // What a failed sync brings to the disk depends on how many there were.
        let end = 20 + 2 * seed;
        append(&mut log, 1, end, 50);
        fs.fail_sync_after(0);
        log.close_group().expect_err("its sync fails");
        let fs = fs.kill();
        let (mut log, _) = open(&fs);
        append(&mut log, 1, end + 2, 50);
        let (_, found) = open(&fs.crash(seed));
        check_chain(&found);
        assert_eq!((found.end.seq, found.damaged), (end + 2, None), "seed {seed}");
    }
}

#[test]
fn the_first_vote_needs_no_room() {
    let fs = SimFs::new();
    let (mut votes, found) = VoteFile::open(fs.clone(), UUID).unwrap();
    assert_eq!(found, Found::Nothing);
    fs.set_budget(Some(0));
    let vote = Vote { promised: epoch(1), cut: epoch(0) };
    votes.write(vote).expect("its place is there");
    assert_eq!(VoteFile::open(fs.copy_after_crash(1), UUID).unwrap().1, Found::Vote(vote));
}
