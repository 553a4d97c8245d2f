//! A cluster in memory: replicas, links, disks and clients under one seed. The same seed gives the same run.
//!
//! Frames of one direction of a connection stay in order and take random times. A connection that breaks takes with
//! it what has not arrived when its receiver notices; both ends notice at times of their own. Heartbeats are datagrams:
//! lost, late, out of order. A process that dies leaves its disk, without what was not synced; one that is paused
//! finds everything that came meanwhile when it goes on.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of this.

pub mod checker;
pub mod client;
pub mod disk;
mod faults;
pub mod machine;
mod net;
pub mod rare;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use pygmy_proto::batch::EntryKind;
use pygmy_proto::message::{Membership, ReplicaBeat, ReplicaHello, Voter};
use pygmy_proto::types::{Bounded, Text};
use pygmy_ring::config::LogUuid;
use pygmy_ring::detector::{GRACE_NS, LATE_NS};
use pygmy_ring::replica::Counters;
use pygmy_ring::{
    Change, Config, Input, Limits, Mistake, NotTaken, Notice as Heed, Now, Output, PeerMessage, Proposal, Replica,
    Target,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use checker::{Check, Checker, Seen, ensure};
use client::{Client, Wish};
use disk::{Disk, Item, Notice, Snapshot};
use machine::Journal;
use rare::Rare;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Makes another source of chance of a seed.
const FRESH_SALT: u64 = 0x6672_6573;
/// Simulated time in which everything must be answered once the faults have ended.
const LIVENESS_NS: u64 = 20_000 * MS;
/// Simulated time after that in which all logs must have become equal.
const CONVERGENCE_NS: u64 = 5_000 * MS;
/// Steps that no run needs: one that takes more spins.
const STEPS_MAX: u64 = 3_000_000;
/// With [`Mix::Links`]: when the faults begin and end, and when all must have come to its end.
const LINKS_FROM_NS: u64 = 60 * MS;
const LINKS_UNTIL_NS: u64 = 110 * MS;
const LINKS_END_NS: u64 = 220 * MS;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub mistake: Option<Mistake>,
    pub mix: Mix,
    pub trace: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Everything, each in some of the seeds.
    All,
    /// Everything always, and the voters change as often as they can.
    Changes,
    /// Processes die and lose their disks, three voters.
    Wipes,
    /// Processes die, disks are damaged, links break, and clients read as much as they write.
    Reads,
    /// Links break for a moment, and nothing else; no heartbeat arrives from then on, and all must come to its end before
    /// they are missed. Not every seed does, so this shows only what a mistake changes.
    Links,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub steps: u64,
    pub frames: u64,
    pub entries: u64,
    pub deaths: u64,
    pub breaks: u64,
    pub pauses: u64,
    pub wipes: u64,
    pub partitions: u64,
    pub snapshots: u64,
    pub changes: u64,
    pub rare: Rare,
    pub counters: Counters,
}

impl Summary {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        macro_rules! each {
            ($($field:ident),*) => { $(self.$field += other.$field;)* };
        }
        each!(steps, frames, entries, deaths, breaks, pauses, wipes, partitions, snapshots, changes);
        self.rare.add(&other.rare);
        add(&mut self.counters, &other.counters);
    }
}

/// Runs one seed to its end, or to the first violation.
pub fn run(plan: Plan) -> Result<Summary, String> {
    let mut world = World::new(plan);
    match world.live() {
        Ok(()) => Ok(world.summary()),
        Err(why) => Err(format!("seed {}, at {} us: {why}", plan.seed, world.now / US)),
    }
}

