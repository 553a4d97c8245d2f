//! Transfers over a network and a disk of the tests' making.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use pygmy_proto::limits::SNAPSHOT_PART_BYTES_MAX;
use pygmy_proto::message::{
    Epoch, SnapshotFetch, SnapshotFile, SnapshotHead, SnapshotPart, SnapshotRefusal, SnapshotRefused,
};
use pygmy_proto::types::{Blob, Bounded, Text};

use super::receiver::Action;
use super::sender::PARTS_PER_PEER;
use super::{Receiver, Sender, View};
use crate::machine::ms;
use crate::snapshot::transfer::{Failure, Job};

const PART: u64 = SNAPSHOT_PART_BYTES_MAX as u64;
const EPOCH: Epoch = Epoch { counter: 3, node: 5 };

/// A snapshot that a peer has: the lengths of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    seq: u64,
    lens: Vec<u64>,
}

impl Held {
    fn head(&self) -> SnapshotHead {
        let file = |(index, len): (usize, &u64)| {
            let name = if index == 0 { format!("snapshot-{:016x}", self.seq) } else { format!("ledger-{index:08}") };
            SnapshotFile { name: Text::new(&name).expect("a short name"), len: *len, hash: u128::from(self.seq) }
        };
        let files = Bounded::new(self.lens.iter().enumerate().map(file).collect()).expect("few files");
        SnapshotHead { epoch: EPOCH, entry_hash: 7, files }
    }

    /// Contents that differ between snapshots, files and places.
    fn bytes(&self, file: u32, offset: u64, len: u64) -> Bytes {
        let byte = |at: u64| (self.seq * 31 + u64::from(file) * 7 + at / 1000 + at) as u8;
        (offset..offset + len).map(byte).collect()
    }

    fn part(&self, fetch: &SnapshotFetch) -> SnapshotPart {
        let len = self.lens[fetch.file as usize].saturating_sub(fetch.offset).min(fetch.len.into());
        SnapshotPart {
            seq: self.seq,
            head: (fetch.seq == 0).then(|| self.head()),
            file: fetch.file,
            offset: fetch.offset,
            bytes: Blob::new(self.bytes(fetch.file, fetch.offset, len)).expect("a short part"),
        }
    }
}

/// What a peer answers.
fn answer(held: Option<&Held>, fetch: &SnapshotFetch) -> Result<SnapshotPart, SnapshotRefused> {
    let gone = SnapshotRefused {
        seq: fetch.seq,
        file: fetch.file,
        offset: fetch.offset,
        why: SnapshotRefusal::Gone,
        newest: held.map_or(0, |held| held.seq),
    };
    held.filter(|held| fetch.seq == 0 || held.seq == fetch.seq).map(|held| held.part(fetch)).ok_or(gone)
}

/// The thread's part of the work.
#[derive(Debug, Default)]
struct Disk {
    /// Number, lengths and what was written so far.
    incoming: Option<(u64, Held, Vec<Vec<u8>>)>,
    /// What was there before, and need not come: files and how far.
    here: BTreeMap<u32, u64>,
    whole: Option<Held>,
}

/// A receiver, its disk, and peers that hold snapshots.
#[derive(Debug)]
struct World {
    now_ns: u64,
    receiver: Receiver,
    disk: Disk,
    peers: BTreeMap<u16, Option<Held>>,
    up: BTreeSet<u16>,
    holder: u16,
    last_seq: u64,
    promised: Epoch,
    /// Questions on their way.
    asked: VecDeque<(u16, SnapshotFetch)>,
    /// What the thread was given and has not done.
    jobs: VecDeque<Job>,
    /// Number of the transfer that was loaded last.
    loaded: Option<u64>,
}

impl World {
    fn new(peers: impl IntoIterator<Item = (u16, Option<Held>)>) -> Self {
        let peers: BTreeMap<u16, Option<Held>> = peers.into_iter().collect();
        Self {
            now_ns: ms(1),
            receiver: Receiver::default(),
            disk: Disk::default(),
            up: peers.keys().copied().collect(),
            peers,
            holder: 0,
            last_seq: 10,
            promised: EPOCH,
            asked: VecDeque::new(),
            jobs: VecDeque::new(),
            loaded: None,
        }
    }

