//! What `inspect` shows of whole and damaged files.

mod disk_support;
mod snapshot_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disk_support::{GENESIS, SMALL, UUID, batch, epoch};
use pygmy_node::disk::chain::end_of;
use pygmy_node::disk::direct::LogWrites;
use pygmy_node::disk::fs::RealFs;
use pygmy_node::disk::log::LogFiles;
use pygmy_node::disk::segments::segment_name;
use pygmy_node::disk::vote::{Vote, VoteFile};
use pygmy_node::inspect::{Contents, Detail, Report, Severity, inspect};
use pygmy_node::local::meta::Meta;
use serde_json::Value;
use snapshot_support::{Twin, build, opened};

/// The directory of a log with three batches and a vote, ended in order.
struct Files {
    root: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let data = root.path().join("data");
        let fs = RealFs::open(&data, LogWrites::default()).expect("it is ours");
        let meta = Meta { cluster: [1; 16], node: 5, name: "catalog-1".into(), log_uuid: UUID, settings: 9 };
        meta.create(&data.join("meta")).expect("it is not there yet");
        let (mut vote, _) = VoteFile::open(fs.clone(), UUID).expect("a fresh one");
        vote.write(Vote { promised: epoch(4), cut: epoch(2) }).expect("it goes forward");
        let (mut log, _) = LogFiles::open(fs, UUID, SMALL).expect("a fresh one");
        let mut end = GENESIS;
        for count in [1, 2, 3] {
            let next = batch(epoch(4), end, count, 40, u64::from(count));
            end = end_of(&next);
            log.write(&[(epoch(4), next)]).expect("there is room");
            log.sync().expect("the disk works");
        }
        log.close_group().expect("the disk works");
        Self { root }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    fn segment(&self) -> PathBuf {
        self.path(&segment_name(1))
    }
}

/// A directory with two snapshots, their ledger, and the log behind the older.
fn with_snapshots(root: &Path) -> (PathBuf, Twin) {
    let data = root.join("data");
    let fs = RealFs::open(&data, LogWrites::default()).expect("it is ours");
    let meta = Meta { cluster: [1; 16], node: 5, name: "catalog-1".into(), log_uuid: UUID, settings: 9 };
    meta.create(&data.join("meta")).expect("it is not there yet");
    let mut files = opened(&fs);
    let mut twin = Twin::new();
    for round in 0..2 {
        for salt in 0..10 {
            twin.work(&mut files.log, round * 100 + salt);
        }
        let taken = build(&files.snapshots, &twin.order()).expect("a snapshot");
        if let Some(below) = taken.cut_below {
            files.log.cut_below(below).expect("a good disk");
        }
    }
    twin.work(&mut files.log, 5);
    files.log.close_group().expect("a good disk");
    (data, twin)
}

fn named(data: &Path, prefix: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(data).expect("it is there").map(|entry| entry.expect("a name").path());
    let mut found: Vec<_> =
        names.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix))).collect();
    found.sort();
    found
}

fn look(path: &Path) -> Report {
    inspect(path, Detail::Entries).expect("it can be read")
}

fn damages(report: &Report) -> Vec<&str> {
    let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
    damage.map(|finding| finding.what.as_str()).collect()
}

fn run(args: &[&str], path: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_pygmy-node");
    Command::new(program).arg("inspect").args(args).arg(path).output().expect("the program runs")
}

#[test]
fn a_whole_directory_is_shown_as_it_was_written() {
    let files = Files::new();
    let report = look(&files.data());
    assert!(report.is_whole(), "{report}");
    assert!(report.findings.is_empty(), "{report}");
    let Contents::Directory(directory) = &report.contents else { panic!("{report}") };
    let log = directory.log.as_ref().expect("there is one");
    assert_eq!((log.behind, log.last_seq, log.epoch, log.closed, log.torn_bytes), (0, 6, epoch(4), true, 0));
    let Contents::LogSegment(segment) = look(&files.segment()).contents else { panic!("no segment") };
    assert_eq!((segment.batches, segment.entries), (3, 6));
    assert_eq!((segment.first_seq, segment.last_seq), (Some(1), Some(6)));
    let seqs: Vec<_> = segment.items.iter().filter_map(|record| record.batch.as_ref()).collect();
    assert_eq!(seqs.iter().map(|b| (b.first_seq, b.last_seq)).collect::<Vec<_>>(), [(1, 1), (2, 3), (4, 6)]);
    assert_eq!(seqs[2].entries.len(), 3);
    let Contents::Vote(vote) = look(&files.path("vote")).contents else { panic!("no vote") };
    assert_eq!((vote.promised, vote.cut, vote.counts), (Some(epoch(4)), Some(epoch(2)), true));
    let Contents::Meta(meta) = look(&files.path("meta")).contents else { panic!("no meta") };
    assert_eq!((meta.name.as_str(), meta.node, meta.log), ("catalog-1", 5, "07".repeat(16)));
}

#[test]
fn looking_changes_nothing() {
    let files = Files::new();
    let bytes = || -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(files.data()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), fs::read(name).unwrap())).collect()
    };
    let before = bytes();
    look(&files.data());
    assert!(before == bytes());
}