#[derive(Debug, Clone)]
enum Event {
    Message { from: u16, to: u16, conn: u64, message: PeerMessage },
    Beat { from: u16, to: u16, number: u64, asks: bool, beat: ReplicaBeat },
    Hello { from: u16, to: u16, conn: u64, hello: ReplicaHello },
    HelloOk { from: u16, to: u16, conn: u64, hello: ReplicaHello },
    Down { node: u16, peer: u16, conn: u64 },
    Connect { dialer: u16, acceptor: u16 },
    Turn { node: u16, boot: u64 },
    Timer { node: u16, boot: u64 },
    Synced { node: u16, boot: u64, count: usize },
    Notice { node: u16, boot: u64, notice: Notice },
    Client { client: usize },
    Restart { node: u16 },
    Heal { partition: u64 },
    Operator,
    Mishap { node: u16 },
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
    disk: Disk,
    /// A turn is scheduled.
    dirty: bool,
    timer_at: Option<u64>,
    paused_at: u64,
    paused_until: u64,
    /// Heartbeats that the process has sent to all.
    beats: u64,
    /// When the disk's latest notice arrives.
    notice_at: u64,
    seen: Seen,
    leaving: bool,
    /// Stays dead for good.
    gone: bool,
    /// As of its last turn: whether it votes, whether its vote is withheld, and its configuration's id.
    voter: bool,
    withheld: bool,
    config_id: u64,
}

/// The link of a pair: index 0 is the end with the lower number, which accepts.
#[derive(Default)]
struct Link {
    /// The latest connection.
    conn: u64,
    broken: bool,
    /// No connection can be made.
    blocked: bool,
    /// Datagrams to the lower and to the higher number are lost.
    deaf: [bool; 2],
    /// The connection that each end believes to stand.
    seen: [Option<u64>; 2],
    last_arrival: [u64; 2],
    /// What the dialer prepared before the last connection was quite gone.
    old_hello: Option<ReplicaHello>,
}

struct Ticket {
    node: u16,
    /// `None`: a change of the voters.
    client: Option<usize>,
    counter: Option<u64>,
    /// The log that a change of the voters names.
    names: Option<LogUuid>,
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
    pauses: bool,
    partitions: bool,
    changes: bool,
    /// Deadlines are short.
    hasty: bool,
    /// Of a hundred heartbeats so many are lost.
    loss: u64,
    /// Snapshots are taken.
    snapshots: bool,
    /// Disks lose what they had acknowledged.
    damages: bool,
    /// Of a hundred steps of a client so many ask for a fresh read.
    fresh: u64,
}

impl Pace {
    fn focus(&mut self, mix: Mix) {
        match mix {
            Mix::Reads => (self.fresh, self.deaths, self.partitions, self.damages) = (90, true, true, true),
            Mix::All => {}
            Mix::Changes => (self.changes, self.deaths, self.partitions, self.pauses) = (true, true, true, true),
            Mix::Wipes => (self.deaths, self.partitions, self.fault_ns) = (true, true, 20 * MS),
            Mix::Links => {
                (self.frame_ns, self.turn_ns, self.sync_ns) = (200 * US, 50 * US, MS);
                (self.client_ns, self.fault_ns, self.loss) = (2 * MS, 3 * MS, 0);
                (self.hasty, self.big, self.fresh) = (false, false, 0);
            }
        }
    }
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
    /// Fresh reads that wait, by node and ticket: the highest position that was answered before each was asked.
    fresh: BTreeMap<(u16, u64), u64>,
    next_ticket: u64,
    next_boot: u64,
    partition: u64,
    checker: Checker,
    pace: Pace,
    faults_end: u64,
    /// Voters whose disks were lost, and that are to be replaced, by slot.
    to_replace: BTreeMap<u16, LogUuid>,
    last_ordered_configuration: Option<(Membership, u16)>,
    summary: Summary,
}

fn uuid(node: u16, boot: u64) -> LogUuid {
    let mut uuid = [0; 16];
    uuid[..2].copy_from_slice(&node.to_le_bytes());
    uuid[8..].copy_from_slice(&boot.to_le_bytes());
    uuid
}

fn pair(a: u16, b: u16) -> (u16, u16) {
    (a.min(b), a.max(b))
}