    /// Ends a turn.
    fn turn(&mut self) {
        let peers: Vec<u16> = self.up.iter().copied().collect();
        let (now_ns, last_seq, promised, holder) = (self.now_ns, self.last_seq, self.promised, self.holder);
        self.receiver.drive(&View { now_ns, last_seq, promised, holder, peers: &peers });
        for action in self.receiver.take_actions() {
            match action {
                Action::Ask { node, fetch } => {
                    assert!(self.up.contains(&node), "node {node} is asked over a link that is down");
                    self.asked.push_back((node, fetch));
                }
                Action::Do(job) => self.jobs.push_back(job),
            }
        }
    }

    fn need(&mut self, node: u16) {
        self.receiver.need(self.now_ns, node, self.last_seq);
        self.turn();
    }

    /// The peer gets the question at `index` and its answer comes back.
    fn deliver(&mut self, index: usize) {
        let Some((node, fetch)) = self.asked.remove(index) else { return };
        self.answer(node, &fetch);
    }

    fn answer(&mut self, node: u16, fetch: &SnapshotFetch) {
        match answer(self.peers[&node].as_ref(), fetch) {
            Ok(part) => self.receiver.on_part(self.now_ns, node, part),
            Err(refused) => self.receiver.on_refused(self.now_ns, node, refused),
        }
        self.turn();
    }

    /// The thread does what it was given first.
    fn work(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        match job {
            Job::Begin { number, info } => self.begin(number, &info),
            Job::Write { number, file, offset, bytes } => self.write(number, file, offset, &bytes),
            Job::Finish { number } => self.finish(number),
            Job::Drop { number } => self.disk.incoming = self.disk.incoming.take().filter(|(own, ..)| *own != number),
            Job::Read { .. } => unreachable!("nobody asks the receiver"),
        }
        self.turn();
    }

    fn begin(&mut self, number: u64, info: &crate::snapshot::SnapshotInfo) {
        let held = Held { seq: info.seq(), lens: info.files.iter().map(|file| file.len).collect() };
        let from = |file: usize| self.disk.here.get(&(file as u32)).copied().unwrap_or(0);
        let files = held.lens.iter().enumerate();
        let written = files.clone().map(|(file, _)| held.bytes(file as u32, 0, from(file)).to_vec()).collect();
        let wanted: Vec<(usize, u64)> =
            files.map(|(file, len)| (file, from(file), *len)).filter(|w| w.1 < w.2).map(|w| (w.0, w.1)).collect();
        self.disk.incoming = Some((number, held, written));
        self.receiver.on_begun(number, &wanted);
    }

    fn write(&mut self, number: u64, file: u32, offset: u64, bytes: &[u8]) {
        let Some((own, _, written)) = &mut self.disk.incoming else { return };
        if *own == number {
            let file = &mut written[file as usize];
            assert_eq!(file.len() as u64, offset, "parts are written in their order");
            file.extend_from_slice(bytes);
            self.receiver.on_written(number);
        }
    }

    fn finish(&mut self, number: u64) {
        let Some((own, held, written)) = self.disk.incoming.take() else { return };
        if own != number {
            return;
        }
        let files = written.iter().enumerate();
        if files.into_iter().all(|(file, bytes)| bytes[..] == held.bytes(file as u32, 0, held.lens[file])[..]) {
            self.disk.whole = Some(held);
            if self.receiver.on_loaded(number) {
                self.loaded = Some(number);
            }
        } else {
            self.receiver.on_failed(self.now_ns, number, &Failure::Unusable("it does not verify".into()));
        }
    }

    /// Everything comes and is done at once, in order.
    fn run(&mut self) {
        while !(self.asked.is_empty() && self.jobs.is_empty()) {
            self.deliver(0);
            self.work();
        }
    }

    /// Lets time pass up to the receiver's next timer.
    fn wait(&mut self) {
        if let Some(due_ns) = self.receiver.next_timeout() {
            self.now_ns = self.now_ns.max(due_ns);
        }
        self.turn();
    }

    fn asked(&self) -> Vec<(u16, SnapshotFetch)> {
        self.asked.iter().copied().collect()
    }
}

fn held(seq: u64, lens: &[u64]) -> Option<Held> {
    Some(Held { seq, lens: lens.to_vec() })
}

fn fetch(seq: u64, file: u32, offset: u64, len: u64) -> SnapshotFetch {
    SnapshotFetch { seq, file, offset, len: len as u32 }
}

