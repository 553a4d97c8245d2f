//! The log over a disk that crashes at any point: what was synced is there, and nothing that was never written is.

mod disk_support;

use disk_support::*;
use pygmy_node::disk::log::{LogFiles, Options, Recovered};
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::sim::SimFs;
use pygmy_proto::message::Epoch;

/// A history: the disk, the log that runs on it, and what may be found after a crash now.
struct World {
    random: Random,
    fs: SimFs,
    model: Model,
    /// The ends that the log may have: that of the last sync, and every one since.
    possible: Vec<Mark>,
    epoch: u64,
    /// What a snapshot is said to have.
    anchor: Mark,
    torn: u64,
    copied: usize,
    segments_seen: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = Random(seed);
        let (fs, model) = (SimFs::new(), Model::default());
        let possible = vec![GENESIS];
        Self { random, fs, model, possible, epoch: 1, anchor: GENESIS, torn: 0, copied: 0, segments_seen: 0 }
    }

    fn options(&self) -> Options {
        Options { anchor: self.anchor, ..SMALL }
    }

    /// Opens, with crashes on the way now and then, and checks what is found.
    fn open(&mut self) -> LogFiles<SimFs> {
        loop {
            if self.random.below(3) == 0 {
                self.fs.power_off_after(1 + self.random.below(24));
            }
            match LogFiles::open(self.fs.clone(), UUID, self.options()) {
                Ok((log, recovered)) => {
                    self.check(&recovered);
                    return log;
                }
                Err(_) => self.crash(),
            }
        }
    }

    fn crash(&mut self) {
        self.fs = if self.random.below(4) == 0 { self.fs.kill() } else { self.fs.crash(self.random.next()) };
    }

    fn check(&mut self, recovered: &Recovered) {
        check_chain(recovered);
        assert_eq!(recovered.damaged, None, "nothing was damaged");
        assert!(self.possible.contains(&recovered.end), "{:?} is none of {:?}", recovered.end, self.possible);
        assert!(recovered.base.seq <= self.anchor.seq);
        let end = recovered.end;
        if self.model.mark(end.seq) != end {
            // An end before the last truncation: the batches are those found.
            self.model.batches.retain(|batch| batch.last_seq() <= recovered.base.seq);
            recovered.batches.iter().for_each(|batch| self.model.append(batch.clone()));
        }
        let mut found = Model::default();
        self.model.batches.iter().filter(|b| b.header().first_seq <= end.seq).for_each(|b| found.append(b.clone()));
        if let Some(last) = found.batches.pop() {
            found.batches.extend(pygmy_node::disk::chain::prefix_of(&last, end.seq));
        }
        self.model = found;
        assert_eq!(self.model.end(), end);
        self.possible = vec![end];
        self.torn += u64::from(!recovered.clean);
        self.copied += recovered.copied;
    }

    /// A group of batches; the first may go back, to any entry above what the snapshot has.
    fn group(&mut self) -> Vec<(Epoch, pygmy_proto::batch::Batch)> {
        let mut before = self.model.end();
        if self.random.below(5) == 0 && before.seq > self.anchor.seq {
            self.epoch += 1;
            before = self.model.mark(self.anchor.seq + self.random.below(before.seq - self.anchor.seq + 1));
        }
        let mut group = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let count = 1 + self.random.below(6) as u32;
            let most = [10, 300, 2000][self.random.below(3) as usize];
            let len = self.random.below(most) as usize;
            let next = batch(epoch(self.epoch), before, count, len, self.random.next() >> 8);
            before = pygmy_node::disk::chain::end_of(&next);
            group.push((epoch(self.epoch), next));
        }
        group
    }

    /// Works until something fails.
    fn run(&mut self, log: &mut LogFiles<SimFs>) -> Option<()> {
        self.fs.power_off_after(1 + self.random.below(60));
        for _ in 0..40 {
            match self.random.below(16) {
                0..8 => {
                    let group = self.group();
                    for (_, batch) in &group {
                        self.model.append(batch.clone());
                        self.possible.push(self.model.end());
                    }
                    if self.random.below(2) == 0 {
                        log.write(&group).ok()?;
                    } else {
                        let told = log.append(&group).ok()?.map(|durable| durable.end);
                        self.possible = vec![self.model.end()];
                        assert_eq!(told, Some(self.model.end()));
                    }
                }
                8..12 => {
                    log.sync().ok()?;
                    self.possible = vec![self.model.end()];
                }
                12 => {
                    log.close_group().ok()?;
                    if log.is_unclosed() {
                        unreachable!("a closing group closes");
                    }
                    self.possible = vec![self.model.end()];
                }
                13 => log.prepare(true).ok()?,
                14 => {
                    log.sync().ok()?;
                    self.possible = vec![self.model.end()];
                    let room = self.model.end().seq - self.anchor.seq;
                    self.anchor = self.model.mark(self.anchor.seq + self.random.below(room + 1));
                    log.cut_below(self.anchor.seq + 1).ok()?;
                }
                _ => self.read(log),
            }
        }
        Some(())
    }

    fn read(&mut self, log: &LogFiles<SimFs>) {
        let end = self.model.end().seq;
        let from = self.anchor.seq + 1 + self.random.below(end - self.anchor.seq + 1);
        let read = log.reader().read(from, u64::MAX, 20_000).expect("it can be read");
        let mut expected = self.model.mark(read.first().map_or(0, |batch| batch.header().first_seq - 1));
        assert_eq!(read.is_empty(), from > end, "from {from} of {end}");
        for batch in read {
            assert_eq!(batch.header().hash_before, expected.hash);
            expected = pygmy_node::disk::chain::end_of(&batch);
            assert_eq!(self.model.mark(expected.seq), expected);
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("DISK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..800,
    }
}

#[test]
fn after_any_crash_the_log_is_what_was_synced_or_written_since() {
    let (mut torn, mut copied, mut segments) = (0, 0, 0);
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..6 {
                let mut log = world.open();
                world.run(&mut log);
                world.crash();
            }
            let names = pygmy_node::disk::fs::Fs::list(&world.fs).unwrap();
            world.segments_seen = names.iter().filter(|name| name.starts_with("log-")).count() as u64;
            (world.torn, world.copied, world.segments_seen)
        });
        let Ok(seen) = outcome else { panic!("seed {seed} fails: DISK_SEED={seed} repeats it") };
        torn += seen.0;
        copied += seen.1;
        segments = segments.max(seen.2);
    }
    let count = seeds().count();
    if count > 1 {
        assert!(
            torn > count as u64 && copied > count,
            "{torn} torn tails and {copied} copies are too few to mean anything"
        );
        assert!(segments > 3, "the histories are too short to fill segments");
    }
}