/// The voter that `node` is with the log `log_uuid`.
pub fn voter(node: u16, log_uuid: LogUuid, catalogs: u16) -> Voter {
    Voter { node, log_uuid, holds_token: node % 256 <= catalogs, address: Text::default() }
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let catalogs = rng.random_range(2..=3_u16);
        let voters = if rng.random_bool(0.5) || plan.mix == Mix::Wipes { 3 } else { 5 };
        // Beside the voters there may be some that only learn, until they take another one's place.
        let nodes = voters
            + if plan.mix == Mix::Changes {
                2
            } else if rng.random_bool(0.4) {
                rng.random_range(1..=2)
            } else {
                0
            };
        let members = (1..=voters).map(|node| voter(node, uuid(node, 0), catalogs)).collect();
        let membership = Membership { id: 1, voters: Bounded::truncated(members), ..Membership::default() };
        let mut limits = Limits::default();
        if rng.random_bool(0.5) {
            limits.applied_per_turn_max = rng.random_range(1..8);
            limits.pending_max = rng.random_range(2..16);
            limits.early_bytes_max = rng.random_range(200..2_000);
        }
        if rng.random_bool(0.5) {
            limits.retained_bytes_max = rng.random_range(500..5_000);
        }
        // From a source of its own: what a seed does in which nobody lags depends on nothing of that.
        let mut slow = ChaCha8Rng::seed_from_u64(!plan.seed);
        if slow.random_bool(0.4) {
            limits.lag_max = slow.random_range(4..40);
            limits.lag_over = slow.random_range(0..4);
            limits.applied_per_turn_max = slow.random_range(1..16);
        }
        let rotate = rng.random_bool(0.2);
        let config = |node| Config {
            me: node,
            log_uuid: uuid(node, 0),
            boot_nonce: u64::from(node),
            catalogs: (1..=catalogs).collect(),
            peers: (1..=nodes).filter(|other| *other != node).collect(),
            membership: membership.clone(),
            rotate,
            limits,
            mistake: plan.mistake,
        };
        let mut pace = Pace {
            frame_ns: [20 * US, 200 * US, 3 * MS][rng.random_range(0..3)],
            turn_ns: [1, 50 * US, 500 * US][rng.random_range(0..3)],
            sync_ns: [50 * US, MS, 20 * MS][rng.random_range(0..3)],
            client_ns: [200 * US, 2 * MS, 20 * MS][rng.random_range(0..3)],
            fault_ns: [3 * MS, 20 * MS, 200 * MS][rng.random_range(0..3)],
            big: rng.random_bool(0.1),
            window: rng.random_range(1..=4),
            deaths: rng.random_bool(0.7),
            pauses: rng.random_bool(0.4),
            partitions: rng.random_bool(0.5),
            changes: rng.random_bool(0.5),
            hasty: rng.random_bool(0.2),
            loss: [0, 5, 30][rng.random_range(0..3)],
            snapshots: rng.random_bool(0.5),
            damages: rng.random_bool(0.4),
            fresh: 0,
        };
        // From a source of its own: what a seed without fresh reads does depends on nothing that they do.
        let mut aside = ChaCha8Rng::seed_from_u64(plan.seed ^ FRESH_SALT);
        if aside.random_bool(0.5) {
            pace.fresh = [5, 40, 90][aside.random_range(0..3)];
        }
        pace.focus(plan.mix);
        // A client that asks again only rarely shows what the ring alone does not bring to an end.
        let patience_ns = if rng.random_bool(0.5) && plan.mix != Mix::Links { 300 * MS } else { 5_000 * MS };
        let clients = (0..rng.random_range(1..=5))
            .map(|number| Client::new(number, rng.random_range(5..60), patience_ns))
            .collect();
        let faults_end = rng.random_range(50..3_000) * MS;
        let faults_end = if plan.mix == Mix::Links { LINKS_UNTIL_NS } else { faults_end };
        let mut world = Self {
            plan,
            now: MS,
            events: BinaryHeap::new(),
            scheduled: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            clients,
            tickets: HashMap::new(),
            fresh: BTreeMap::new(),
            next_ticket: 0,
            next_boot: 100,
            partition: 0,
            checker: Checker::default(),
            pace,
            faults_end,
            to_replace: BTreeMap::new(),
            last_ordered_configuration: None,
            summary: Summary::default(),
            rng,
        };
        for node in 1..=nodes {
            world.start(config(node), Disk::new(uuid(node, 0)));
        }
        for acceptor in 1..=nodes {
            for dialer in acceptor + 1..=nodes {
                world.links.insert((acceptor, dialer), Link::default());
                let after = world.upto(2 * MS);
                world.schedule(after, Event::Connect { dialer, acceptor });
            }
        }
        for client in 0..world.clients.len() {
            world.schedule(MS, Event::Client { client });
        }
        let faults_from = if plan.mix == Mix::Links { LINKS_FROM_NS } else { MS };
        world.schedule(faults_from, Event::Fault);
        world.schedule(MS, Event::Operator);
        world
    }

    fn start(&mut self, config: Config, disk: Disk) {
        let node = config.me;
        let now = self.clock();
        let replica = Replica::open(config.clone(), now, disk.recovered()).expect("the configuration works");
        let seen = Seen { committed: disk.base().end.seq, ..Seen::default() };
        let leaving = false;
        self.nodes.insert(
            node,
            Node {
                config,
                replica: Some(replica),
                disk,
                dirty: false,
                timer_at: None,
                paused_at: 0,
                paused_until: 0,
                beats: 0,
                notice_at: 0,
                seen,
                leaving,
                gone: false,
                voter: true,
                withheld: false,
                config_id: 0,
            },
        );
        self.arm(node);
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
        let end = if self.plan.mix == Mix::Links { LINKS_END_NS } else { self.faults_end + LIVENESS_NS };
        let answered = |world: &Self| {
            world.tickets.is_empty() && world.clients.iter().all(Client::is_done) && world.waits_for_fresh().is_none()
        };
        let done = |world: &Self| answered(world) && world.to_replace.is_empty() && !world.is_swapping();
        self.run_until(|world| done(world) || world.now >= end)?;
        ensure!(
            answered(self),
            "not everything is answered: tickets {}, clients {:?}, fresh {:?}",
            self.tickets.len(),
            self.clients,
            self.waits_for_fresh()
        );
        ensure!(done(self), "voters that lost their disks are not replaced: {:?}", self.to_replace);
        let end = if self.plan.mix == Mix::Links { LINKS_END_NS } else { self.now + CONVERGENCE_NS };
        self.run_until(|world| world.now >= end || (world.now % MS < 100 * US && world.converged().is_ok()))?;
        self.converged()
    }

    /// All logs are equal and there is one token.
    fn converged(&self) -> Check {
        let end = self.checker.end;
        let mut epochs = Vec::new();
        let removed = |node: u16| self.alive().any(|(_, replica)| replica.is_removed(self.nodes[&node].disk.uuid));
        for (node, replica) in self.alive().filter(|(node, _)| !removed(*node)) {
            let (last, disk, applied) = (replica.log().last_seq(), replica.status().durable, replica.applied());
            ensure!(
                (last, disk, applied) == (end, end, end),
                "node {node} is at {last}, on disk {disk}, applied {applied}; the history ends at {end}: {replica:?}"
            );
            epochs.push(replica.promised());
        }
        ensure!(epochs.windows(2).all(|two| two[0] == two[1]), "not all are in one epoch: {epochs:?}");
        if !self.nodes[&1].config.rotate {
            let holders = self.alive().filter(|(node, replica)| !removed(*node) && replica.token().is_some()).count();
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

    /// Whose process an event needs.
    fn actor(event: &Event) -> Option<u16> {
        match event {
            Event::Message { to, .. }
            | Event::Beat { to, .. }
            | Event::Hello { to, .. }
            | Event::HelloOk { to, .. } => Some(*to),
            Event::Down { node, .. }
            | Event::Turn { node, .. }
            | Event::Timer { node, .. }
            | Event::Notice { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn step(&mut self, event: Event) -> Check {
        if let Some(until) = Self::actor(&event).map(|node| self.nodes[&node].paused_until)
            && until > self.now
        {
            // It stays in the socket's buffer, in order.
            self.schedule(until - self.now, event);
            return Ok(());
        }
        match event {
            Event::Message { from, to, conn, message } => {
                if self.sees(to, from, conn) {
                    self.trace(|| format!("{from} -> {to} {message:?}"));
                    self.input(to, Input::Message { node: from, message });
                }
            }
            Event::Beat { from, to, number, asks, beat } => {
                self.input(to, Input::Beat { node: from, number, beat });
                if asks {
                    self.send_beat_out_of_turn(to, from, false);
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
            Event::Synced { node, boot, count } if self.boot(node) == Some(boot) => self.on_synced(node, boot, count),
            Event::Notice { node, boot, notice } if self.boot(node) == Some(boot) => {
                self.trace(|| format!("{node} synced {notice:?}"));
                let input = match notice {
                    Notice::Durable { epoch, seq, hash } => Input::Durable { epoch, seq, hash },
                    Notice::Vote(vote) => Input::VoteDurable(vote),
                };
                self.input(node, input);
            }
            Event::Turn { .. } | Event::Timer { .. } | Event::Synced { .. } | Event::Notice { .. } => {}
            Event::Client { client } => self.on_client(client),
            Event::Restart { node } if self.nodes[&node].replica.is_none() => self.restart(node),
            Event::Restart { .. } => {}
            Event::Heal { partition } => self.end_partition(partition),
            Event::Operator => self.on_operator(),
            Event::Mishap { node } => return self.mishap(node),
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
        // What is written down is known to the checker before what follows from it.
        let (writes, rest): (Vec<_>, Vec<_>) =
            outputs.into_iter().partition(|output| matches!(output, Output::Append { .. } | Output::Vote(_)));
        self.act(node, writes)?;
        self.check(node)?;
        self.act(node, rest)
    }

    fn act(&mut self, node: u16, outputs: Vec<Output>) -> Check {
        for output in outputs {
            match output {
                Output::Send { to: Target::Node(to), message } => self.send(node, to, message)?,
                Output::Send { to: Target::All, message } => {
                    let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
                    for to in others {
                        self.send(node, to, message.clone())?;
                    }
                }
                Output::Beat(beat) => self.send_beats(node, &beat),
                Output::Notice(Heed::Probe(to)) => self.send_beat_out_of_turn(node, to, true),
                Output::Notice(Heed::Suspect(of)) => self.check_suspicion(node, of)?,
                Output::Notice(Heed::Trust(_)) => {}
                Output::Append { epoch, batch } => {
                    if let Some(replica) = &self.nodes[&node].replica
                        && self.checker.on_append(node, &batch, replica, &self.nodes[&node].disk)?
                    {
                        self.count_configuration(&batch);
                        self.maybe_mishap(node, &batch);
                    }
                    self.write(node, Item::Append { epoch, batch });
                }
                Output::Vote(vote) => self.write(node, Item::Vote(vote)),
                Output::ReadLog { node: to, from_seq, upto } => {
                    let log = &self.nodes[&node].disk.log;
                    let held = log.iter().filter(|b| b.header().first_seq >= from_seq && b.last_seq() <= upto);
                    let batches: Vec<_> = held.take(20).cloned().collect();
                    let whole = batches.first().is_some_and(|batch| batch.header().first_seq == from_seq);
                    let batches = if whole { batches } else { Vec::new() };
                    self.input(node, Input::LogRead { node: to, batches });
                }
                Output::NeedSnapshot { node: from } => self.copy_snapshot(from, node),
                Output::Done(done) => self.on_done(done)?,
                Output::Refused { ticket, why } => self.on_refused(ticket, why)?,
                Output::Unknown { ticket } => self.on_unknown(ticket)?,
                Output::Fresh { ticket, seq } => self.on_fresh(node, ticket, seq)?,
                Output::Fatal(why) => return Err(format!("node {node} must stop: {why}")),
            }
        }
        Ok(())
    }

    /// Whoever did not run must read what came meanwhile before it accuses anyone.
    fn check_suspicion(&mut self, node: u16, of: u16) -> Check {
        self.trace(|| format!("{node} suspects {of}"));
        self.summary.rare.suspicions += 1;
        let Node { paused_at, paused_until, .. } = self.nodes[&node];
        let was_stopped = paused_until - paused_at > 2 * LATE_NS && self.now >= paused_until;
        let just_woke = was_stopped && self.now - paused_until < GRACE_NS * 9 / 10;
        ensure!(!just_woke, "{node} did not run until a moment ago, and accuses {of} of silence");
        Ok(())
    }

    fn check(&mut self, node: u16) -> Check {
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        let Some(replica) = &state.replica else { return Ok(()) };
        if let Some(token) = replica.token() {
            self.checker.on_holder(token.epoch, node, state.config.boot_nonce, token.hop)?;
        }
        self.checker.on_turn(node, &mut state.seen, replica, &state.disk, &state.config)?;
        let (status, rare) = (replica.status(), &mut self.summary.rare);
        rare.learners_promoted += u64::from(status.voter && !state.voter);
        rare.votes_withheld += u64::from(status.withheld && !state.withheld);
        rare.votes_given_back += u64::from(!status.withheld && state.withheld);
        rare.configurations_undone += u64::from(status.config_id < state.config_id);
        (state.voter, state.withheld, state.config_id) = (status.voter, status.withheld, status.config_id);
        let mut holders: Vec<_> = self.alive().filter_map(|(_, replica)| replica.token().map(|t| t.epoch)).collect();
        holders.sort_unstable();
        ensure!(holders.windows(2).all(|two| two[0] != two[1]), "I5: two hold the token of one epoch: {holders:?}");
        Ok(())
    }

    // The disk: one group outstanding, its notice late by a random time.

    fn write(&mut self, node: u16, item: Item) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.disk.queue.push_back(item);
        }
        self.sync(node);
    }

    fn sync(&mut self, node: u16) {
        let (takes, group) = (self.upto(self.pace.sync_ns), self.upto(8) as usize + 1);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        if state.disk.syncing || state.disk.queue.is_empty() {
            return;
        }
        state.disk.syncing = true;
        let count = group.min(state.disk.queue.len());
        let boot = state.config.boot_nonce;
        self.schedule(takes, Event::Synced { node, boot, count });
    }

    fn on_synced(&mut self, node: u16, boot: u64, count: usize) {
        let late = self.upto(self.pace.turn_ns);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        state.disk.syncing = false;
        let notices = state.disk.sync(count);
        self.checker.on_platter(state.disk.uuid, &state.disk.log);
        let at = (self.now + late).max(state.notice_at);
        state.notice_at = at;
        for notice in notices {
            // In order: equal times keep the order in which they were scheduled.
            self.schedule(at - self.now, Event::Notice { node, boot, notice });
        }
        self.sync(node);
    }

    /// `to` is too far behind for any log: it takes a copy of the state of `from`.
    fn copy_snapshot(&mut self, from: u16, to: u16) {
        let now = self.clock();
        let Some(snapshot) = self.snapshot_of(from) else { return };
        let Some(state) = self.nodes.get_mut(&to) else { return };
        let Some(replica) = &mut state.replica else { return };
        let Snapshot { machine, sessions, at } = snapshot.clone();
        let before_install = !replica.installed();
        let base = at.base;
        if replica.install_snapshot(now, machine, sessions, at) {
            let epoch = replica.promised();
            self.summary.snapshots += 1;
            self.summary.rare.snapshots_before_install += u64::from(before_install);
            // Whatever is still on its way to the disk lies below.
            state.disk.queue.retain(|item| matches!(item, Item::Vote(_)));
            state.disk.log.clear();
            state.disk.snapshot = Some(snapshot);
            state.seen.committed = 0;
            self.write(to, Item::Restart { epoch, base });
            self.trace(|| format!("{to} takes a snapshot of {from}"));
            self.input(to, Input::DiskFull(false));
        }
    }

    fn snapshot_of(&self, node: u16) -> Option<Snapshot> {
        let state = self.nodes.get(&node)?;
        let replica = state.replica.as_ref()?;
        let at = replica.checkpoint()?;
        // Only what is on the disk: a snapshot must not know more than the log beside it. By the replica's own word: what
        // the disk holds there may be what is being superseded.
        let durable = replica.status().durable >= at.base.end.seq;
        durable.then(|| Snapshot { machine: replica.machine().clone(), sessions: replica.sessions().clone(), at })
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
        if self.pace.fresh > 0 && self.upto(100) < self.pace.fresh {
            self.ask_fresh();
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
        self.tickets
            .insert(ticket, Ticket { node, client: Some(client), counter, names: None, answered_before, deadline_ns });
        self.input(node, Input::Propose(Proposal { ticket, kind, body, deadline_ns }));
    }

    /// Some client asks some replica for a fresh read.
    fn ask_fresh(&mut self) {
        let nodes: Vec<u16> = self.alive().map(|(node, _)| node).collect();
        if nodes.is_empty() {
            return;
        }
        let node = nodes[self.upto(nodes.len() as u64) as usize];
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.trace(|| format!("a fresh read at {node}, ticket {ticket}"));
        self.fresh.insert((node, ticket), self.checker.answered_seq);
        self.input(node, Input::Barrier { ticket });
    }

    /// I11: what a replica answers fresh reads with is no earlier than whatever was answered before they were asked.
    fn on_fresh(&mut self, node: u16, ticket: u64, seq: u64) -> Check {
        self.trace(|| format!("{node} is fresh up to ticket {ticket}: seq {seq}"));
        let Some(applied) = self.replica(node).map(Replica::applied) else { return Ok(()) };
        ensure!(applied >= seq, "node {node} has applied {applied}, which it calls fresh from {seq} on");
        let done: Vec<u64> = self.fresh.range((node, 0)..=(node, ticket)).map(|((_, ticket), _)| *ticket).collect();
        for ticket in done {
            let answered = self.fresh.remove(&(node, ticket)).unwrap_or(0);
            ensure!(
                applied >= answered,
                "I11: node {node} has applied {applied} and calls that fresh for ticket {ticket}, asked after {answered}"
            );
        }
        self.checker.answered_seq = self.checker.answered_seq.max(applied);
        Ok(())
    }

    /// A fresh read that a replica which is part of the cluster has not answered.
    fn waits_for_fresh(&self) -> Option<(u16, u64)> {
        let removed = |node: u16| self.alive().any(|(_, replica)| replica.is_removed(self.nodes[&node].disk.uuid));
        self.fresh.keys().copied().find(|(node, _)| !removed(*node))
    }

    fn propose_change(&mut self, node: u16, change: Change) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.trace(|| format!("a change of the voters at {node}, ticket {ticket}: {change:?}"));
        let answered_before = self.checker.answered_seq;
        let Change::Replace { new, .. } = &change;
        let names = Some(new.log_uuid);
        let entry = Ticket { node, client: None, counter: None, names, answered_before, deadline_ns: u64::MAX };
        self.tickets.insert(ticket, entry);
        self.input(node, Input::Change { ticket, change });
    }

    fn on_done(&mut self, done: pygmy_ring::Completion) -> Check {
        let Some(ticket) = self.tickets.remove(&done.ticket) else {
            return Err(format!("ticket {} is answered twice", done.ticket));
        };
        self.trace(|| format!("ticket {} done at {}", done.ticket, done.seq));
        self.checker.on_done(done.seq, ticket.answered_before)?;
        match (ticket.client, ticket.counter) {
            (Some(client), Some(counter)) => self.clients[client].on_answer(counter, done.result, &mut self.checker),
            (Some(client), None) => {
                self.clients[client].on_registered(done.seq);
                Ok(())
            }
            (None, _) => {
                self.summary.changes += 1;
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
        let Some(client) = ticket.client else { return Ok(()) };
        if let Some(counter) = ticket.counter {
            self.checker.on_handed_back((client as u64, counter));
        }
        let again = self.now + self.upto(20 * MS);
        self.clients[client].on_handed_back(ticket.counter, again);
        Ok(())
    }

    /// It may take effect or not: the client asks again with the same id.
    fn on_unknown(&mut self, number: u64) -> Check {
        let Some(ticket) = self.tickets.remove(&number) else {
            return Err(format!("ticket {number} is answered twice"));
        };
        self.trace(|| format!("ticket {number}: outcome unknown"));
        let holds = self.replica(ticket.node).is_some_and(|replica| replica.token().is_some());
        self.summary.rare.deaf_holders += u64::from(holds);
        if let Some(client) = ticket.client {
            let again = self.now + self.upto(20 * MS);
            self.clients[client].on_handed_back(ticket.counter, again);
        }
        Ok(())
    }

    fn is_catalog(&self, node: u16) -> bool {
        self.nodes[&node].config.is_catalog()
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary { entries: self.checker.end, ..self.summary };
        for (_, replica) in self.alive() {
            add(&mut summary.counters, &replica.counters());
        }
        summary
    }
}

/// Adds up what several replicas counted.
pub fn add(sum: &mut Counters, part: &Counters) {
    macro_rules! each {
        ($($field:ident),*) => { $(sum.$field += part.$field;)* };
    }
    each!(
        batches_ordered,
        tokens_received,
        tokens_resent,
        tokens_refused,
        batches_early,
        fetches_sent,
        handed_back,
        duplicates_answered,
        epochs_started,
        epochs_installed,
        prevotes_asked,
        promises,
        truncations,
        unknown,
        configurations,
        barrier_rounds,
        barriers_answered,
        barriers_repeated
    );
}