#[test]
fn all_files_come_whole_and_no_more_than_two_parts_are_on_their_way() {
    let mut world = World::new([(1, held(100, &[3 * PART + 5, PART, 0, 1]))]);
    world.need(1);
    assert_eq!(world.asked(), [(1, fetch(0, 0, 0, PART))], "at first it is not known what there is");
    world.deliver(0);
    world.work();
    assert_eq!(world.asked().len(), 1, "the first part has come with the description and waits to be written");
    while world.loaded.is_none() {
        assert!(world.asked.len() <= PARTS_PER_PEER);
        assert!(!(world.asked.is_empty() && world.jobs.is_empty()), "it has come to a halt");
        world.deliver(0);
        world.work();
    }
    assert_eq!(world.disk.whole, held(100, &[3 * PART + 5, PART, 0, 1]));
    assert_eq!(world.receiver.received(), 4 * PART + 6);
    assert_eq!(world.receiver.source(), None);
    world.now_ns += ms(10_000);
    world.turn();
    assert!(world.asked.is_empty(), "a need that was met is not met again");
}

#[test]
fn what_is_here_already_is_not_asked_for() {
    let mut world = World::new([(1, held(100, &[9, 2 * PART, 2 * PART]))]);
    world.disk.here = BTreeMap::from([(1, 2 * PART), (2, PART)]);
    world.need(1);
    world.deliver(0);
    world.work();
    assert_eq!(world.asked(), [(1, fetch(100, 2, PART, PART))]);
    world.run();
    assert!(world.loaded.is_some());
}

#[test]
fn the_holder_of_the_token_is_asked_only_when_there_is_nobody_else() {
    let mut world = World::new([(1, held(100, &[9])), (2, held(100, &[9])), (3, None)]);
    world.holder = 1;
    world.need(1);
    assert_eq!(world.asked()[0].0, 2);
    world.up = BTreeSet::from([1]);
    world.asked.clear();
    world.now_ns += ms(3_000);
    world.need(1);
    assert_eq!(world.asked()[0].0, 1);
}

#[test]
fn a_peer_without_one_is_left_for_the_next_and_not_asked_again_at_once() {
    let mut world = World::new([(1, None), (2, None), (3, held(100, &[9]))]);
    world.need(2);
    assert_eq!(world.asked()[0].0, 2, "the one that the ring named comes first");
    world.deliver(0);
    assert_eq!(world.asked()[0].0, 3);
    world.peers.insert(3, None);
    world.deliver(0);
    assert_eq!(world.asked()[0].0, 1);
    world.deliver(0);
    assert!(world.asked.is_empty(), "all have said no");
    world.now_ns += ms(600);
    world.need(2);
    assert_eq!(world.asked.len(), 1, "after a rest they are asked again");
    world.run();
    world.now_ns += ms(600);
    world.need(2);
    assert!(world.asked.is_empty(), "and the rest is longer every time");
    world.now_ns += ms(600);
    world.need(2);
    assert_eq!(world.asked.len(), 1);
}

#[test]
fn a_need_that_is_not_renewed_is_over() {
    let mut world = World::new([(1, None)]);
    world.need(1);
    world.deliver(0);
    world.now_ns += ms(5_000);
    world.turn();
    assert!(world.asked.is_empty());
}

#[test]
fn a_log_that_goes_on_needs_no_snapshot_any_more() {
    let mut world = World::new([(1, held(9, &[PART])), (2, held(9, &[PART]))]);
    world.need(1);
    world.last_seq = 11;
    world.deliver(0);
    world.run();
    assert_eq!(world.asked(), [], "the next peer's would be of no use either");
    assert!(world.receiver.is_idle());
}

#[test]
fn over_a_broken_link_it_goes_on_where_it_was() {
    let mut world = World::new([(1, held(100, &[4 * PART])), (2, held(100, &[4 * PART]))]);
    world.need(1);
    world.deliver(0);
    world.work();
    world.work();
    assert_eq!(world.asked(), [(1, fetch(100, 0, PART, PART)), (1, fetch(100, 0, 2 * PART, PART))]);
    world.asked.clear();
    world.up.remove(&1);
    world.turn();
    world.now_ns += ms(100);
    world.turn();
    assert!(world.asked.is_empty());
    world.up.insert(1);
    world.receiver.on_link_up(1);
    world.turn();
    assert_eq!(world.asked(), [(1, fetch(100, 0, PART, PART)), (1, fetch(100, 0, 2 * PART, PART))]);
    world.run();
    assert!(world.loaded.is_some());
    assert_eq!(world.receiver.received(), 4 * PART, "nothing came twice");
}

