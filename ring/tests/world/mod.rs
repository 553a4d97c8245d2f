//! A cluster in memory: replicas, links, log writers and clients under one seed. The same seed gives the same run.
//!
//! Frames of one direction of a connection stay in order and take random times. A connection that breaks takes with
//! it what has not arrived when its receiver notices; both ends notice at times of their own.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of this.

pub mod checker;
pub mod client;
pub mod machine;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use pygmy_proto::batch::EntryKind;
use pygmy_proto::codec;
use pygmy_proto::message::{Epoch, ReplicaHello};
use pygmy_ring::{
    Config, Input, Limits, Member, Mistake, NotTaken, Now, Output, PeerMessage, Proposal, Replica, Target,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use checker::{Check, Checker, LogEnd, ensure};
use client::{Client, Wish};
use machine::Journal;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Simulated time in which everything must be answered once the faults have ended.
const LIVENESS_NS: u64 = 5_000 * MS;
/// Simulated time after the last answer in which a demand ring must have fallen silent.
const SILENCE_NS: u64 = 1_000 * MS;
/// Steps that no run needs: one that takes more spins.
const STEPS_MAX: u64 = 3_000_000;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub mistake: Option<Mistake>,
    pub trace: bool,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub steps: u64,
    pub frames: u64,
    pub entries: u64,
    pub deaths: u64,
    pub breaks: u64,
    pub fetches: u64,
    pub resent_tokens: u64,
    pub handed_back: u64,
    pub duplicates: u64,
}

/// Runs one seed to its end, or to the first violation.
pub fn run(plan: Plan) -> Result<Summary, String> {
    let mut world = World::new(plan);
    match world.live() {
        Ok(()) => Ok(world.summary()),
        Err(why) => Err(format!("seed {}, at {} us: {why}", plan.seed, world.now / US)),
    }
}

#[derive(Debug)]
enum Event {
    Message { from: u16, to: u16, conn: u64, message: PeerMessage },
    Hello { from: u16, to: u16, conn: u64, hello: ReplicaHello },
    HelloOk { from: u16, to: u16, conn: u64, hello: ReplicaHello },
    Down { node: u16, peer: u16, conn: u64 },
    Connect { dialer: u16, acceptor: u16 },
    Turn { node: u16, boot: u64 },
    Timer { node: u16, boot: u64 },
    Synced { node: u16, boot: u64, epoch: Epoch, seq: u64, hash: u128 },
    Durable { node: u16, boot: u64, epoch: Epoch, seq: u64, hash: u128 },
    Client { client: usize },
    Restart { node: u16 },
    Fault,
}

struct Scheduled(u64, u64, Event);
impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A node and what is around its replica.
struct Node {
    config: Config,
    replica: Option<Replica<Journal>>,
    /// A turn is scheduled.
    dirty: bool,
    timer_at: Option<u64>,
    log: LogEnd,
    unsynced: VecDeque<(Epoch, LogEnd)>,
    syncing: bool,
    effects_seen: usize,
    leaving: bool,
}

/// The link of a pair: index 0 is the end with the lower number, which accepts.
#[derive(Default)]
struct Link {
    /// The latest connection.
    conn: u64,
    broken: bool,
    /// The connection that each end believes to stand.
    seen: [Option<u64>; 2],
    last_arrival: [u64; 2],
    /// What the dialer prepared before the last connection was quite gone.
    old_hello: Option<ReplicaHello>,
}

struct Ticket {
    node: u16,
    client: usize,
    counter: Option<u64>,
    answered_before: u64,
    deadline_ns: u64,
}

/// How fast things go in this run.
struct Pace {
    frame_ns: u64,
    turn_ns: u64,
    sync_ns: u64,
    client_ns: u64,
    fault_ns: u64,
    big: bool,
    window: usize,
    deaths: bool,
    /// Deadlines are short.
    hasty: bool,
}

struct World {
    plan: Plan,
    rng: ChaCha8Rng,
    now: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    nodes: BTreeMap<u16, Node>,
    links: BTreeMap<(u16, u16), Link>,
    clients: Vec<Client>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    next_boot: u64,
    checker: Checker,
    pace: Pace,
    faults_end: u64,
    summary: Summary,
}

fn uuid(node: u16, boot: u64) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[..2].copy_from_slice(&node.to_le_bytes());
    uuid[8..].copy_from_slice(&boot.to_le_bytes());
    uuid
}

