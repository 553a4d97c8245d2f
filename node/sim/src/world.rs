//! The whole: nodes, network, clients and checkers, stepped from one agenda.

use std::collections::BTreeMap;

use bytes::Bytes;
use pygmy_node::machine::{CloseReason, Now};
use pygmy_node::node::Node;
use pygmy_node::settings::{ClusterSettings, NodeSettings, Settings, SnapshotPolicy, TokenMode};
use pygmy_node::store::Store;
use pygmy_proto::Kind;
use pygmy_proto::datagram::{self, DatagramKey};
use pygmy_proto::frame::Frame;
use pygmy_proto::message::{FeedOk, Role};
use pygmy_ring::{ConfigError, Limits, Recovered};

use crate::chance::Chance;
use crate::check::promises::Speaker;
use crate::check::{Check, Checker, Violation, Who};
use crate::client::Client;
use crate::disk::{Disk, End, Write};
use crate::events::{Agenda, Event};
use crate::faults::Doom;
use crate::host::{Clocks, Effects, Item, Process, frames};
use crate::lives::{Grudges, Ran};
use crate::mistake::Mistake;
use crate::net::{Net, Owner};
use crate::operator::Operator;
use crate::plan::{MS, Plan, SEC, US};
use crate::rare::Rare;
use crate::schedule::{Reduction, Schedule};
use crate::settle::Activity;
use crate::trace::Trace;
use crate::wires::place_of;
use crate::workload::Workload;

/// A run of more events than this goes nowhere.
const EVENTS_MAX: u64 = 3_000_000;
/// So many answers of a thousand are compared with what a crash at that moment would leave.
const PROBES_PERMILLE: u64 = 20;
/// Microseconds since 1970 at which simulated wall clocks begin.
const WALL_BASE_US: u64 = 1_800_000_000_000_000;

/// A place for a process, and what outlives it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: u16,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) disk: Disk,
    /// Its syncs take long before this.
    pub(crate) slow_until: u64,
    /// Processes so far.
    starts: u64,
    pub(crate) process: Option<Process>,
    /// When its process ran.
    pub(crate) ran: Ran,
    /// When the disk's writer was busy last, when it is planned to do something while nothing waits.
    pub(crate) rests_after: Option<u64>,
    /// A learner that has caught up was counted.
    caught_up: bool,
    /// It never comes back.
    pub(crate) gone: bool,
    /// What it last read of the cluster: who was replaced is not told of it by any file.
    cluster: ClusterSettings,
}

impl Host {
    /// A place with a new disk, whose log is called `uuid`.
    pub(crate) fn new(node: &NodeSettings, name: String, disk: Disk, cluster: ClusterSettings) -> Self {
        Self {
            number: node.number,
            name,
            role: node.role,
            disk,
            slow_until: 0,
            starts: 0,
            process: None,
            ran: Ran::default(),
            rests_after: None,
            caught_up: false,
            gone: false,
            cluster,
        }
    }

    /// Numbers of those that it connects to, by what it read last of the cluster.
    pub(crate) fn dials(&self) -> Vec<u16> {
        self.cluster.dials(self.number)
    }

    /// Whether it holds a copy of the log.
    pub(crate) fn is_replica(&self) -> bool {
        matches!(self.role, Role::Order | Role::Catalog)
    }
}

/// A simulated world.
#[derive(Debug)]
pub struct World {
    /// Simulated nanoseconds.
    pub at: u64,
    /// The trace.
    pub trace: Trace,
    /// Rare states reached.
    pub rare: Rare,
    pub(crate) plan: Plan,
    pub(crate) schedule: Schedule,
    pub(crate) chance: Chance,
    pub(crate) agenda: Agenda,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    pub(crate) checker: Checker,
    pub(crate) calm: bool,
    /// As the file says that all nodes read when they start.
    pub(crate) cluster: ClusterSettings,
    pub(crate) operator: Operator,
    /// Who asks next for promises dies.
    pub(crate) doom: Option<Doom>,
    /// This front is stopped when it next asks for a barrier.
    pub(crate) stops_asking: Option<usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) workload: Workload,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) grudges: Grudges,
    pub(crate) key: DatagramKey,
    /// Partitions so far.
    pub(crate) cuts: u64,
    pub(crate) activity: Activity,
    boots: u64,
}