#[test]
fn every_flipped_byte_of_a_segment_is_told_and_the_rest_still_shown() {
    let files = Files::new();
    let whole = fs::read(files.segment()).unwrap();
    let Contents::LogSegment(all) = look(&files.segment()).contents else { panic!("no segment") };
    let ends: Vec<u64> = all.items.iter().map(|record| u64::from(record.at) + record.bytes).collect();
    let last = *ends.last().expect("there are records");
    for at in (0..last as usize).step_by(41) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(files.segment(), &bytes).unwrap();
        let report = look(&files.segment());
        let Contents::LogSegment(found) = &report.contents else { panic!("byte {at}: {report}") };
        assert!(!report.findings.is_empty(), "byte {at} is not noticed");
        assert!(found.records < all.records, "byte {at}: a broken record is shown as whole");
        // Only the last record may have been torn; before it others say that it was acknowledged.
        let in_last = at as u64 >= ends[ends.len() - 2];
        assert_eq!(damages(&report).is_empty(), in_last, "byte {at}: {report}");
        let directory = look(&files.data());
        assert_eq!(directory.is_whole(), in_last, "byte {at}: {directory}");
    }
}

#[test]
fn every_cut_of_a_segment_is_understood() {
    let files = Files::new();
    let whole = fs::read(files.segment()).unwrap();
    for len in (0..5 * 4096).step_by(97) {
        fs::write(files.segment(), &whole[..len]).unwrap();
        let report = look(&files.segment());
        let Contents::LogSegment(found) = &report.contents else { panic!("cut at {len}: {report}") };
        assert!(found.used_bytes <= len as u64);
        assert!(damages(&report).is_empty(), "cut at {len}: nothing later says that it was acknowledged: {report}");
    }
}

#[test]
fn a_damaged_vote_says_whether_it_counts() {
    let files = Files::new();
    let path = files.path("vote");
    let whole = fs::read(&path).unwrap();
    let flipped = |places: &[usize]| {
        let mut bytes = whole.clone();
        places.iter().for_each(|at| bytes[*at] ^= 1);
        fs::write(&path, bytes).unwrap();
        let report = look(&path);
        assert!(!report.is_whole(), "{report}");
        let Contents::Vote(vote) = report.contents else { panic!("no vote") };
        (vote.counts, vote.promised)
    };
    assert_eq!(flipped(&[20]), (true, Some(epoch(4))), "one copy of four");
    assert_eq!(flipped(&[20, 2 * 4096 + 20]), (true, Some(epoch(4))), "one copy of each slot");
    assert!(!flipped(&[20, 4096 + 20]).0, "a whole slot");
    for len in (0..whole.len()).step_by(511) {
        fs::write(&path, &whole[..len]).unwrap();
        let report = look(&path);
        assert_eq!(report.is_whole(), len >= 3 * 4096 + 64, "cut at {len}: {report}");
    }
}

#[test]
fn the_exit_code_and_the_json_say_what_the_text_says() {
    let files = Files::new();
    let done = run(&["--json", "--entries"], &files.data());
    assert_eq!(done.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&done.stdout).expect("one JSON object");
    assert_eq!((&json["kind"], &json["log"]["last_seq"]), (&"directory".into(), &6.into()));
    let Contents::LogSegment(all) = look(&files.segment()).contents else { panic!("no segment") };
    let first = all.items.iter().find(|record| record.batch.is_some()).expect("there are batches");
    let mut bytes = fs::read(files.segment()).unwrap();
    bytes[first.at as usize + 200] ^= 1;
    fs::write(files.segment(), bytes).unwrap();
    let done = run(&["--records"], &files.data());
    assert_eq!(done.status.code(), Some(1));
    let text = String::from_utf8(done.stdout).expect("text");
    assert!(text.contains("DAMAGE: entries up to seq"), "{text}");
    let missing = run(&[], &files.path("nothing"));
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot be read"));
}

#[test]
fn what_is_no_file_of_a_node_is_called_unknown() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("letter");
    fs::write(&path, "dear reader").unwrap();
    let report = look(&path);
    assert!(matches!(report.contents, Contents::Unknown) && report.is_whole(), "{report}");
    fs::write(&path, "pygmy-meta 1\nnonsense").unwrap();
    assert!(!look(&path).is_whole());
}

#[test]
fn snapshots_and_orders_are_shown_with_the_log_behind_them() {
    let root = tempfile::tempdir().unwrap();
    let (data, twin) = with_snapshots(root.path());
    let report = look(&data);
    assert!(report.is_whole(), "{report}");
    let Contents::Directory(directory) = &report.contents else { panic!("{report}") };
    assert_eq!(directory.log.as_ref().map(|log| log.last_seq), Some(twin.seq()), "{report}");
    let snapshots = named(&data, "snapshot-");
    assert_eq!(snapshots.len(), 2);
    let Contents::Snapshot(view) = look(&snapshots[1]).contents else { panic!("no snapshot") };
    assert_eq!(view.ledger.len(), named(&data, "ledger-").len());
    let mut orders = 0;
    for path in named(&data, "ledger-") {
        let Contents::Ledger(ledger) = look(&path).contents else { panic!("no ledger") };
        assert_eq!(ledger.items.len() as u64, ledger.orders);
        orders += ledger.orders;
    }
    assert!(orders > 0);
    assert_eq!(view.orders, orders);
}

#[test]
fn every_flipped_byte_of_a_snapshot_and_its_orders_is_told() {
    let root = tempfile::tempdir().unwrap();
    let (data, _) = with_snapshots(root.path());
    for path in named(&data, "snapshot-").into_iter().chain(named(&data, "ledger-")) {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(31) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let report = look(&path);
            assert!(!report.is_whole(), "{} byte {at}: {report}", path.display());
            fs::write(&path, &whole[..at]).unwrap();
            // Where a file of orders was to end only the snapshot knows.
            look(&path);
            if at % 5 == 0 {
                assert!(!look(&data).is_whole(), "{} cut at {at}", path.display());
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(look(&data).is_whole());
}