#[test]
fn one_flipped_byte_after_any_history_loses_nothing_without_a_word() {
    let (mut lost, mut alarms) = (0, 0);
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..3 {
            let mut log = world.open();
            world.run(&mut log);
            world.crash();
        }
        let mut log = world.open();
        world.fs.power_off_after(u64::MAX);
        for _ in 0..3 {
            let group = world.group();
            group.iter().for_each(|(_, batch)| world.model.append(batch.clone()));
            log.write(&group).expect("room");
            log.sync().expect("a good disk");
        }
        log.close_group().expect("a good disk");
        let names = pygmy_node::disk::fs::Fs::list(&world.fs).expect("names");
        let segments: Vec<_> = names.iter().filter(|name| name.starts_with("log-")).collect();
        let name = segments[world.random.below(segments.len() as u64) as usize];
        world.fs.flip(name, world.random.below(64 * 1024), 1 << world.random.below(8));
        let (_, found) = LogFiles::open(world.fs.crash(seed), UUID, world.options()).expect("it opens");
        check_chain(&found);
        let whole = found.end == world.model.end();
        assert!(whole || found.damaged.is_some(), "seed {seed}: ends at {:?}, {:?}", found.end, world.model.end());
        lost += u32::from(!whole);
        alarms += u32::from(whole && found.damaged.is_some());
    }
    assert_eq!(alarms, 0, "damage is told where nothing is lost");
    assert!(seeds().count() == 1 || lost > 10, "{lost}");
}

/// Batches share the memory of the segment that they were read from. Where that is hardly used they must not: a process
/// that was killed forty times has forty such segments, and would hold all of them.
#[test]
fn batches_of_segments_that_are_hardly_used_hold_no_more_than_themselves() {
    let large = Options { segment_bytes: 512 * 1024, ..SMALL };
    let open = |fs: &SimFs| LogFiles::open(fs.clone(), UUID, large).expect("the log opens");
    let mut fs = SimFs::new();
    let deaths = 40;
    for _ in 0..deaths {
        let (mut log, _) = open(&fs);
        for salt in 0..2 {
            log.write(&[(epoch(1), batch(epoch(1), log.end(), 2, 50, salt))]).expect("room");
            log.sync().expect("a good disk");
        }
        drop(log);
        fs = fs.kill();
    }
    let (log, found) = open(&fs);
    assert_eq!((log.segments(), found.batches.len()), (deaths + 1, 2 * deaths));
    assert_eq!(found.batches.iter().filter(|batch| batch.bytes().is_unique()).count(), 2 * deaths);
    drop(log);

    let fs = SimFs::new();
    let (mut log, _) = open(&fs);
    while log.segments() < 3 {
        log.write(&[(epoch(1), batch(epoch(1), log.end(), 2, 30_000, 1))]).expect("room");
        log.sync().expect("a good disk");
    }
    drop(log);
    let (_, found) = open(&fs);
    let shared = found.batches.iter().filter(|batch| !batch.bytes().is_unique()).count();
    assert!(shared > 5, "what is used well is not copied: {shared} of {}", found.batches.len());
}