impl World {
    /// The world of a seed, before anything has happened. Some of its faults may be left out.
    pub fn new(seed: u64, mistake: Option<Mistake>, trace: Trace, reduction: &Reduction) -> Self {
        let mut chance = Chance::new(seed);
        let mut plan = Plan::draw(&mut chance);
        let schedule = Schedule::draw(&plan, &mut chance);
        reduction.apply(&mut plan);
        let cluster = cluster_of(&plan, &mut chance);
        let hosts = cluster.nodes.iter().map(|node| {
            let disk = Disk::format(node.log_uuid, mistake);
            Host::new(node, node.name.clone(), disk, cluster.clone())
        });
        let mut world = Self {
            at: 0,
            trace,
            rare: Rare::default(),
            hosts: hosts.collect(),
            clients: (0..plan.clients as usize).map(|index| Client::new(index, &plan)).collect(),
            workload: Workload::new(plan.books),
            checker: Checker::new(&cluster),
            operator: Operator::default(),
            doom: None,
            stops_asking: None,
            agenda: Agenda::default(),
            net: Net::default(),
            grudges: Grudges::new(),
            calm: false,
            key: DatagramKey::new(&cluster.id, &cluster.key),
            cluster,
            mistake,
            cuts: 0,
            activity: Activity::default(),
            boots: 0,
            plan,
            schedule,
            chance,
        };
        world.plan_faults(&reduction.faults);
        world
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn run(&mut self) -> Check {
        let plan = format!("{:?}", self.plan);
        self.trace.note(0, 0, plan.as_bytes(), || plan.clone());
        for host in 0..self.hosts.len() {
            let at = self.chance.below(20 * MS);
            self.agenda.plan(at, Event::Start { host });
        }
        for client in 0..self.clients.len() {
            self.wake_client(client, MS);
        }
        while self.at < self.plan.chaos && !self.clients.iter().all(Client::has_issued_all) {
            self.step()?;
        }
        self.heal(self.cuts)?;
        self.end_faults();
        self.settle()?;
        self.watch_idle()?;
        self.check_rest()
    }

    /// The counters of a replica whose process ends.
    pub(crate) fn count_ring(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        if let Some(front) = process.node.front_status(process.clock(self.at)) {
            self.rare.add_front(&front);
        }
        if let Some(replica) = process.node.replica() {
            let counters = replica.ring().counters();
            self.rare.epochs_by_learners += if self.votes(host) { 0 } else { counters.epochs_started };
            self.rare.add_ring(counters);
        }
    }

    /// The next event.
    pub(crate) fn step(&mut self) -> Check {
        let Some((at, event)) = self.agenda.pop() else {
            return Err(Violation { invariant: "liveness", detail: "nothing is planned any more".to_owned() });
        };
        self.at = at.max(self.at);
        if self.trace.events() > EVENTS_MAX {
            return Err(Violation { invariant: "liveness", detail: format!("{EVENTS_MAX} events and no end") });
        }
        match event {
            Event::Turn { host, boot } => self.on_turn(host, boot)?,
            Event::Bytes { conn, to, .. } | Event::Ended { conn, to } => self.on_stream(conn, to, event)?,
            Event::Datagram { from, host, bytes } => self.on_datagram(from, host, bytes),
            Event::Beat { host, boot } => self.on_thread(host, boot),
            Event::Noticed { conn, to } => self.on_gone(conn, to, CloseReason::Broken),
            Event::Synced { host, boot } => self.on_synced(host, boot)?,
            Event::Rest { host, boot } => self.on_rest(host, boot)?,
            Event::Taken { host, boot } => self.on_snapshot(host, boot)?,
            Event::Job { host, boot, lane } => self.on_job(host, boot, lane)?,
            Event::Dial { host, boot, node } => self.on_dial(host, boot, node),
            Event::Arrive { host, boot, node } => self.on_arrive(host, boot, node),
            Event::ClientArrive { client, front } => self.on_client_arrive(client, front),
            Event::Break { conn } => self.break_conn(conn),
            Event::Client { client } => self.on_client(client),
            Event::Read { host, boot, node, batches } => self.give(host, boot, Item::Read(node, batches)),
            Event::Room { host } => self.hosts[host].disk.make_room(),
            Event::Force { host, boot } => self.on_force(host, boot),
            Event::Doom { host, boot, end } => self.on_doom(host, boot, end),
            Event::Heal { cut } => self.heal(cut)?,
            Event::Fault(index) => self.on_fault(index)?,
            Event::Operator => self.on_operator(),
            Event::Start { host } => self.start(host)?,
        }
        Ok(())
    }

    /// The process of a host, if it is still this one.
    pub(crate) fn process(&mut self, host: usize, boot: u64) -> Option<&mut Process> {
        self.hosts[host].process.as_mut().filter(|process| process.boot == boot)
    }

    // --- nodes

    /// Where the process with this number has its place.
    pub(crate) fn host_of(&self, number: u16) -> Option<usize> {
        self.hosts.iter().position(|host| host.number == number)
    }

    /// Whether its log counts, by the latest configuration that is committed.
    pub(crate) fn votes(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        host.is_replica() && self.checker.is_voter(host.disk.uuid())
    }

    /// Whether its log was removed from the voters, by a configuration that is committed.
    pub(crate) fn is_removed(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        host.is_replica() && self.checker.is_removed(host.disk.uuid())
    }

    /// Whether it votes, can come back and has all that it ever acknowledged.
    pub(crate) fn is_whole(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        self.votes(index) && !host.gone && host.disk.is_whole()
    }

    fn start(&mut self, index: usize) -> Check {
        if self.hosts[index].process.is_some() || self.hosts[index].gone || self.is_done_with(index) {
            return Ok(());
        }
        self.boots += 1;
        let boot = self.boots;
        let skew = self.plan.skew_ppm;
        let clocks = Clocks {
            set_at: self.at,
            mono_ns: self.chance.below(1_000 * SEC),
            wall_us: WALL_BASE_US + self.at / US + self.chance.below(10_000_000),
            rate: self.chance.between(MS - skew, MS + skew),
        };
        let boot_nonce = self.chance.word() | 1;
        let Some(recovered) = self.open_disk(index)? else { return Ok(()) };
        let removed = self.is_removed(index);
        self.rare.removed_started += u64::from(removed);
        let host = &mut self.hosts[index];
        host.starts += 1;
        host.caught_up = false;
        host.rests_after = None;
        let first = host.starts == 1;
        let address = format!("{}:1", host.name);
        if !removed {
            host.cluster = self.cluster.clone();
        }
        let settings = Settings {
            cluster: host.cluster.clone(),
            me: host.number,
            address,
            log_uuid: host.disk.uuid(),
            boot_nonce,
        };
        let mut node = make_node(settings, clocks.at(self.at), recovered, self.mistake)
            .map_err(|error| Violation { invariant: "start", detail: error.to_string() })?;
        if let Some((lag_max, lag_over, applied_per_turn_max)) = self.plan.lag {
            node.limit_ring(Limits { lag_max, lag_over, applied_per_turn_max, ..Limits::default() });
        }
        if let Some(window) = self.plan.window {
            node.limit_window(window);
        }
        if let Some(log_bytes_min) = self.plan.snapshot_bytes {
            let newest_bytes = host.disk.newest_bytes();
            node.keep_snapshots(SnapshotPolicy { log_bytes_min, newest_bytes, ..SnapshotPolicy::default() });
        }
        host.process = Some(Process::new(boot, node, clocks));
        host.ran.start(self.at);
        let name = host.name.clone();
        self.trace.note(self.at, 1, &[index as u8], || format!("{name} starts{}", if first { "" } else { " again" }));
        for node in self.hosts[index].dials() {
            let at = self.at + self.chance.below(MS);
            self.agenda.plan(at, Event::Dial { host: index, boot, node });
        }
        // Timers may be due from the start.
        self.plan_turn(index, self.at + US);
        self.plan_rest(index);
        Ok(())
    }

    /// The disk of a host is lost: it gets another one, whose log has another name.
    pub(crate) fn wipe(&mut self, index: usize) {
        let keeps_name = matches!(
            self.mistake,
            Some(Mistake::VoteAfterAmnesia | Mistake::Ring(pygmy_ring::Mistake::EmptyDiskVotes))
        );
        let fresh = self.chance.uuid();
        let host = &mut self.hosts[index];
        host.disk = Disk::format(if keeps_name { host.disk.uuid() } else { fresh }, self.mistake);
    }

    /// Puts something before a process.
    pub(crate) fn give(&mut self, host: usize, boot: u64, item: Item) {
        let at = self.at + self.chance.below(self.plan.turn_delay + 1);
        if let Some(process) = self.process(host, boot) {
            process.inbox.push_back(item);
            self.plan_turn(host, at);
        }
    }

    /// Plans a turn at `at` unless an earlier one is planned.
    pub(crate) fn plan_turn(&mut self, host: usize, at: u64) {
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let at = at.max(process.paused_until);
        if process.turn_at.is_none_or(|planned| planned > at) {
            process.turn_at = Some(at);
            let boot = process.boot;
            self.agenda.plan(at, Event::Turn { host, boot });
        }
    }

    fn on_turn(&mut self, host: usize, boot: u64) -> Check {
        let (at, mistake) = (self.at, self.mistake);
        let budget = self.chance.between(1, 12) as usize;
        let Some(process) = self.process(host, boot).filter(|process| process.turn_at == Some(at)) else {
            return Ok(());
        };
        process.turn_at = None;
        if process.paused_until > at {
            self.plan_turn(host, at);
            return Ok(());
        }
        let before = process.just_woke(at).then(|| process.node.suspicions());
        let mut effects = process.turn(at, budget, mistake);
        let accuses = before.is_some_and(|before| process.node.suspicions() > before);
        let (more, timeout) = (!process.inbox.is_empty(), process.next_timeout());
        self.hosts[host].ran.turn(at);
        self.activity.turns += 1;
        self.rare.shared_turns += u64::from(effects.inputs > 1);
        self.trace_turn(host, &effects);
        if accuses {
            let detail = format!("{} did not run until a moment ago, and accuses others", self.hosts[host].name);
            return Err(Violation { invariant: "detector", detail });
        }
        if let Some(why) = effects.fatal {
            return Err(Violation { invariant: "fatal", detail: format!("{}: {why}", self.hosts[host].name) });
        }
        self.write_down(host, &effects)?;
        self.begin_work(host, &mut effects);
        self.check_replica(host)?;
        self.heal_disk(host);
        self.check_sent(host, &effects)?;
        self.check_talk(host, &effects)?;
        self.check_lives(host)?;
        self.send_out(host, boot, &effects);
        if effects.left {
            self.on_left(host, effects.removed);
            return Ok(());
        }
        if more {
            self.plan_turn(host, at + US);
        }
        if let Some(timeout) = timeout.filter(|_| mistake != Some(Mistake::SkipTimers)) {
            // Timers fire late, never early.
            let late = self.chance.below(self.plan.turn_delay + 1);
            self.plan_turn(host, timeout.max(at + US) + late);
        }
        Ok(())
    }

    fn trace_turn(&mut self, host: usize, effects: &Effects) {
        let name = &self.hosts[host].name;
        let mut all = Vec::new();
        for (conn, bytes) in &effects.writes {
            all.extend_from_slice(&conn.0.to_le_bytes());
            all.extend_from_slice(bytes);
        }
        for (_, bytes) in &effects.datagrams {
            all.extend_from_slice(bytes);
        }
        let net = &self.net;
        let hosts = &self.hosts;
        self.trace.note(self.at, 2 + host as u64, &all, || {
            let mut line = format!("{name} turns: {} in", effects.inputs);
            for write in &effects.disk {
                match write {
                    Write::Append { batch, .. } => {
                        line += &format!(", logs {}..{}", batch.header().first_seq, batch.last_seq());
                    }
                    Write::Vote(vote) => line += &format!(", votes {}", vote.promised.counter),
                    Write::Restart { mark, .. } => line += &format!(", begins its log anew behind {}", mark.seq),
                    Write::Cut(seq) => line += &format!(", cuts its log below {seq}"),
                }
            }
            if !effects.datagrams.is_empty() {
                line += ", beats";
            }
            for (conn, bytes) in &effects.writes {
                let kinds: Vec<String> = frames(bytes)
                    .map(|frame| frame.kind().map_or_else(|| "?".to_owned(), |kind| format!("{kind:?}")))
                    .collect();
                let (index, end) = place_of(*conn);
                let to = match net.conn(index).ends[1 - end].owner {
                    Owner::Host { index, .. } => hosts[index].name.clone(),
                    Owner::Client { index } => format!("client-{index}"),
                    Owner::Operator => "operator".to_owned(),
                };
                line += &format!(", {to} < {}", kinds.join(" "));
            }
            for (conn, reason) in &effects.closes {
                line += &format!(", closes {} ({reason:?})", place_of(*conn).0);
            }
            line
        });
    }

    pub(crate) fn who(&self, host: usize) -> Who<'_> {
        let Host { name, number, process, .. } = &self.hosts[host];
        Who { name, number: *number, boot: process.as_ref().map_or(0, |process| process.boot) }
    }