#[test]
fn a_peer_that_gives_nothing_is_left_and_its_parts_are_not_mixed_with_the_next_ones() {
    let mut world = World::new([(1, held(100, &[4 * PART])), (2, held(90, &[4 * PART]))]);
    world.need(1);
    world.deliver(0);
    world.work();
    world.work();
    let late = world.asked();
    // A question that is lost is asked again before the peer is left.
    world.asked.clear();
    world.wait();
    assert_eq!(world.asked(), late);
    while world.receiver.source() == Some(1) {
        world.need(1);
        world.asked.clear();
        world.wait();
    }
    assert_eq!(world.receiver.source(), Some(2));
    world.answer(1, &fetch(0, 0, 0, PART));
    assert!(!world.jobs.iter().any(|job| matches!(job, Job::Begin { .. })), "begun with what another one describes");
    for (node, fetch) in late {
        world.answer(node, &fetch);
    }
    world.asked.push_back((2, fetch(0, 0, 0, PART)));
    world.run();
    assert_eq!(world.disk.whole, held(90, &[4 * PART]));
}

#[test]
fn a_peer_is_not_left_because_the_disk_here_took_its_time() {
    let mut world = World::new([(1, held(100, &[4 * PART])), (2, held(100, &[4 * PART]))]);
    world.need(1);
    world.deliver(0);
    world.work();
    world.deliver(0);
    assert!(world.asked.is_empty(), "all that may be on its way has come, and nothing is written yet");
    world.now_ns += ms(10_000);
    world.work();
    world.turn();
    assert_eq!(world.asked(), [(1, fetch(100, 0, 2 * PART, PART))]);
    assert_eq!(world.receiver.source(), Some(1));
    world.run();
    assert!(world.loaded.is_some());
}

#[test]
fn a_snapshot_that_is_gone_is_given_up_for_the_newest_but_not_for_ever() {
    let mut world = World::new([(1, held(100, &[4 * PART]))]);
    world.need(1);
    let mut seq = 100;
    let mut begun = 0;
    while world.receiver.source().is_some() {
        begun += 1;
        assert!(begun < 20, "a peer that only ever has another one is left in the end");
        world.deliver(0);
        world.work();
        seq += 1;
        world.peers.insert(1, held(seq, &[4 * PART]));
        // What was asked for under the old seq is refused.
        world.work();
        world.deliver(0);
        world.asked.retain(|(_, fetch)| fetch.seq == 0);
        world.jobs.clear();
    }
    assert!(begun > 2);
    world.now_ns += ms(1_000);
    world.need(1);
    world.run();
    assert_eq!(world.disk.whole.as_ref().map(|held| held.seq), Some(seq));
}

#[test]
fn parts_of_a_snapshot_that_was_given_up_are_not_taken_for_the_next_ones() {
    let old = held(100, &[4 * PART]);
    let mut world = World::new([(1, old.clone())]);
    world.need(1);
    world.deliver(0);
    world.work();
    world.work();
    let (node, late) = world.asked.pop_front().expect("the first of two questions");
    world.peers.insert(1, held(101, &[4 * PART]));
    while world.asked.front() != Some(&(1, fetch(101, 0, PART, PART))) {
        assert!(!(world.asked.is_empty() && world.jobs.is_empty()), "it has come to a halt");
        world.deliver(0);
        world.work();
    }
    world.receiver.on_part(world.now_ns, node, answer(old.as_ref(), &late).expect("a part"));
    world.turn();
    world.run();
    assert_eq!(world.loaded, Some(2), "the second transfer verifies");
}

#[test]
fn a_busy_peer_is_asked_again_for_the_same() {
    let mut world = World::new([(1, held(100, &[2 * PART]))]);
    world.need(1);
    world.deliver(0);
    world.work();
    let (node, asked) = world.asked.pop_front().expect("a question");
    let SnapshotFetch { seq, file, offset, .. } = asked;
    let refused = SnapshotRefused { seq, file, offset, why: SnapshotRefusal::Busy, newest: 0 };
    world.receiver.on_refused(world.now_ns, node, refused);
    world.turn();
    assert!(world.asked.is_empty(), "not at once");
    world.wait();
    assert_eq!(world.asked(), [(node, asked)]);
    world.run();
    assert!(world.loaded.is_some());
}

