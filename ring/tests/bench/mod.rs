//! A cluster moved by hand, one frame and one turn at a time, for scenarios with exact message counts.
#![allow(unreachable_pub, clippy::unwrap_used)] // A test helper in a module of its own.

use std::collections::{BTreeMap, VecDeque};

use pygmy_proto::batch::{Batch, EntryKind};
use pygmy_proto::message::ReplicaHello;
use pygmy_ring::{
    Completion, Config, Input, Limits, Member, NotTaken, Now, Output, PeerMessage, Proposal, Replica, Target,
};

use crate::world::machine::{Journal, body, payload};

pub const MS: u64 = 1_000_000;

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
}

pub struct Bench {
    pub now: u64,
    configs: BTreeMap<u16, Config>,
    replicas: BTreeMap<u16, Replica<Journal>>,
    /// What is under way, by (from, to); a pair without a link has none.
    pub links: BTreeMap<(u16, u16), VecDeque<PeerMessage>>,
    unsynced: BTreeMap<u16, Vec<Batch>>,
    pub frames: Frames,
    /// Acknowledgements by whom they went to.
    pub acks_to: BTreeMap<u16, usize>,
    pub done: Vec<Completion>,
    pub refused: Vec<(u64, NotTaken)>,
    pub fatal: Vec<String>,
    tickets: u64,
}

impl Bench {
    /// `voters` replicas of which the first `catalogs` may hold the token, all linked; node 1 has it.
    pub fn new(voters: u16, catalogs: u16, limits: Limits) -> Self {
        let member = |node: u16| Member { node, log_uuid: [node as u8; 16], holds_token: node <= catalogs };
        let members: Vec<Member> = (1..=voters).map(member).collect();
        let mut bench = Self {
            now: MS,
            configs: BTreeMap::new(),
            replicas: BTreeMap::new(),
            links: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            frames: Frames::default(),
            acks_to: BTreeMap::new(),
            done: Vec::new(),
            refused: Vec::new(),
            fatal: Vec::new(),
            tickets: 0,
        };
        for node in 1..=voters {
            let config = Config {
                me: node,
                log_uuid: [node as u8; 16],
                boot_nonce: node.into(),
                config_id: 1,
                members: members.clone(),
                rotate: false,
                limits,
                mistake: None,
            };
            bench.configs.insert(node, config.clone());
            bench.replicas.insert(node, Replica::new(config, Journal::default()).unwrap());
        }
        for a in 1..=voters {
            for b in a + 1..=voters {
                bench.connect(a, b);
            }
        }
        bench.settle();
        bench.forget();
        bench
    }

    /// Forgets what was counted so far.
    pub fn forget(&mut self) {
        self.frames = Frames::default();
        self.acks_to.clear();
        self.done.clear();
        self.refused.clear();
    }

    pub fn replica(&self, node: u16) -> &Replica<Journal> {
        &self.replicas[&node]
    }

    pub fn holder(&self) -> Option<u16> {
        self.replicas.iter().find(|(_, replica)| replica.token().is_some()).map(|(node, _)| *node)
    }

    pub fn hello(&self, node: u16) -> ReplicaHello {
        self.replicas[&node].hello()
    }

    pub fn connect(&mut self, a: u16, b: u16) {
        let hello_a = self.hello(a);
        self.connect_with(a, hello_a, b);
    }

    /// As [`Self::connect`], with a handshake that `a` has prepared before.
    pub fn connect_with(&mut self, a: u16, hello_a: ReplicaHello, b: u16) {
        let hello_b = self.hello(b);
        self.links.insert((a, b), VecDeque::new());
        self.links.insert((b, a), VecDeque::new());
        self.input(a, Input::PeerUp { node: b, hello: hello_b });
        self.input(b, Input::PeerUp { node: a, hello: hello_a });
    }

    /// What is under way between the two is lost, and both notice.
    pub fn cut(&mut self, a: u16, b: u16) {
        self.links.remove(&(a, b));
        self.links.remove(&(b, a));
        self.input(a, Input::PeerDown { node: b });
        self.input(b, Input::PeerDown { node: a });
    }