    fn check_replica(&mut self, index: usize) -> Check {
        let votes = self.votes(index);
        let host = &self.hosts[index];
        let Some(process) = &host.process else { return Ok(()) };
        let Some(replica) = process.node.replica() else { return Ok(()) };
        let who = Who { name: &host.name, number: host.number, boot: process.boot };
        self.checker.on_replica(who, replica)?;
        let caught_up = !votes && !host.caught_up && replica.applied() > 0 && replica.applied() == self.checker.upto();
        self.rare.learners_caught_up += u64::from(caught_up);
        if let Some(token) = replica.ring().token() {
            let (epoch, hop) = (token.epoch, token.hop);
            self.checker.on_token(who, epoch, hop)?;
            self.rare.learners_held_token += u64::from(!votes);
            let status = replica.ring().status();
            self.rare.deaf_holders += u64::from(status.voters_heard <= status.voters / 2);
            let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
            let tokens = processes.filter_map(|process| process.node.replica()?.ring().token());
            if tokens.filter(|token| token.epoch == epoch).count() > 1 {
                let detail = format!("{} and another node hold the token of {epoch:?} at once", host.name);
                return Err(Violation { invariant: "I5", detail });
            }
        }
        self.hosts[index].caught_up |= caught_up;
        Ok(())
    }