fn pair(a: u16, b: u16) -> (u16, u16) {
    (a.min(b), a.max(b))
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let catalogs = rng.random_range(2..=3_u16);
        let voters = if rng.random_bool(0.5) { 3 } else { 5 };
        let members: Vec<Member> =
            (1..=voters).map(|node| Member { node, log_uuid: uuid(node, 0), holds_token: node <= catalogs }).collect();
        let big = rng.random_bool(0.1);
        let mut limits = Limits::default();
        if rng.random_bool(0.5) {
            limits.applied_per_turn_max = rng.random_range(1..8);
            limits.pending_max = rng.random_range(2..16);
            limits.early_bytes_max = rng.random_range(200..2_000);
        }
        let rotate = rng.random_bool(0.3);
        let config = |node| Config {
            me: node,
            log_uuid: uuid(node, 0),
            boot_nonce: u64::from(node),
            config_id: 1,
            members: members.clone(),
            rotate,
            limits,
            mistake: plan.mistake,
        };
        let pace = Pace {
            frame_ns: [20 * US, 200 * US, 3 * MS][rng.random_range(0..3)],
            turn_ns: [1, 50 * US, 500 * US][rng.random_range(0..3)],
            sync_ns: [50 * US, MS, 20 * MS][rng.random_range(0..3)],
            client_ns: [200 * US, 2 * MS, 20 * MS][rng.random_range(0..3)],
            fault_ns: [3 * MS, 10 * MS, 60 * MS][rng.random_range(0..3)],
            big,
            window: rng.random_range(1..=4),
            deaths: rng.random_bool(0.7),
            hasty: rng.random_bool(0.2),
        };
        // A client that never asks again of its own accord shows what the ring alone does not bring to an end.
        let patience_ns = if rng.random_bool(0.5) { 300 * MS } else { 100_000 * MS };
        let clients = (0..rng.random_range(1..=5))
            .map(|number| Client::new(number, rng.random_range(5..60), patience_ns))
            .collect();
        let faults_end = rng.random_range(50..600) * MS;
        let mut world = Self {
            plan,
            now: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            clients,
            tickets: HashMap::new(),
            next_ticket: 0,
            next_boot: 100,
            checker: Checker::new(&config(1)),
            pace,
            faults_end,
            summary: Summary::default(),
            rng,
        };
        for node in 1..=voters {
            world.start(config(node));
        }
        for acceptor in 1..=voters {
            for dialer in acceptor + 1..=voters {
                world.links.insert((acceptor, dialer), Link::default());
                let after = world.upto(2 * MS);
                world.schedule(after, Event::Connect { dialer, acceptor });
            }
        }
        for client in 0..world.clients.len() {
            world.schedule(MS, Event::Client { client });
        }
        world.schedule(MS, Event::Fault);
        world
    }

    fn start(&mut self, config: Config) {
        let node = config.me;
        let replica = Replica::new(config.clone(), Journal::default()).expect("the configuration works");
        self.nodes.insert(
            node,
            Node {
                config,
                replica: Some(replica),
                dirty: false,
                timer_at: None,
                log: LogEnd::default(),
                unsynced: VecDeque::new(),
                syncing: false,
                effects_seen: 0,
                leaving: false,
            },
        );
    }

    fn upto(&mut self, max: u64) -> u64 {
        self.rng.random_range(0..max.max(1))
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled(self.now + after, self.scheduled, event)));
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.plan.trace {
            println!("{:>10} {}", self.now / US, text());
        }
    }

    /// The safety phase, then the liveness phase.
    fn live(&mut self) -> Check {
        self.run_until(|world| world.now >= world.faults_end)?;
        let end = self.faults_end + LIVENESS_NS;
        let done = |world: &Self| world.tickets.is_empty() && world.clients.iter().all(Client::is_done);
        self.run_until(|world| done(world) || world.now >= end)?;
        ensure!(done(self), "not everything is answered: tickets {}, clients {:?}", self.tickets.len(), self.clients);
        let silent = self.now + SILENCE_NS;
        let rotates = self.nodes[&1].config.rotate;
        self.run_until(|world| world.now >= silent)?;
        ensure!(rotates || self.events.is_empty(), "an idle ring is not silent: {:?}", self.next_event());
        self.converged()
    }

    fn next_event(&self) -> Option<&Event> {
        self.events.peek().map(|Reverse(Scheduled(_, _, event))| event)
    }

    fn converged(&self) -> Check {
        let end = self.checker.end();
        for (node, replica) in self.alive() {
            let (last, durable, applied) = (replica.log().last_seq(), replica.status().durable, replica.applied());
            ensure!(
                (last, durable, applied) == (end.seq, end.seq, end.seq),
                "node {node} is at {last}, durable {durable}, applied {applied}; the history ends at {}",
                end.seq
            );
        }
        if !self.nodes[&1].config.rotate {
            let holders = self.alive().filter(|(_, replica)| replica.token().is_some()).count();
            ensure!(holders == 1, "{holders} replicas hold the token of an idle ring");
        }
        Ok(())
    }

    fn alive(&self) -> impl Iterator<Item = (u16, &Replica<Journal>)> {
        self.nodes.iter().filter_map(|(number, node)| Some((*number, node.replica.as_ref()?)))
    }

    fn run_until(&mut self, stop: impl Fn(&Self) -> bool) -> Check {
        while !stop(self) {
            let Some(Reverse(Scheduled(at, _, event))) = self.events.pop() else { return Ok(()) };
            self.now = at;
            self.summary.steps += 1;
            ensure!(self.summary.steps < STEPS_MAX, "it spins: {event:?}");
            self.step(event)?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Check {
        match event {
            Event::Message { from, to, conn, message } => {
                if self.sees(to, from, conn) {
                    self.trace(|| format!("{from} -> {to} {message:?}"));
                    self.input(to, Input::Message { node: from, message });
                }
            }
            Event::Connect { dialer, acceptor } => self.connect(dialer, acceptor),
            Event::Hello { from, to, conn, hello } => return self.on_hello(from, to, conn, hello),
            Event::HelloOk { from, to, conn, hello } => return self.on_hello_ok(from, to, conn, hello),
            Event::Down { node, peer, conn } => {
                if self.sees(node, peer, conn) {
                    return self.down(node, peer);
                }
            }
            Event::Turn { node, boot } | Event::Timer { node, boot } if self.boot(node) == Some(boot) => {
                return self.turn(node);
            }
            Event::Synced { node, boot, epoch, seq, hash } if self.boot(node) == Some(boot) => {
                self.on_synced(node, boot, epoch, seq, hash);
            }
            Event::Durable { node, boot, epoch, seq, hash } if self.boot(node) == Some(boot) => {
                self.trace(|| format!("{node} durable {seq}"));
                self.input(node, Input::Durable { epoch, seq, hash });
            }
            Event::Turn { .. } | Event::Timer { .. } | Event::Synced { .. } | Event::Durable { .. } => {}
            Event::Client { client } => self.on_client(client),
            Event::Restart { node } if self.nodes[&node].replica.is_none() => self.restart(node),
            Event::Restart { .. } => {}
            Event::Fault => return self.on_fault(),
        }
        Ok(())
    }

    fn boot(&self, node: u16) -> Option<u64> {
        self.nodes[&node].replica.as_ref().map(|_| self.nodes[&node].config.boot_nonce)
    }

    /// Gives `node` an input; its turn follows within a random time.
    fn input(&mut self, node: u16, input: Input) {
        let now = self.clock();
        let after = self.upto(self.pace.turn_ns);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let Some(replica) = &mut state.replica else { return };
        replica.handle(now, input);
        if !state.dirty {
            state.dirty = true;
            let boot = state.config.boot_nonce;
            self.schedule(after, Event::Turn { node, boot });
        }
    }

    fn clock(&mut self) -> Now {
        // The wall clock jumps about: only ever higher times may come of it.
        let jump = self.upto(1_000_000);
        Now { mono_ns: self.now, wall_us: 1_700_000_000_000_000 + self.now / US + jump }
    }

    fn turn(&mut self, node: u16) -> Check {
        let now = self.clock();
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(replica) = &mut state.replica else { return Ok(()) };
        state.dirty = false;
        if replica.next_timeout().is_some_and(|at| at <= now.mono_ns) {
            replica.on_timeout(now);
        }
        replica.end_turn(now);
        self.check(node)?;
        self.drain(node)?;
        self.arm(node);
        Ok(())
    }

    fn arm(&mut self, node: u16) {
        let late = self.upto(100 * US);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let next = state.replica.as_ref().and_then(Replica::next_timeout);
        if next != state.timer_at || next.is_some_and(|at| at <= self.now) {
            state.timer_at = next;
            let boot = state.config.boot_nonce;
            if let Some(at) = next {
                self.schedule(at.saturating_sub(self.now) + late, Event::Timer { node, boot });
            }
        }
    }

    fn drain(&mut self, node: u16) -> Check {
        let outputs: Vec<Output> = match self.nodes.get_mut(&node).and_then(|state| state.replica.as_mut()) {
            Some(replica) => replica.drain_outputs().collect(),
            None => return Ok(()),
        };
        for output in outputs {
            match output {
                Output::Send { to: Target::Node(to), message } => self.send(node, to, message)?,
                Output::Send { to: Target::All, message } => {
                    let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
                    for to in others {
                        self.send(node, to, message.clone())?;
                    }
                }
                Output::Append(batch) => {
                    let Some(state) = self.nodes.get_mut(&node) else { continue };
                    self.checker.on_append(node, &mut state.log, &batch)?;
                    state.unsynced.push_back((batch.header().epoch, state.log));
                    self.sync(node);
                }
                Output::Done(done) => self.on_done(done)?,
                Output::Refused { ticket, why } => self.on_refused(ticket, why)?,
                Output::Fatal(why) => return Err(format!("node {node} must stop: {why}")),
            }
        }
        Ok(())
    }

    fn check(&mut self, node: u16) -> Check {
        let holders: Vec<(u16, u64)> =
            self.alive().filter_map(|(number, replica)| Some((number, replica.token()?.hop))).collect();
        ensure!(holders.len() <= 1, "I5: several replicas hold the token: {holders:?}");
        if let [(holder, hop)] = holders[..] {
            self.checker.on_holder(holder, self.nodes[&holder].config.boot_nonce, hop)?;
        }
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(replica) = &state.replica else { return Ok(()) };
        self.checker.on_turn(node, &mut state.effects_seen, replica, &state.config)
    }

    // The log writer: one group outstanding, its notice late by a random time.

    fn sync(&mut self, node: u16) {
        let (takes, group) = (self.upto(self.pace.sync_ns), self.upto(8) as usize + 1);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if state.syncing || state.unsynced.is_empty() {
            return;
        }
        state.syncing = true;
        let group = group.min(state.unsynced.len());
        let Some((epoch, end)) = state.unsynced.drain(..group).next_back() else { return };
        let boot = state.config.boot_nonce;
        self.schedule(takes, Event::Synced { node, boot, epoch, seq: end.seq, hash: end.hash });
    }

    fn on_synced(&mut self, node: u16, boot: u64, epoch: Epoch, seq: u64, hash: u128) {
        let late = self.upto(self.pace.turn_ns);
        self.checker.on_synced(self.nodes[&node].config.log_uuid, seq);
        self.schedule(late, Event::Durable { node, boot, epoch, seq, hash });
        if let Some(state) = self.nodes.get_mut(&node) {
            state.syncing = false;
        }
        self.sync(node);
    }

    // Links.

    fn link(&mut self, a: u16, b: u16) -> &mut Link {
        self.links.entry(pair(a, b)).or_default()
    }

    fn sees(&mut self, node: u16, peer: u16, conn: u64) -> bool {
        let side = usize::from(node > peer);
        self.boot(node).is_some() && self.link(node, peer).seen[side] == Some(conn)
    }

    fn send(&mut self, from: u16, to: u16, message: PeerMessage) -> Check {
        if let PeerMessage::Data(data) = &message
            && data.hop > 0
        {
            self.checker.on_ordered(from, data.hop)?;
        }
        let side = usize::from(from > to);
        let Some(conn) = self.link(from, to).seen[side] else { return Ok(()) };
        self.summary.frames += 1;
        if self.link(from, to).broken {
            return Ok(());
        }
        let message = over_the_wire(message);
        self.deliver(from, to, Event::Message { from, to, conn, message });
        Ok(())
    }

    /// Schedules what goes over a connection, behind what went before in that direction.
    fn deliver(&mut self, from: u16, to: u16, event: Event) {
        let (now, takes) = (self.now, self.upto(self.pace.frame_ns));
        let side = usize::from(to > from);
        let link = self.link(from, to);
        let at = (now + takes).max(link.last_arrival[side] + 1);
        link.last_arrival[side] = at;
        self.schedule(at - now, event);
    }

    fn connect(&mut self, dialer: u16, acceptor: u16) {
        if self.boot(dialer).is_none() || self.boot(acceptor).is_none() {
            return;
        }
        let link = self.link(dialer, acceptor);
        if link.seen[1].is_some() {
            if link.broken {
                self.schedule(MS, Event::Connect { dialer, acceptor });
            }
            return;
        }
        link.conn += 1;
        link.broken = false;
        let conn = link.conn;
        let old = self.link(dialer, acceptor).old_hello.take().filter(|old| Some(old.boot_nonce) == self.boot(dialer));
        let stale = self.upto(2) == 0;
        let Some(hello) = old.filter(|_| stale).or_else(|| self.hello(dialer)) else { return };
        self.deliver(dialer, acceptor, Event::Hello { from: dialer, to: acceptor, conn, hello });
    }

    fn hello(&self, node: u16) -> Option<ReplicaHello> {
        self.nodes[&node].replica.as_ref().map(Replica::hello)
    }

    fn on_hello(&mut self, from: u16, to: u16, conn: u64, hello: ReplicaHello) -> Check {
        let link = self.link(from, to);
        if link.conn != conn || link.broken || self.boot(from).is_none() || self.boot(to).is_none() {
            return Ok(());
        }
        if self.link(from, to).seen[0].is_some() {
            // The dialer noticed the break first: its new connection takes the place of the old one.
            self.down(to, from)?;
        }
        let Some(own) = self.hello(to) else { return Ok(()) };
        self.link(from, to).seen[0] = Some(conn);
        self.deliver(to, from, Event::HelloOk { from: to, to: from, conn, hello: own });
        self.up(to, from, hello)
    }

    fn on_hello_ok(&mut self, from: u16, to: u16, conn: u64, hello: ReplicaHello) -> Check {
        let link = self.link(from, to);
        if link.conn != conn || link.broken || self.boot(to).is_none() {
            return Ok(());
        }
        self.link(from, to).seen[1] = Some(conn);
        self.up(to, from, hello)
    }

    fn up(&mut self, node: u16, peer: u16, hello: ReplicaHello) -> Check {
        self.trace(|| format!("{node} sees {peer} come: {hello:?}"));
        self.drain(node)?;
        self.input(node, Input::PeerUp { node: peer, hello });
        self.drain(node)
    }

    fn down(&mut self, node: u16, peer: u16) -> Check {
        self.trace(|| format!("{node} sees {peer} go"));
        self.drain(node)?;
        self.link(node, peer).seen[usize::from(node > peer)] = None;
        self.input(node, Input::PeerDown { node: peer });
        self.drain(node)
    }

    fn break_link(&mut self, a: u16, b: u16, again_ns: Option<u64>) {
        let link = self.link(a, b);
        if link.broken {
            return;
        }
        link.broken = true;
        let (conn, seen) = (link.conn, link.seen);
        let old_hello = self.hello(a.max(b));
        self.link(a, b).old_hello = old_hello;
        self.summary.breaks += 1;
        self.trace(|| format!("{a} - {b} breaks"));
        let (acceptor, dialer) = pair(a, b);
        for (side, node, peer) in [(0, acceptor, dialer), (1, dialer, acceptor)] {
            if seen[side] == Some(conn) {
                let after = self.upto(3 * MS);
                self.schedule(after, Event::Down { node, peer, conn });
            }
        }
        if let Some(after) = again_ns {
            self.schedule(after, Event::Connect { dialer, acceptor });
        }
    }

    // Faults.

    fn on_fault(&mut self) -> Check {
        if self.now >= self.faults_end {
            self.heal();
            return Ok(());
        }
        let after = self.upto(self.pace.fault_ns);
        self.schedule(after, Event::Fault);
        let count = self.nodes.len() as u64;
        let (a, b) = (self.upto(count) as u16 + 1, self.upto(count) as u16 + 1);
        match self.upto(10) {
            0 | 1 if self.pace.deaths => return self.kill_if_endurable(a),
            2 | 3 if self.nodes[&a].replica.is_none() => self.restart(a),
            4 if self.pace.deaths && self.may_leave(a) => {
                self.trace(|| format!("{a} is asked to leave"));
                if let Some(state) = self.nodes.get_mut(&a) {
                    state.leaving = true;
                }
                self.input(a, Input::Leave);
            }
            5 => return self.exit_those_that_left(),
            _ if a != b => {
                let again = self.upto(20 * MS);
                self.break_link(a, b, Some(again));
            }
            _ => {}
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.trace(|| "the faults end".into());
        let broken: Vec<_> = self.links.iter().filter(|(_, link)| link.broken).map(|(pair, _)| *pair).collect();
        for (acceptor, dialer) in broken {
            self.schedule(0, Event::Connect { dialer, acceptor });
        }
    }

    fn may_leave(&self, node: u16) -> bool {
        self.boot(node).is_some() && self.nodes.values().all(|state| !state.leaving) && self.serves_without(node)
    }

    /// Whether a catalog other than `node` takes writes.
    fn serves_without(&self, node: u16) -> bool {
        let takes = |number: u16, state: &Node| state.replica.is_some() && !state.leaving && self.is_catalog(number);
        self.nodes.iter().any(|(number, state)| *number != node && takes(*number, state))
    }

    fn is_catalog(&self, node: u16) -> bool {
        self.nodes[&node].config.members.iter().any(|m| m.node == node && m.holds_token)
    }

    fn exit_those_that_left(&mut self) -> Check {
        let left = |(node, state): (&u16, &Node)| {
            (state.leaving && state.replica.as_ref().is_some_and(Replica::has_left)).then_some(*node)
        };
        let Some(node) = self.nodes.iter().find_map(left) else { return Ok(()) };
        self.kill_if_endurable(node)
    }

    /// One epoch endures the death of whoever neither holds the token nor may be about to receive it, and does not
    /// alone have what it orders behind; and of a minority of the voters.
    fn kill_if_endurable(&mut self, node: u16) -> Check {
        let holder = self.alive().find_map(|(number, replica)| Some((number, replica, replica.token()?)));
        let Some((holder, replica, token)) = holder else { return Ok(()) };
        let whole = token.next_seq == replica.log().last_seq() + 1;
        let voters = self
            .nodes
            .iter()
            .filter(|(number, state)| **number != node && state.replica.is_some() && state.config.is_voter());
        if holder == node
            || !whole
            || !self.serves_without(node)
            || voters.count() < self.nodes[&node].config.majority()
            || self.boot(node).is_none()
        {
            return Ok(());
        }
        self.kill(node)
    }

    fn kill(&mut self, node: u16) -> Check {
        self.trace(|| format!("{node} dies"));
        self.summary.deaths += 1;
        let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        if let Some(state) = self.nodes.get_mut(&node) {
            state.replica = None;
        }
        let mut lost: Vec<u64> = self.tickets.iter().filter(|(_, t)| t.node == node).map(|(n, _)| *n).collect();
        lost.sort_unstable();
        for ticket in lost.iter().filter_map(|number| self.tickets.remove(number)) {
            self.clients[ticket.client].on_handed_back(ticket.counter, self.now);
        }
        if self.rng.random_bool(0.3) {
            let after = self.upto(2 * MS);
            self.schedule(after, Event::Restart { node });
        }
        for other in others {
            self.break_link(node, other, None);
            self.link(node, other).seen[usize::from(node > other)] = None;
            // Whoever did not know yet might pass the token to the dead, which one epoch does not endure.
            if self.is_catalog(node) && self.link(node, other).seen[usize::from(other > node)].is_some() {
                self.down(other, node)?;
            }
        }
        Ok(())
    }

    /// A process that died comes back with nothing: another identity, another boot.
    fn restart(&mut self, node: u16) {
        self.next_boot += 1;
        let boot = self.next_boot;
        self.trace(|| format!("{node} is started again"));
        let config = Config { log_uuid: uuid(node, boot), boot_nonce: boot, ..self.nodes[&node].config.clone() };
        self.start(config);
        let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            let after = self.upto(2 * MS);
            self.schedule(after, Event::Connect { dialer: node.max(other), acceptor: node.min(other) });
        }
    }

    // Clients.

    fn on_client(&mut self, client: usize) {
        let after = self.upto(self.pace.client_ns) + 1;
        let len = match self.upto(100) {
            0..20 if self.pace.big => 150_000,
            0..90 => 8,
            _ => 300,
        };
        let (now, window) = (self.now, self.pace.window);
        for wish in self.clients[client].wishes(now, len, window) {
            self.propose(client, wish);
        }
        if !self.clients[client].is_done() {
            self.schedule(after, Event::Client { client });
        }
    }

    fn propose(&mut self, client: usize, wish: Wish) {
        // Now and then one that never holds the token is asked.
        let any = self.upto(20) == 0;
        let candidates: Vec<u16> =
            self.alive().map(|(node, _)| node).filter(|node| any || self.is_catalog(*node)).collect();
        if candidates.is_empty() {
            return;
        }
        let node = candidates[self.upto(candidates.len() as u64) as usize];
        let short = if self.pace.hasty { 2 } else { 10 };
        let patience = if self.upto(short) == 0 { self.upto(2 * MS) } else { 10_000 * MS };
        self.next_ticket += 1;
        let (ticket, deadline_ns) = (self.next_ticket, self.now + patience);
        let (kind, counter, body) = match wish {
            Wish::Register => (EntryKind::Register, None, bytes::Bytes::new()),
            Wish::Write { counter, body } => (EntryKind::Command, Some(counter), body),
        };
        if let Some(counter) = counter {
            self.checker.on_attempt((client as u64, counter));
        }
        self.trace(|| format!("client {client} proposes {counter:?} at {node}, ticket {ticket}"));
        let answered_before = self.checker.answered_seq;
        self.tickets.insert(ticket, Ticket { node, client, counter, answered_before, deadline_ns });
        self.input(node, Input::Propose(Proposal { ticket, kind, body, deadline_ns }));
    }

    fn on_done(&mut self, done: pygmy_ring::Completion) -> Check {
        let Some(ticket) = self.tickets.remove(&done.ticket) else {
            return Err(format!("ticket {} is answered twice", done.ticket));
        };
        self.trace(|| format!("ticket {} done at {}", done.ticket, done.seq));
        self.checker.on_done(done.seq, ticket.answered_before)?;
        match ticket.counter {
            Some(counter) => self.clients[ticket.client].on_answer(counter, done.result, &mut self.checker),
            None => {
                self.clients[ticket.client].on_registered(done.seq);
                Ok(())
            }
        }
    }

    fn on_refused(&mut self, number: u64, why: NotTaken) -> Check {
        let Some(ticket) = self.tickets.remove(&number) else {
            return Err(format!("ticket {number} is answered twice"));
        };
        self.trace(|| format!("ticket {number} handed back: {why:?}"));
        ensure!(why != NotTaken::Deadline || self.now >= ticket.deadline_ns, "dropped before its deadline");
        ensure!(
            (why == NotTaken::NotACatalog) != self.is_catalog(ticket.node),
            "node {} refuses with {why:?}",
            ticket.node
        );
        if let Some(counter) = ticket.counter {
            self.checker.on_handed_back((ticket.client as u64, counter));
        }
        let again = self.now + self.upto(20 * MS);
        self.clients[ticket.client].on_handed_back(ticket.counter, again);
        Ok(())
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary { entries: self.checker.end().seq, ..self.summary };
        for (_, replica) in self.alive() {
            let counters = replica.counters();
            summary.fetches += counters.fetches_sent;
            summary.resent_tokens += counters.tokens_resent;
            summary.handed_back += counters.handed_back;
            summary.duplicates += counters.duplicates_answered;
        }
        summary
    }
}

/// Encodes and decodes a frame's body, as between two processes.
fn over_the_wire(message: PeerMessage) -> PeerMessage {
    macro_rules! again {
        ($kind:ident, $body:expr) => {
            PeerMessage::$kind(codec::decode(&codec::encode(&$body)).expect("what was encoded can be decoded"))
        };
    }
    match message {
        PeerMessage::Data(body) => again!(Data, body),
        PeerMessage::Token(body) => again!(Token, body),
        PeerMessage::Want(body) => again!(Want, body),
        PeerMessage::Ack(body) => again!(Ack, body),
        PeerMessage::Commit(body) => again!(Commit, body),
        PeerMessage::Fetch(body) => again!(Fetch, body),
        PeerMessage::FetchRefused(body) => again!(FetchRefused, body),
    }
}
