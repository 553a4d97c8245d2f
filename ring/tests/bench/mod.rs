//! A cluster moved by hand, one frame and one turn at a time, for scenarios with exact message counts.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Each test binary uses its own part of this.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pygmy_proto::batch::EntryKind;
use pygmy_proto::message::{Membership, ReplicaBeat, ReplicaHello, Voter};
use pygmy_proto::types::Bounded;
use pygmy_ring::{
    Change, Completion, Config, Input, Limits, LogUuid, NotTaken, Now, Output, PeerMessage, Proposal, Replica, Target,
};

use crate::world::disk::{Disk, Item, Notice, Snapshot};
use crate::world::machine::{Journal, body, payload};
use crate::world::voter;

pub const MS: u64 = 1_000_000;
/// How far time goes in one step while everything runs.
const STEP_NS: u64 = 5 * MS;

/// Frames by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    pub data: usize,
    pub token: usize,
    pub want: usize,
    pub ack: usize,
    pub commit: usize,
    pub fetch: usize,
    pub refused: usize,
    pub pre_vote: usize,
    pub pre_vote_answer: usize,
    pub prepare: usize,
    pub promise: usize,
    pub install: usize,
    pub reject: usize,
    pub barrier: usize,
    pub barrier_answer: usize,
}

pub struct Bench {
    pub now: u64,
    configs: BTreeMap<u16, Config>,
    replicas: BTreeMap<u16, Replica<Journal>>,
    disks: BTreeMap<u16, Disk>,
    /// What is under way, by (from, to); a pair without a link has none.
    pub links: BTreeMap<(u16, u16), VecDeque<PeerMessage>>,
    /// Heartbeats under way.
    beats: Vec<(u16, u16, bool, ReplicaBeat)>,
    /// Heartbeats that each process has sent to all.
    numbers: BTreeMap<u16, u64>,
    /// Those that do not run: whatever comes to them waits.
    pub paused: BTreeSet<u16>,
    /// Directions in which nothing arrives, though the connection stands.
    pub held: BTreeSet<(u16, u16)>,
    /// Those whose disks take for ever.
    pub slow: BTreeSet<u16>,
    pub frames: Frames,
    pub beats_sent: usize,
    /// Heartbeats that asked for one.
    pub probes_sent: usize,
    /// Who suspected whom, and who trusted whom again.
    pub notices: Vec<(u16, pygmy_ring::Notice)>,
    /// Votes written, by whom.
    pub votes: BTreeMap<u16, usize>,
    /// Acknowledgements by whom they went to.
    pub acks_to: BTreeMap<u16, usize>,
    pub done: Vec<Completion>,
    pub refused: Vec<(u64, NotTaken)>,
    pub unknown: Vec<u64>,
    pub fatal: Vec<String>,
    /// Node, ticket and position of barriers that were answered.
    pub fresh: Vec<(u16, u64, u64)>,
    /// Who needs a snapshot, and whose it was told to take.
    pub need_snapshot: Vec<(u16, u16)>,
    tickets: u64,
    boots: u64,
}

/// The log that `node` was born with.
pub fn uuid(node: u16) -> LogUuid {
    let mut uuid = [node as u8; 16];
    uuid[0] = (node >> 8) as u8;
    uuid
}

impl Bench {
    /// `voters` replicas of which the first `catalogs` may hold the token, all linked; node 1 has begun the first epoch.
    pub fn new(voters: u16, catalogs: u16, limits: Limits) -> Self {
        Self::with_learners(voters, 0, catalogs, limits)
    }

