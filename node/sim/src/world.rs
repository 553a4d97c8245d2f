//! The whole: nodes, network, clients and checkers, stepped from one agenda.

use std::collections::BTreeMap;

use bytes::Bytes;
use pygmy_node::machine::{CloseReason, ConnId, Now};
use pygmy_node::node::Node;
use pygmy_node::settings::{ClusterSettings, NodeSettings, Settings, TokenMode};
use pygmy_proto::message::Role;

use crate::chance::Chance;
use crate::check::{Check, Checker, Violation};
use crate::client::{Act, Client, Lent};
use crate::events::{Agenda, Event};
use crate::host::{Effects, Item, Process, frames};
use crate::mistake::Mistake;
use crate::net::{Net, Owner};
use crate::plan::{MS, Plan, SEC, US};
use crate::rare::Rare;
use crate::trace::Trace;
use crate::workload::Workload;

/// After the faults have ended, everything must be answered and everyone agree within this.
const SETTLE_MAX: u64 = 60 * SEC;
/// Time for what nobody waits for any more to reach its deadline.
const GRACE: u64 = 1_500 * MS;
/// How long an idle cluster is watched.
const WATCH: u64 = SEC;
/// A run of more events than this goes nowhere.
const EVENTS_MAX: u64 = 3_000_000;
/// Microseconds since 1970 at which simulated wall clocks begin.
const WALL_BASE_US: u64 = 1_800_000_000_000_000;