#[test]
fn one_that_the_log_has_overtaken_is_dropped() {
    let mut world = World::new([(1, held(100, &[4 * PART]))]);
    world.need(1);
    world.deliver(0);
    world.work();
    world.last_seq = 100;
    world.turn();
    assert_eq!(world.receiver.source(), None);
    world.run();
    assert!(world.disk.whole.is_none());
    assert!(world.disk.incoming.is_none(), "the thread has been told");
}

#[test]
fn one_of_an_epoch_that_is_not_known_here_is_not_finished_before_that_is() {
    let mut world = World::new([(1, held(100, &[9]))]);
    world.promised = Epoch { counter: 2, node: 9 };
    world.need(1);
    world.run();
    assert!(world.disk.whole.is_none());
    world.promised = EPOCH;
    world.turn();
    world.run();
    assert!(world.loaded.is_some());
}

#[test]
fn what_does_not_verify_or_does_not_fit_makes_the_next_peer_begin() {
    let mut world = World::new((1..=3).map(|node| (node, held(100, &[9]))));
    world.need(1);
    world.deliver(0);
    let Some(Job::Begin { number, .. }) = world.jobs.pop_front() else { panic!("{:?}", world.jobs) };
    world.receiver.on_failed(world.now_ns, number, &Failure::Unusable("no".into()));
    world.turn();
    assert_eq!(world.receiver.source(), Some(2));
    world.deliver(0);
    let Some(Job::Begin { number, .. }) = world.jobs.iter().find(|job| matches!(job, Job::Begin { .. })).cloned()
    else {
        panic!("{:?}", world.jobs)
    };
    world.receiver.on_failed(world.now_ns, number, &Failure::Full);
    world.turn();
    assert_eq!(world.receiver.source(), None, "no peer's would be shorter");
}

#[test]
fn parts_that_cannot_be_end_the_transfer_and_those_nobody_asked_for_are_dropped() {
    let good = held(100, &[2 * PART, 9]);
    let short =
        |part: &mut SnapshotPart| part.bytes = Blob::new(part.bytes.clone().into_bytes().slice(1..)).expect("shorter");
    let no_files = |part: &mut SnapshotPart| {
        if let Some(head) = &mut part.head {
            head.files = Bounded::default();
        }
    };
    let zero = |part: &mut SnapshotPart| part.seq = 0;
    let breaks: [&dyn Fn(&mut SnapshotPart); 3] = [&short, &no_files, &zero];
    for spoil in breaks {
        let mut world = World::new([(1, good.clone())]);
        world.need(1);
        let (node, fetch) = world.asked.pop_front().expect("a question");
        let mut part = answer(good.as_ref(), &fetch).expect("a part");
        spoil(&mut part);
        world.receiver.on_part(world.now_ns, node, part);
        world.turn();
        assert_eq!(world.receiver.source(), None);
    }
    let mut world = World::new([(1, good.clone())]);
    world.need(1);
    world.deliver(0);
    world.work();
    let (node, asked) = world.asked.pop_front().expect("a question");
    let mut part = answer(good.as_ref(), &asked).expect("a part");
    short(&mut part);
    world.receiver.on_part(world.now_ns, node, part);
    world.turn();
    assert_eq!(world.receiver.source(), None, "so is one that comes later");
    let mut world = World::new([(1, good.clone()), (2, good.clone())]);
    world.need(1);
    world.deliver(0);
    world.work();
    let before = world.receiver.received();
    for (node, fetch) in [(2, fetch(0, 0, 0, PART)), (1, fetch(0, 0, 0, PART)), (1, fetch(100, 1, 3, 9))] {
        world.answer(node, &fetch);
    }
    assert_eq!(world.receiver.received(), before);
    assert!(!world.receiver.on_loaded(99), "another transfer than this one");
    world.run();
    assert!(world.loaded.is_some());
}