    /// As [`Self::new`], with `learners` more that do not vote.
    pub fn with_learners(voters: u16, learners: u16, catalogs: u16, limits: Limits) -> Self {
        let members: Vec<Voter> = (1..=voters).map(|node| voter(node, uuid(node), catalogs)).collect();
        let membership = Membership { id: 1, voters: Bounded::truncated(members), ..Membership::default() };
        let nodes = voters + learners;
        let mut bench = Self {
            now: MS,
            configs: BTreeMap::new(),
            replicas: BTreeMap::new(),
            disks: BTreeMap::new(),
            links: BTreeMap::new(),
            beats: Vec::new(),
            numbers: BTreeMap::new(),
            paused: BTreeSet::new(),
            held: BTreeSet::new(),
            slow: BTreeSet::new(),
            frames: Frames::default(),
            beats_sent: 0,
            probes_sent: 0,
            notices: Vec::new(),
            votes: BTreeMap::new(),
            acks_to: BTreeMap::new(),
            done: Vec::new(),
            refused: Vec::new(),
            unknown: Vec::new(),
            fatal: Vec::new(),
            fresh: Vec::new(),
            need_snapshot: Vec::new(),
            tickets: 0,
            boots: 0,
        };
        for node in 1..=nodes {
            let config = Config {
                me: node,
                log_uuid: uuid(node),
                boot_nonce: 0,
                catalogs: (1..=catalogs).collect(),
                peers: (1..=nodes).filter(|other| *other != node).collect(),
                membership: membership.clone(),
                rotate: false,
                limits,
                mistake: None,
            };
            bench.configs.insert(node, config);
            bench.disks.insert(node, Disk::new(uuid(node)));
            bench.start(node);
        }
        for a in 1..=nodes {
            for b in a + 1..=nodes {
                bench.connect(a, b);
            }
        }
        bench.run(200 * MS);
        assert_eq!(bench.holder(), Some(1), "the first catalog begins the first epoch");
        bench.forget();
        bench
    }

    /// Forgets what was counted so far.
    pub fn forget(&mut self) {
        self.frames = Frames::default();
        self.beats_sent = 0;
        self.probes_sent = 0;
        self.notices.clear();
        self.votes.clear();
        self.acks_to.clear();
        self.done.clear();
        self.refused.clear();
        self.unknown.clear();
        self.fresh.clear();
    }

    pub fn replica(&self, node: u16) -> &Replica<Journal> {
        &self.replicas[&node]
    }

    pub fn replica_mut(&mut self, node: u16) -> &mut Replica<Journal> {
        self.replicas.get_mut(&node).unwrap()
    }

    pub fn disk(&mut self, node: u16) -> &mut Disk {
        self.disks.get_mut(&node).unwrap()
    }

    pub fn alive(&self) -> Vec<u16> {
        self.replicas.keys().copied().collect()
    }

    pub fn holder(&self) -> Option<u16> {
        let holders: Vec<u16> =
            self.replicas.iter().filter(|(_, r)| r.token().is_some()).map(|(node, _)| *node).collect();
        assert!(holders.len() <= 1, "{holders:?} hold a token");
        holders.first().copied()
    }

    pub fn hello(&self, node: u16, to: u16) -> ReplicaHello {
        self.replicas[&node].hello(to)
    }

    pub fn connect(&mut self, a: u16, b: u16) {
        let hello_a = self.hello(a, b);
        self.connect_with(a, hello_a, b);
    }

    /// As [`Self::connect`], with a handshake that `a` has prepared before.
    pub fn connect_with(&mut self, a: u16, hello_a: ReplicaHello, b: u16) {
        self.links.insert((a, b), VecDeque::new());
        self.links.insert((b, a), VecDeque::new());
        self.input(b, Input::PeerUp { node: a, hello: hello_a });
        let hello_b = self.hello(b, a);
        self.input(a, Input::PeerUp { node: b, hello: hello_b });
    }

    /// What is under way between the two is lost, and both notice.
    pub fn cut(&mut self, a: u16, b: u16) {
        self.links.remove(&(a, b));
        self.links.remove(&(b, a));
        self.input(a, Input::PeerDown { node: b });
        self.input(b, Input::PeerDown { node: a });
    }

    pub fn isolate(&mut self, node: u16) {
        for other in self.alive() {
            if self.links.contains_key(&(node, other)) {
                self.cut(node, other);
            }
        }
    }