    /// A disk that was harmed counts again when its log has got back all that is committed, and its vote.
    fn heal_disk(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(ring) = host.process.as_ref().and_then(|process| Some(process.node.replica()?.ring())) else { return };
        let upto = self.checker.upto();
        let has_all = host.disk.end_seq() >= upto && ring.committed() >= upto;
        if host.disk.harm_is_seen() && has_all && !host.disk.owes() && !ring.status().withheld {
            host.disk.heal();
            self.rare.disks_healed += 1;
        }
    }

    /// What a turn says for the log below it is true of the disk.
    fn check_sent(&mut self, index: usize, effects: &Effects) -> Check {
        let host = &self.hosts[index];
        let (mut answers, mut asks, mut asks_for_floor) = (false, false, false);
        for (_, bytes) in &effects.writes {
            for frame in frames(bytes) {
                self.rare.promises_refused += u64::from(frame.kind() == Some(Kind::Reject));
                answers |= matches!(frame.kind(), Some(Kind::Ack | Kind::Promise));
                self.rare.count_peer_frame(&frame);
                asks |= frame.kind() == Some(Kind::Prepare);
                asks_for_floor |= frame.kind() == Some(Kind::Floor);
                self.checker.on_sent(&host.name, &host.disk, &frame)?;
                feeds_what_it_has(host, &frame)?;
            }
        }
        let mut before: Option<&Bytes> = None;
        for (_, bytes) in &effects.datagrams {
            // The regular ones of a turn are all the same.
            if before.replace(bytes) == Some(bytes) {
                continue;
            }
            match datagram::read(bytes, &self.key) {
                Ok((_, heartbeat)) => {
                    if let Some(beat) = &heartbeat.replica {
                        self.checker.on_beat(&host.name, &host.disk, beat)?;
                    }
                }
                Err(error) => {
                    return Err(Violation { invariant: "framing", detail: format!("{}: {error}", host.name) });
                }
            }
        }
        if asks_for_floor {
            self.pause_who_asked(index);
        }
        if asks {
            self.doom_coordinator(index, self.who(index).boot);
        }
        if answers && self.chance.permille(PROBES_PERMILLE) { self.probe(index) } else { Ok(()) }
    }