    pub fn isolate(&mut self, node: u16) {
        let others: Vec<u16> = self.replicas.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            if self.links.contains_key(&(node, other)) {
                self.cut(node, other);
            }
        }
    }

    pub fn join(&mut self, node: u16) {
        let others: Vec<u16> = self.replicas.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            self.connect(node, other);
        }
    }

    /// The process of `node` dies; the others notice.
    pub fn kill(&mut self, node: u16) {
        self.isolate(node);
        self.replicas.remove(&node);
        self.unsynced.remove(&node);
    }

    /// It comes back with nothing and is linked to all.
    pub fn restart(&mut self, node: u16) {
        let config = Config { log_uuid: [0x80 | node as u8; 16], boot_nonce: 99, ..self.configs[&node].clone() };
        self.replicas.insert(node, Replica::new(config, Journal::default()).unwrap());
        self.join(node);
    }

    fn clock(&self) -> Now {
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
                Output::Append(batch) => self.unsynced.entry(node).or_default().push(batch),
                Output::Done(done) => self.done.push(done),
                Output::Refused { ticket, why } => self.refused.push((ticket, why)),
                Output::Fatal(why) => self.fatal.push(why),
            }
        }
    }

    fn send(&mut self, from: u16, to: Target, message: PeerMessage) {
        let up: Vec<u16> = self.links.keys().filter(|(a, _)| *a == from).map(|(_, b)| *b).collect();
        for node in up.into_iter().filter(|node| to == Target::All || to == Target::Node(*node)) {
            match &message {
                PeerMessage::Data(_) => self.frames.data += 1,
                PeerMessage::Token(_) => self.frames.token += 1,
                PeerMessage::Want(_) => self.frames.want += 1,
                PeerMessage::Ack(_) => {
                    self.frames.ack += 1;
                    *self.acks_to.entry(node).or_default() += 1;
                }
                PeerMessage::Commit(_) => self.frames.commit += 1,
                PeerMessage::Fetch(_) => self.frames.fetch += 1,
                PeerMessage::FetchRefused(_) => self.frames.refused += 1,
            }
            self.links.get_mut(&(from, node)).unwrap().push_back(message.clone());
        }
    }

    /// Delivers what is under way from one to another.
    pub fn deliver(&mut self, from: u16, to: u16) {
        while let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            self.input(to, Input::Message { node: from, message });
        }
    }

    /// Everything that `node` was given is on its disk: one group.
    pub fn sync(&mut self, node: u16) {
        if let Some(last) = self.unsynced.get_mut(&node).and_then(|batches| batches.drain(..).next_back()) {
            let (epoch, hash) = (last.header().epoch, last.header().hash_last);
            self.input(node, Input::Durable { epoch, seq: last.last_seq(), hash });
        }
    }

    /// Delivers and syncs until nothing is under way, without time going on.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            let busy: Vec<_> =
                self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
            for (from, to) in &busy {
                self.deliver(*from, *to);
            }
            let written: Vec<u16> =
                self.unsynced.iter().filter(|(_, b)| !b.is_empty()).map(|(node, _)| *node).collect();
            for node in &written {
                self.sync(*node);
            }
            if busy.is_empty() && written.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.frames);
    }

    /// Lets time go on; timers fire.
    pub fn pass(&mut self, ns: u64) {
        self.now += ns;
        let nodes: Vec<u16> = self.replicas.keys().copied().collect();
        for node in nodes {
            self.turn(node);
        }
    }

    pub fn propose(&mut self, node: u16, kind: EntryKind, body: bytes::Bytes, deadline_ns: u64) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.input(node, Input::Propose(Proposal { ticket, kind, body, deadline_ns }));
        ticket
    }

    /// Proposes a write of `len` bytes in session 1; its counter is its ticket.
    pub fn write(&mut self, node: u16, len: usize) -> u64 {
        let counter = self.tickets + 1;
        let body = body(1, counter, counter.saturating_sub(4).max(1), &payload((1, counter), len));
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
        self.forget();
    }
}