    pub fn join(&mut self, node: u16) {
        for other in self.alive().into_iter().filter(|other| *other != node) {
            self.connect(node, other);
        }
    }

    /// The process of `node` dies; the others notice. What was not synced is gone.
    pub fn kill(&mut self, node: u16) {
        self.replicas.remove(&node);
        self.isolate(node);
        self.disk(node).crash(0);
        self.beats.retain(|(from, ..)| *from != node);
    }

    /// It comes back with its disk, linked to nobody.
    pub fn start(&mut self, node: u16) {
        self.boots += 1;
        let config = Config { log_uuid: self.disks[&node].uuid, boot_nonce: self.boots, ..self.configs[&node].clone() };
        let replica = Replica::open(config, self.clock(), self.disks[&node].recovered()).unwrap();
        self.replicas.insert(node, replica);
    }

    /// A replica in the slot of `like` that no configuration and no peer knows; it is linked to all.
    pub fn start_unknown(&mut self, node: u16, like: u16) {
        let known = self.configs[&like].clone();
        let mut catalogs = known.catalogs;
        catalogs.push(node);
        let peers = known.peers.into_iter().chain([like]).collect();
        self.configs.insert(node, Config { me: node, catalogs, peers, ..self.configs[&like].clone() });
        self.disks.insert(node, Disk::new(uuid(node)));
        self.restart(node);
    }

    /// It comes back with its disk and is linked to all.
    pub fn restart(&mut self, node: u16) {
        self.start(node);
        self.join(node);
    }

    /// It comes back with an empty disk, and a new name, and is linked to all.
    pub fn restart_empty(&mut self, node: u16) -> LogUuid {
        let new = [0x80 | node as u8; 16];
        self.disks.insert(node, Disk::new(new));
        self.restart(node);
        new
    }

    pub fn clock(&self) -> Now {
        Now { mono_ns: self.now, wall_us: self.now / 1_000 }
    }