    /// What a front says to clients keeps what it promises.
    fn check_talk(&mut self, index: usize, effects: &Effects) -> Check {
        let host = &self.hosts[index];
        let Some(process) = &host.process else { return Ok(()) };
        let boot = process.boot;
        let by = Speaker { name: &host.name, boot, clocks: process.clocks, at: self.at };
        for talk in &effects.talk {
            for frame in frames(&talk.bytes) {
                if talk.said {
                    self.checker.on_said(by, talk.conn, &frame, &mut self.rare)?;
                } else {
                    self.checker.on_asked_for(boot, talk.conn, &frame);
                }
            }
        }
        Ok(())
    }

    /// A node has left in order: what it sent goes out, then it is gone, and comes back later with its disk.
    fn on_left(&mut self, host: usize, refused: bool) {
        self.count_removed(host, refused);
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 200 + host as u64, &[], || format!("{name} has left"));
        self.count_ring(host);
        let Some(process) = self.hosts[host].process.take() else { return };
        let owner = Owner::Host { index: host, boot: process.boot };
        for (conn, end) in self.ends_of(owner) {
            self.close(conn, end);
        }
        self.end_disk(host, End::Left);
        // Who is refused would be refused again.
        self.hosts[host].gone |= refused;
        self.plan_return(host);
    }

    pub(crate) fn clients_mut(&mut self) -> &mut [Client] {
        &mut self.clients
    }

    /// Clients by index, to look at.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }
}