/// Two parts for one peer at most, one read at a time, everybody in turn.
#[test]
fn a_sender_reads_one_part_at_a_time_and_takes_turns() {
    let mut sender = Sender::default();
    for node in [1, 1, 2] {
        assert_eq!(sender.on_fetch(node, fetch(5, 0, 0, PART)), Ok(()));
    }
    let refused = sender.on_fetch(1, fetch(5, 0, 0, PART)).expect_err("a third one");
    assert_eq!((refused.seq, refused.why), (5, SnapshotRefusal::Busy));
    assert_eq!(sender.next_read().map(|(node, _)| node), Some(1));
    assert_eq!(sender.next_read(), None, "one is being read");
    assert!(sender.on_fetch(1, fetch(5, 0, 0, PART)).is_err(), "it is still on its way");
    sender.on_read();
    assert_eq!(sender.on_fetch(1, fetch(5, 0, PART, PART)), Ok(()));
    let order: Vec<u16> = std::iter::from_fn(|| {
        let (node, _) = sender.next_read()?;
        sender.on_read();
        Some(node)
    })
    .collect();
    assert_eq!(order, [1, 2, 1]);
    assert_eq!(sender.on_fetch(3, fetch(5, 0, 0, PART)), Ok(()));
    sender.on_link_down(3);
    assert_eq!(sender.next_read(), None);
}

#[test]
fn a_sender_refuses_lengths_that_cannot_be() {
    let mut sender = Sender::default();
    for len in [0, PART + 1, u64::from(u32::MAX)] {
        let refused = sender.on_fetch(1, fetch(5, 0, 0, len)).expect_err("no such length");
        assert_eq!(refused.why, SnapshotRefusal::Unreadable);
    }
    assert_eq!(sender.next_read(), None);
}

/// One thing that happens to a transfer.
#[derive(Debug, Clone)]
enum Event {
    Deliver(usize),
    Duplicate(usize),
    Lose(usize),
    Work,
    Wait,
    LinkDown(u16),
    LinkUp(u16),
    NewerAt(u16),
    Need(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=3_u16;
    prop_oneof![
        8 => (0..3_usize).prop_map(Event::Deliver),
        2 => (0..3_usize).prop_map(Event::Duplicate),
        2 => (0..3_usize).prop_map(Event::Lose),
        8 => Just(Event::Work),
        2 => Just(Event::Wait),
        1 => node.clone().prop_map(Event::LinkDown),
        2 => node.clone().prop_map(Event::LinkUp),
        1 => node.clone().prop_map(Event::NewerAt),
        2 => node.prop_map(Event::Need),
    ]
}

impl World {
    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Deliver(index) => self.deliver(index),
            Event::Duplicate(index) => {
                if let Some((node, fetch)) = self.asked.get(index).copied() {
                    self.answer(node, &fetch);
                }
            }
            Event::Lose(index) => {
                self.asked.remove(index);
            }
            Event::Work => self.work(),
            Event::Wait => self.wait(),
            Event::LinkDown(node) => {
                self.up.remove(&node);
                self.turn();
            }
            Event::LinkUp(node) => {
                self.up.insert(node);
                self.receiver.on_link_up(node);
                self.turn();
            }
            Event::NewerAt(node) => {
                let seq = self.peers[&node].as_ref().map_or(100, |held| held.seq + 1);
                self.peers.insert(node, held(seq, &[PART + seq, seq % 3 * PART]));
            }
            Event::Need(node) => self.need(node),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is lost, doubled, late or out of order, what is finished is the whole snapshot of one peer; and when
    /// all is well again, it gets there.
    #[test]
    fn in_the_end_it_is_whole(events in proptest::collection::vec(event(), 0..120)) {
        let mut world = World::new((1..=3).map(|node| (node, held(99 + u64::from(node), &[2 * PART + 1, PART, 7]))));
        world.need(1);
        for event in &events {
            world.happen(event);
            let unanswered = world.asked.iter().filter(|(node, _)| Some(*node) == world.receiver.source()).count();
            prop_assert!(unanswered <= 64, "questions pile up");
        }
        world.up = BTreeSet::from([1, 2, 3]);
        for node in 1..=3 {
            world.receiver.on_link_up(node);
        }
        for _ in 0..400 {
            if world.disk.whole.is_some() {
                break;
            }
            world.now_ns += ms(100);
            world.need(1);
            world.run();
        }
        prop_assert!(world.disk.whole.is_some(), "it never gets there: {:?}", world.receiver);
    }
}