    /// One input and the turn that follows.
    pub fn input(&mut self, node: u16, input: Input) {
        let now = self.clock();
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.handle(now, input);
        }
        self.turn(node);
    }

    pub fn message(&mut self, from: u16, to: u16, message: PeerMessage) {
        self.input(to, Input::Message { node: from, message });
    }

    pub fn turn(&mut self, node: u16) {
        let now = self.clock();
        let Some(replica) = self.replicas.get_mut(&node) else { return };
        if replica.next_timeout().is_some_and(|at| at <= now.mono_ns) {
            replica.on_timeout(now);
        }
        replica.end_turn(now);
        let outputs: Vec<Output> = replica.drain_outputs().collect();
        for output in outputs {
            match output {
                Output::Send { to, message } => self.send(node, to, message),
                Output::Append { epoch, batch } => self.disk(node).queue.push_back(Item::Append { epoch, batch }),
                Output::Vote(vote) => {
                    *self.votes.entry(node).or_default() += 1;
                    self.disk(node).queue.push_back(Item::Vote(vote));
                }
                Output::Beat(beat) => {
                    self.beats_sent += 1;
                    let up = self.links.keys().filter(|(from, _)| *from == node);
                    self.beats.extend(up.map(|(_, to)| (node, *to, false, beat.clone())));
                    *self.numbers.entry(node).or_default() += 1;
                }
                Output::Notice(pygmy_ring::Notice::Probe(to)) => {
                    self.probes_sent += 1;
                    let beat = self.replica(node).beat_now();
                    self.beats.push((node, to, true, beat));
                }
                Output::Notice(notice) => self.notices.push((node, notice)),
                Output::ReadLog { node: to, .. } => self.input(node, Input::LogRead { node: to, batches: Vec::new() }),
                Output::NeedSnapshot { node: from } => self.need_snapshot.push((node, from)),
                Output::Done(done) => self.done.push(done),
                Output::Refused { ticket, why } => self.refused.push((ticket, why)),
                Output::Unknown { ticket } => self.unknown.push(ticket),
                Output::Fresh { ticket, seq } => self.fresh.push((node, ticket, seq)),
                Output::Fatal(why) => self.fatal.push(why),
            }
        }
    }

    fn send(&mut self, from: u16, to: Target, message: PeerMessage) {
        let up: Vec<u16> = self.links.keys().filter(|(a, _)| *a == from).map(|(_, b)| *b).collect();
        for node in up.into_iter().filter(|node| to == Target::All || to == Target::Node(*node)) {
            let frames = &mut self.frames;
            let count = match &message {
                PeerMessage::Data(_) => &mut frames.data,
                PeerMessage::Token(_) => &mut frames.token,
                PeerMessage::Want(_) => &mut frames.want,
                PeerMessage::Ack(_) => {
                    *self.acks_to.entry(node).or_default() += 1;
                    &mut frames.ack
                }
                PeerMessage::Commit(_) => &mut frames.commit,
                PeerMessage::Fetch(_) => &mut frames.fetch,
                PeerMessage::FetchRefused(_) => &mut frames.refused,
                PeerMessage::PreVote(_) => &mut frames.pre_vote,
                PeerMessage::PreVoteAnswer(_) => &mut frames.pre_vote_answer,
                PeerMessage::Prepare(_) => &mut frames.prepare,
                PeerMessage::Promise(_) => &mut frames.promise,
                PeerMessage::Install(_) => &mut frames.install,
                PeerMessage::Reject(_) => &mut frames.reject,
                PeerMessage::Barrier(_) => &mut frames.barrier,
                PeerMessage::BarrierAnswer(_) => &mut frames.barrier_answer,
            };
            *count += 1;
            self.links.get_mut(&(from, node)).unwrap().push_back(message.clone());
        }
    }

    /// Delivers what is under way from one to another.
    pub fn deliver(&mut self, from: u16, to: u16) {
        while let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            self.message(from, to, message);
        }
    }

    /// Delivers the first frame that is under way from one to another.
    pub fn deliver_one(&mut self, from: u16, to: u16) {
        if let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            self.message(from, to, message);
        }
    }

    /// What is under way from one to another.
    pub fn under_way(&self, from: u16, to: u16) -> Vec<&PeerMessage> {
        self.links.get(&(from, to)).into_iter().flatten().collect()
    }

    /// Everything that `node` was given is on its disk: one group.
    pub fn sync(&mut self, node: u16) {
        let Some(disk) = self.disks.get_mut(&node) else { return };
        for notice in disk.sync(disk.queue.len()) {
            let input = match notice {
                Notice::Durable { epoch, seq, hash } => Input::Durable { epoch, seq, hash },
                Notice::Vote(vote) => Input::VoteDurable(vote),
            };
            self.input(node, input);
        }
    }

    /// Delivers and syncs until nothing is under way, without time going on.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            let arrives = |link: &(u16, u16)| !self.paused.contains(&link.1) && !self.held.contains(link);
            let under_way = self.links.iter().filter(|(link, queue)| !queue.is_empty() && arrives(link));
            let busy: Vec<_> = under_way.map(|(link, _)| *link).collect();
            let beats = std::mem::take(&mut self.beats);
            for (from, to, asks, beat) in &beats {
                let arrives = !self.paused.contains(to) && !self.held.contains(&(*from, *to));
                if arrives && self.links.contains_key(&(*from, *to)) {
                    let number = self.numbers.get(from).copied().unwrap_or_default();
                    self.input(*to, Input::Beat { node: *from, number, beat: beat.clone() });
                    if *asks {
                        let answer = self.replica(*to).beat_now();
                        self.beats.push((*to, *from, false, answer));
                    }
                }
            }
            for (from, to) in &busy {
                self.deliver(*from, *to);
            }
            let written = self.disks.iter().filter(|(node, disk)| {
                !disk.queue.is_empty() && !self.slow.contains(node) && !self.paused.contains(node)
            });
            let written: Vec<u16> = written.map(|(node, _)| *node).collect();
            for node in &written {
                self.sync(*node);
            }
            if busy.is_empty() && written.is_empty() && beats.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.frames);
    }

    /// Lets time go on; timers fire, nothing is delivered.
    pub fn pass(&mut self, ns: u64) {
        self.now += ns;
        for node in self.alive() {
            if !self.paused.contains(&node) {
                self.turn(node);
            }
        }
    }

    /// Lets time go on and everything run.
    pub fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        self.settle();
        while self.now < end {
            self.pass(STEP_NS.min(end - self.now));
            self.settle();
        }
    }

    /// Runs until `reached`, for at most ten seconds.
    pub fn run_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let end = self.now + 10_000 * MS;
        self.settle();
        while !reached(self) {
            assert!(self.now < end, "never: {what}; {:?}", self.replicas.values().collect::<Vec<_>>());
            self.pass(STEP_NS);
            self.settle();
        }
    }

    pub fn propose(&mut self, node: u16, kind: EntryKind, body: bytes::Bytes, deadline_ns: u64) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.input(node, Input::Propose(Proposal { ticket, kind, body, deadline_ns }));
        ticket
    }

    pub fn change(&mut self, at: u16, old: LogUuid, node: u16, new: LogUuid) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        let new = voter(node, new, self.configs[&node].catalogs.len() as u16);
        self.input(at, Input::Change { ticket, change: Change::Replace { old, new } });
        ticket
    }

    /// Proposes a write of `len` bytes in the session that [`Self::register`] has made; its counter is its ticket.
    pub fn write(&mut self, node: u16, len: usize) -> u64 {
        let counter = self.tickets + 1;
        self.write_again(node, counter, len)
    }

    /// Proposes the write with this counter again.
    pub fn write_again(&mut self, node: u16, counter: u64, len: usize) -> u64 {
        let body = body(SESSION, counter, counter.saturating_sub(100).max(1), &payload((1, counter), len));
        self.propose(node, EntryKind::Command, body, u64::MAX)
    }

    /// As [`Self::write`], until all is still.
    pub fn write_settled(&mut self, node: u16, len: usize) {
        self.write(node, len);
        self.settle();
        self.pass(2 * MS);
        self.settle();
    }

    pub fn register(&mut self) {
        self.propose(1, EntryKind::Register, bytes::Bytes::new(), u64::MAX);
        self.settle();
        self.pass(2 * MS);
        self.settle();
        assert_eq!(self.done.iter().map(|done| done.seq).collect::<Vec<_>>(), [SESSION]);
        self.forget();
    }

    /// A snapshot of what `from` has applied.
    pub fn snapshot_of(&self, from: u16) -> Snapshot {
        let replica = &self.replicas[&from];
        let at = replica.checkpoint().unwrap();
        Snapshot { machine: replica.machine().clone(), sessions: replica.sessions().clone(), at }
    }

    /// Gives `to` a copy of the state of `from`; whether it took it.
    pub fn install_snapshot(&mut self, from: u16, to: u16) -> bool {
        let snapshot = self.snapshot_of(from);
        let now = self.clock();
        let Snapshot { machine, sessions, at } = snapshot.clone();
        let base = at.base;
        let replica = self.replicas.get_mut(&to).unwrap();
        let taken = replica.install_snapshot(now, machine, sessions, at);
        if taken {
            let epoch = replica.promised();
            let disk = self.disk(to);
            disk.queue.retain(|item| matches!(item, Item::Vote(_)));
            disk.log.clear();
            disk.snapshot = Some(snapshot);
            disk.queue.push_back(Item::Restart { epoch, base });
        }
        self.turn(to);
        taken
    }
}

/// The session of a bench: its registration follows the first entry of the first epoch.
pub const SESSION: u64 = 2;