/// A catalog's feed goes on behind what the catalog knows, or it would tell of the past as if it were news.
fn feeds_what_it_has(host: &Host, frame: &Frame<'_>) -> Check {
    let replica = host.process.as_ref().and_then(|process| process.node.replica());
    let (Some(Kind::FeedOk), Some(replica)) = (frame.kind(), replica) else { return Ok(()) };
    match frame.decode::<FeedOk>() {
        Ok(FeedOk { after }) if after > replica.applied() => {
            let detail = format!("{} feeds behind {after}, and has applied {}", host.name, replica.applied());
            Err(Violation { invariant: "feed", detail })
        }
        _ => Ok(()),
    }
}

fn cluster_of(plan: &Plan, chance: &mut Chance) -> ClusterSettings {
    let mut nodes: Vec<NodeSettings> = Vec::new();
    let mut counts: BTreeMap<&str, u16> = BTreeMap::new();
    for (role, count) in [(Role::Front, plan.fronts), (Role::Order, plan.orders), (Role::Catalog, plan.catalogs)] {
        for _ in 0..count {
            let place = counts.entry(role.name()).or_insert(0);
            *place += 1;
            let number = nodes.len() as u16 + 1;
            let name = format!("{}-{place}", role.name());
            let log_uuid = chance.uuid();
            nodes.push(NodeSettings { number, address: format!("{name}:1"), name, role, log_uuid });
        }
    }
    let token = if plan.rotate { TokenMode::Rotate } else { TokenMode::Demand };
    ClusterSettings { id: chance.uuid(), key: chance.uuid().to_vec(), token, cache_bytes: plan.cache_bytes, nodes }
}

#[cfg(feature = "mistakes")]
fn make_node(
    settings: Settings,
    now: Now,
    recovered: Recovered<Store>,
    mistake: Option<Mistake>,
) -> Result<Node, ConfigError> {
    match mistake {
        Some(Mistake::Ring(planted)) if settings.own().is_replica() => {
            Node::with_mistake(settings, now, recovered, planted)
        }
        Some(Mistake::Node(planted)) => {
            let mut node = Node::open(settings, now, recovered)?;
            node.plant(planted);
            Ok(node)
        }
        _ => Node::open(settings, now, recovered),
    }
}

#[cfg(not(feature = "mistakes"))]
fn make_node(
    settings: Settings,
    now: Now,
    recovered: Recovered<Store>,
    _: Option<Mistake>,
) -> Result<Node, ConfigError> {
    Node::open(settings, now, recovered)
}