/// A place for a process, and what outlives it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: u16,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The identity with which its log was born.
    born_uuid: [u8; 16],
    /// Processes so far.
    starts: u64,
    pub(crate) process: Option<Process>,
    /// A learner that has caught up was counted.
    caught_up: bool,
    /// It never comes back.
    pub(crate) gone: bool,
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
    pub(crate) chance: Chance,
    pub(crate) agenda: Agenda,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    pub(crate) checker: Checker,
    pub(crate) calm: bool,
    cluster: ClusterSettings,
    clients: Vec<Client>,
    workload: Workload,
    mistake: Option<Mistake>,
    boots: u64,
    turns: u64,
}

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64, mistake: Option<Mistake>, trace: Trace) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let cluster = cluster_of(&plan, &mut chance);
        let hosts = cluster.nodes.iter().map(|node| Host {
            number: node.number,
            name: node.name.clone(),
            role: node.role,
            born_uuid: node.log_uuid,
            starts: 0,
            process: None,
            caught_up: false,
            gone: false,
        });
        Self {
            at: 0,
            trace,
            rare: Rare::default(),
            hosts: hosts.collect(),
            clients: (0..plan.clients as usize).map(|index| Client::new(index, &plan)).collect(),
            workload: Workload::new(plan.books),
            checker: Checker::new(plan.majority()),
            agenda: Agenda::default(),
            net: Net::default(),
            calm: false,
            cluster,
            mistake,
            boots: 0,
            turns: 0,
            plan,
            chance,
        }
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
        self.plan_faults();
        while self.at < self.plan.chaos && !self.clients.iter().all(Client::has_issued_all) {
            self.step()?;
        }
        self.end_faults();
        self.settle()?;
        self.watch_idle()?;
        self.check_rest()
    }

    /// Everything pending is answered and all replicas agree, within a bounded time.
    fn settle(&mut self) -> Check {
        for client in &mut self.clients {
            client.stop_asking();
        }
        let until = self.at + SETTLE_MAX;
        while !self.is_settled() {
            if self.at > until || self.agenda.next_at().is_none() {
                return Err(Violation { invariant: "liveness", detail: self.what_hangs() });
            }
            self.step()?;
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let upto = self.checker.upto();
        self.clients.iter().all(Client::is_done)
            && self.hosts.iter().filter(|host| !host.gone).all(|host| {
                host.process.as_ref().is_some_and(|process| {
                    !process.leaving && process.node.replica().is_none_or(|replica| replica.applied() == upto)
                })
            })
    }

    fn what_hangs(&self) -> String {
        let mut lines: Vec<String> =
            self.clients.iter().filter(|client| !client.is_done()).map(Client::pending).collect();
        for host in &self.hosts {
            match &host.process {
                Some(process) => {
                    let ring = process.node.replica().map(|replica| replica.ring());
                    lines.push(format!("{} leaving: {} {ring:?}", host.name, process.leaving));
                }
                None => lines.push(format!("{} is down", host.name)),
            }
        }
        lines.join("; ")
    }

    /// A cluster without work does nothing.
    fn watch_idle(&mut self) -> Check {
        self.run_until(self.at + GRACE)?;
        let turns = self.turns;
        self.run_until(self.at + WATCH)?;
        let turns = self.turns - turns;
        // A rotating token makes two nodes turn at each pass and one at each rest, at most every millisecond.
        let allowed = if self.plan.rotate { 4 * WATCH / MS } else { 0 };
        if turns > allowed {
            let detail = format!("{turns} turns in an idle second, allowed are {allowed}");
            return Err(Violation { invariant: "idle", detail });
        }
        Ok(())
    }

    fn run_until(&mut self, until: u64) -> Check {
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.at = until;
        Ok(())
    }

    fn check_rest(&mut self) -> Check {
        self.checker.intents_once()?;
        for host in &self.hosts {
            let Some(process) = &host.process else { continue };
            self.checker.at_rest(&host.name, &process.node)?;
            let status = process.node.status(process.clock(self.at));
            let busy: u32 = status.jobs + status.links.iter().map(|link| link.in_flight).sum::<u32>();
            // A token that circles is always somewhere on its way.
            let waits = !self.plan.rotate && (process.buffered() > 0 || !process.inbox.is_empty());
            if busy > 0 || waits {
                let detail = format!("{} is idle and still has {busy} jobs: {status:?}", host.name);
                return Err(Violation { invariant: "I13", detail });
            }
        }
        for host in 0..self.hosts.len() {
            self.count_ring(host);
        }
        self.rare.sessions += self.checker.sessions() as u64;
        Ok(())
    }

    /// The counters of a replica whose process ends.
    pub(crate) fn count_ring(&mut self, host: usize) {
        if let Some(replica) = self.hosts[host].process.as_ref().and_then(|process| process.node.replica()) {
            self.rare.add_ring(replica.ring().counters());
        }
    }

    /// The next event.
    fn step(&mut self) -> Check {
        let Some((at, event)) = self.agenda.pop() else {
            return Err(Violation { invariant: "liveness", detail: "nothing is planned any more".to_owned() });
        };
        self.at = at.max(self.at);
        if self.trace.events() > EVENTS_MAX {
            return Err(Violation { invariant: "liveness", detail: format!("{EVENTS_MAX} events and no end") });
        }
        match event {
            Event::Turn { host, boot } => self.on_turn(host, boot)?,
            Event::Bytes { conn, to, bytes } => self.on_bytes(conn, to, bytes)?,
            Event::Ended { conn, to } => self.on_gone(conn, to, CloseReason::Ended),
            Event::Noticed { conn, to } => self.on_gone(conn, to, CloseReason::Broken),
            Event::Synced { host, boot } => self.on_synced(host, boot),
            Event::Dial { host, boot, node } => self.on_dial(host, boot, node),
            Event::Arrive { host, boot, node } => self.on_arrive(host, boot, node),
            Event::ClientArrive { client, front } => self.on_client_arrive(client, front),
            Event::Client { client } => self.on_client(client),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Start { host } => self.start(host)?,
        }
        Ok(())
    }

    /// The process of a host, if it is still this one.
    fn process(&mut self, host: usize, boot: u64) -> Option<&mut Process> {
        self.hosts[host].process.as_mut().filter(|process| process.boot == boot)
    }

    // --- nodes

    fn start(&mut self, index: usize) -> Check {
        if self.hosts[index].process.is_some() || self.hosts[index].gone {
            return Ok(());
        }
        self.boots += 1;
        let boot = self.boots;
        let host = &mut self.hosts[index];
        host.starts += 1;
        host.caught_up = false;
        let first = host.starts == 1;
        let keeps_identity = first || self.mistake == Some(Mistake::VoteAfterAmnesia);
        let log_uuid = if keeps_identity { host.born_uuid } else { self.chance.uuid() };
        let settings =
            Settings { cluster: self.cluster.clone(), me: host.number, log_uuid, boot_nonce: self.chance.word() | 1 };
        let mono_offset = self.chance.below(1_000 * SEC);
        let wall_base = WALL_BASE_US + self.chance.below(10_000_000);
        let now = Now { mono_ns: self.at + mono_offset, wall_us: wall_base + self.at / US };
        let node = make_node(settings, now, self.mistake)
            .map_err(|error| Violation { invariant: "start", detail: error.to_string() })?;
        host.process = Some(Process::new(boot, node, first, mono_offset, wall_base));
        let name = host.name.clone();
        self.trace.note(self.at, 1, &[index as u8], || format!("{name} starts{}", if first { "" } else { " again" }));
        for node in self.cluster.dials(self.hosts[index].number) {
            let at = self.at + self.chance.below(MS);
            self.agenda.plan(at, Event::Dial { host: index, boot, node });
        }
        Ok(())
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
    fn plan_turn(&mut self, host: usize, at: u64) {
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
        let effects = process.turn(at, budget, mistake);
        let (more, timeout) = (!process.inbox.is_empty(), process.next_timeout());
        self.turns += 1;
        self.rare.shared_turns += u64::from(effects.inputs > 1);
        self.trace_turn(host, &effects);
        if let Some(why) = effects.fatal {
            return Err(Violation { invariant: "fatal", detail: format!("{}: {why}", self.hosts[host].name) });
        }
        self.log_batches(host, &effects)?;
        self.check_replica(host)?;
        self.send_out(host, boot, &effects);
        if effects.left {
            self.on_left(host);
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
        let net = &self.net;
        let hosts = &self.hosts;
        self.trace.note(self.at, 2 + host as u64, &all, || {
            let mut line = format!("{name} turns: {} in", effects.inputs);
            for batch in &effects.appended {
                line += &format!(", logs {}..{}", batch.header().first_seq, batch.last_seq());
            }
            for (conn, bytes) in &effects.writes {
                let kinds: Vec<String> = frames(bytes)
                    .map(|frame| frame.kind().map_or_else(|| "?".to_owned(), |kind| format!("{kind:?}")))
                    .collect();
                let (index, end) = place_of(*conn);
                let to = match net.conn(index).ends[1 - end].owner {
                    Owner::Host { index, .. } => hosts[index].name.clone(),
                    Owner::Client { index } => format!("client-{index}"),
                };
                line += &format!(", {to} < {}", kinds.join(" "));
            }
            for (conn, reason) in &effects.closes {
                line += &format!(", closes {} ({reason:?})", place_of(*conn).0);
            }
            line
        });
    }

    fn log_batches(&mut self, host: usize, effects: &Effects) -> Check {
        for batch in &effects.appended {
            let Some(process) = self.hosts[host].process.as_mut() else { continue };
            let before = process.appended;
            process.appended = (batch.last_seq(), batch.header().hash_last);
            self.checker.on_append(&self.hosts[host].name, before, batch)?;
        }
        if !effects.appended.is_empty() {
            self.begin_sync(host);
        }
        Ok(())
    }

    fn begin_sync(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if !process.writer.begin() {
            return;
        }
        let boot = process.boot;
        let mut takes = self.chance.between(self.plan.sync.0, self.plan.sync.1);
        if !self.calm && self.chance.permille(self.plan.faults.stall_permille) {
            takes += self.chance.between(5 * MS, 60 * MS);
        }
        self.agenda.plan(self.at + takes, Event::Synced { host, boot });
        if self.mistake == Some(Mistake::NoticeBeforeSync)
            && let Some(end) = self.hosts[host].process.as_ref().and_then(|process| process.writer.under_way())
        {
            self.give(host, boot, Item::Durable(end));
        }
    }

    fn on_synced(&mut self, host: usize, boot: u64) {
        let Some(process) = self.process(host, boot) else { return };
        let Some(end) = process.writer.finish() else { return };
        if process.original {
            self.checker.on_synced(host, end.seq);
        }
        let name = &self.hosts[host].name;
        self.trace
            .note(self.at, 100 + host as u64, &end.seq.to_le_bytes(), || format!("{name} has synced {}", end.seq));
        if self.mistake != Some(Mistake::NoticeBeforeSync) {
            self.give(host, boot, Item::Durable(end));
        }
        self.begin_sync(host);
    }

    fn check_replica(&mut self, index: usize) -> Check {
        let host = &self.hosts[index];
        let Some(process) = &host.process else { return Ok(()) };
        let Some(replica) = process.node.replica() else { return Ok(()) };
        self.checker.on_replica(&host.name, process.boot, replica)?;
        let token = replica.ring().token().map(|token| token.hop);
        let caught_up =
            !process.original && !host.caught_up && replica.applied() > 0 && replica.applied() == self.checker.upto();
        self.rare.learners_caught_up += u64::from(caught_up);
        self.rare.learners_held_token += u64::from(token.is_some() && !process.original);
        if let Some(hop) = token {
            let still_held = |boot: u64| {
                let other = self.hosts.iter().filter_map(|host| host.process.as_ref()).find(|p| p.boot == boot);
                other.and_then(|p| p.node.replica()).is_some_and(|replica| replica.ring().token().is_some())
            };
            self.checker.on_token(&host.name, process.boot, hop, still_held)?;
        }
        self.hosts[index].caught_up |= caught_up;
        Ok(())
    }

    fn send_out(&mut self, host: usize, boot: u64, effects: &Effects) {
        let dialed = effects.greeted.clone();
        if let Some(process) = self.process(host, boot) {
            for node in dialed {
                process.attempts.remove(&node);
            }
        }
        for node in &effects.lost {
            self.dial_later(host, boot, *node);
        }
        for (conn, bytes) in &effects.writes {
            self.send(place_of(*conn), bytes.clone());
        }
        for (conn, reason) in &effects.closes {
            let (index, end) = place_of(*conn);
            self.close(index, end);
            self.give(host, boot, Item::Gone(*conn, *reason));
        }
    }

    fn send(&mut self, (conn, end): (usize, usize), bytes: Bytes) {
        if self.net.conn(conn).ends[end].open {
            self.net.send(self.at, (conn, end), bytes, &self.plan, &mut self.chance, &mut self.agenda);
        }
    }

    /// An end is closed by its owner.
    fn close(&mut self, conn: usize, end: usize) {
        if self.net.close_end(conn, end) {
            self.net.finish(self.at, (conn, end), &self.plan, &mut self.chance, &mut self.agenda);
        }
    }

    /// Tries to connect again after a while.
    fn dial_later(&mut self, host: usize, boot: u64, node: u16) {
        let at = self.at;
        let Some(process) = self.process(host, boot) else { return };
        let attempts = process.attempts.entry(node).or_insert(0);
        *attempts += 1;
        let back_off = ((10 * MS) << (*attempts).min(7)).min(SEC);
        self.agenda.plan(at + back_off, Event::Dial { host, boot, node });
    }

    /// A node has left in order: what it sent goes out, then it is gone, and comes back later without its memory.
    fn on_left(&mut self, host: usize) {
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 200 + host as u64, &[], || format!("{name} has left"));
        self.count_ring(host);
        let Some(process) = self.hosts[host].process.take() else { return };
        let owner = Owner::Host { index: host, boot: process.boot };
        for (conn, end) in self.ends_of(owner) {
            self.close(conn, end);
        }
        // What it sent last is still on its way, the token perhaps: a new link would cut the old one off. A peer that is
        // stopped reads it only when it goes on.
        self.plan_return(host, 500 * MS);
    }

    /// Open ends of an owner.
    pub(crate) fn ends_of(&self, owner: Owner) -> Vec<(usize, usize)> {
        let of = |end: usize| {
            let conns = self.net.find(|conn| conn.ends[end].owner == owner && conn.ends[end].open);
            conns.into_iter().map(move |conn| (conn, end))
        };
        of(0).chain(of(1)).collect()
    }

    // --- connections

    fn on_bytes(&mut self, conn: usize, to: usize, bytes: Bytes) -> Check {
        if !self.net.arrives(self.at, conn, to) {
            return Ok(());
        }
        match self.net.conn(conn).ends[to].owner {
            Owner::Host { index, boot } => {
                self.give(index, boot, Item::Bytes(conn_id(conn, to), bytes));
                Ok(())
            }
            Owner::Client { index } => {
                self.trace.note(self.at, 300 + index as u64, &bytes, || {
                    let kinds: Vec<String> = frames(&bytes).map(|frame| format!("{:?}", frame.kind())).collect();
                    format!("client-{index} receives {}", kinds.join(" "))
                });
                self.with_client(index, |client, lent| client.on_bytes(lent, conn, &bytes))
            }
        }
    }

    fn on_gone(&mut self, conn: usize, to: usize, reason: CloseReason) {
        if !self.net.close_end(conn, to) {
            return;
        }
        // Whoever learns of the end closes its own side as well.
        self.net.finish(self.at, (conn, to), &self.plan, &mut self.chance, &mut self.agenda);
        match self.net.conn(conn).ends[to].owner {
            Owner::Host { index, boot } => {
                self.give(index, boot, Item::Gone(conn_id(conn, to), reason));
            }
            Owner::Client { index } => {
                // Nothing is checked when a connection goes.
                let _ = self.with_client(index, |client, lent| {
                    client.on_gone(lent, conn);
                    Ok(())
                });
            }
        }
    }

    fn connect_fails(&mut self) -> bool {
        !self.calm && self.chance.permille(self.plan.faults.connect_fail_permille)
    }

    fn on_dial(&mut self, host: usize, boot: u64, node: u16) {
        if self.process(host, boot).is_none_or(|process| process.dialed(node)) {
            return;
        }
        let takes = 2 * self.chance.between(self.plan.latency.0, self.plan.latency.1);
        self.agenda.plan(self.at + takes, Event::Arrive { host, boot, node });
    }

    fn on_arrive(&mut self, host: usize, boot: u64, node: u16) {
        let fails = self.connect_fails();
        let target = usize::from(node) - 1;
        let there = self.hosts[target].process.as_ref().map(|process| process.boot).filter(|_| !fails);
        if self.process(host, boot).is_none() {
            return;
        }
        let Some(there) = there else { return self.dial_later(host, boot, node) };
        let conn = self.net.connect(Owner::Host { index: host, boot }, Owner::Host { index: target, boot: there });
        let (from, to) = (&self.hosts[host].name, &self.hosts[target].name);
        self.trace.note(self.at, 400, &conn.to_le_bytes(), || format!("{from} connects to {to} ({conn})"));
        self.give(host, boot, Item::Opened(conn_id(conn, 0), node));
        self.give(target, there, Item::Accepted(conn_id(conn, 1)));
    }

    // --- clients

    fn with_client(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut Lent<'_>) -> Check) -> Check {
        let mut lent = Lent {
            at: self.at,
            plan: &self.plan,
            calm: self.calm,
            chance: &mut self.chance,
            checker: &mut self.checker,
            rare: &mut self.rare,
            workload: &self.workload,
            mistake: self.mistake,
        };
        let client = &mut self.clients[index];
        act(client, &mut lent)?;
        for act in client.take_acts() {
            self.carry_out(index, act);
        }
        if let Some(at) = self.clients[index].next_timeout() {
            self.wake_client(index, at);
        }
        Ok(())
    }

    fn wake_client(&mut self, index: usize, at: u64) {
        let at = at.max(self.at + US);
        let client = &mut self.clients[index];
        if client.wakes_at.is_none_or(|planned| planned > at) {
            client.wakes_at = Some(at);
            self.agenda.plan(at, Event::Client { client: index });
        }
    }

    fn on_client(&mut self, index: usize) {
        if self.clients[index].wakes_at != Some(self.at) {
            return;
        }
        self.clients[index].wakes_at = None;
        let _ = self.with_client(index, |client, lent| {
            client.on_time(lent);
            Ok(())
        });
    }

    fn carry_out(&mut self, index: usize, act: Act) {
        match act {
            Act::Connect { front } => {
                let takes = 2 * self.chance.between(self.plan.latency.0, self.plan.latency.1);
                self.agenda.plan(self.at + takes, Event::ClientArrive { client: index, front });
            }
            Act::Send { conn, bytes } => {
                self.trace.note(self.at, 500 + index as u64, &bytes, || {
                    let asks: Vec<String> =
                        frames(&bytes).map(|f| format!("{:?} #{}", f.kind(), f.header.request_id)).collect();
                    format!("client-{index} sends {} on {conn}", asks.join(" "))
                });
                self.send((conn, 0), bytes);
            }
            Act::Close { conn } => self.on_gone(conn, 0, CloseReason::Ended),
        }
    }

    fn on_client_arrive(&mut self, index: usize, front: usize) {
        let fails = self.connect_fails();
        let there = self.hosts[front].process.as_ref().map(|process| process.boot).filter(|_| !fails);
        let conn = there.map(|boot| {
            let conn = self.net.connect(Owner::Client { index }, Owner::Host { index: front, boot });
            self.give(front, boot, Item::Accepted(conn_id(conn, 1)));
            (conn, boot)
        });
        let _ = self.with_client(index, |client, lent| {
            client.on_connected(lent.at, front, conn);
            Ok(())
        });
    }

    /// Clients by index, to look at.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }
}

/// A connection's end as a node knows it.
pub(crate) fn conn_id(conn: usize, end: usize) -> ConnId {
    ConnId((conn * 2 + end) as u64)
}

fn place_of(conn: ConnId) -> (usize, usize) {
    ((conn.0 / 2) as usize, (conn.0 % 2) as usize)
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
    ClusterSettings { id: chance.uuid(), key: chance.uuid().to_vec(), token, nodes }
}

#[cfg(feature = "mistakes")]
fn make_node(settings: Settings, now: Now, mistake: Option<Mistake>) -> Result<Node, pygmy_ring::ConfigError> {
    match mistake {
        Some(Mistake::Ring(planted)) if settings.own().is_replica() => Node::with_mistake(settings, now, planted),
        _ => Node::new(settings, now),
    }
}

#[cfg(not(feature = "mistakes"))]
fn make_node(settings: Settings, now: Now, _: Option<Mistake>) -> Result<Node, pygmy_ring::ConfigError> {
    Node::new(settings, now)
}
