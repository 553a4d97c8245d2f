//! The network: connections of two ends and two streams of bytes, in order, delayed, broken.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::chance::Chance;
use crate::events::{Agenda, Event};
use crate::plan::{MS, Plan};

/// So much longer than others takes what is held up on a connection.
pub const HICCUP_MAX: u64 = 40 * MS;
/// So much later than others comes a datagram that goes astray.
pub const STRAY_MAX: u64 = 500 * MS;

/// Who has an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A process of a node.
    Host {
        /// The node's index.
        index: usize,
        /// Its process.
        boot: u64,
    },
    /// A client.
    Client {
        /// Its index.
        index: usize,
    },
    /// Whoever replaces voters.
    Operator,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// Nothing arrives before what was sent earlier.
    busy_until: u64,
    /// What arrives from here on is lost.
    lost_from: Option<u64>,
    /// What a cut holds back, in order.
    held: Vec<Event>,
}

/// Nodes that do not reach others for a while.
#[derive(Debug)]
pub struct Cut {
    /// Tells it from other cuts.
    pub number: u64,
    /// Nothing gets from the first to the second of these nodes.
    pub lost: BTreeSet<(usize, usize)>,
    /// Connections do not break: what is sent on them arrives when the cut has healed.
    pub silent: bool,
}

/// Nobody hears a node's datagrams at another one for a while.
#[derive(Debug, Clone, Copy)]
pub struct Deaf {
    /// Whose datagrams are lost.
    pub from: usize,
    /// On their way to whom.
    pub to: usize,
    /// Until then.
    pub until: u64,
}

/// One end.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Whose it is.
    pub owner: Owner,
    /// Its owner has neither closed it nor been told that it is gone.
    pub open: bool,
}

/// A connection. End 0 belongs to who opened it.
#[derive(Debug)]
pub struct Conn {
    /// Both ends.
    pub ends: [End; 2],
    /// `pipes[e]` leads from end `e` to the other.
    pipes: [Pipe; 2],
    /// It broke, whether the ends know or not.
    pub broken: bool,
}

/// All connections there ever were.
#[derive(Debug, Default)]
pub struct Net {
    conns: Vec<Conn>,
    /// No hiccups any more.
    pub calm: bool,
    /// Who is cut off from whom.
    pub cut: Option<Cut>,
    /// Who does not hear whom.
    pub deaf: Option<Deaf>,
    /// When what one node sends to another one was held back last.
    healed: BTreeMap<(usize, usize), u64>,
}

impl Net {
    /// A new connection.
    pub fn connect(&mut self, from: Owner, to: Owner) -> usize {
        let end = |owner| End { owner, open: true };
        self.conns.push(Conn { ends: [end(from), end(to)], pipes: [Pipe::default(), Pipe::default()], broken: false });
        self.conns.len() - 1
    }

    /// A connection.
    pub fn conn(&self, conn: usize) -> &Conn {
        &self.conns[conn]
    }

    /// Connections for which `wanted` holds.
    pub fn find(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<usize> {
        (0..self.conns.len()).filter(|index| wanted(&self.conns[*index])).collect()
    }

    /// Marks an end as closed; whether it was open.
    pub fn close_end(&mut self, conn: usize, end: usize) -> bool {
        std::mem::replace(&mut self.conns[conn].ends[end].open, false)
    }

    fn arrival(&mut self, now: u64, conn: usize, from: usize, plan: &Plan, chance: &mut Chance) -> u64 {
        let mut delay = chance.between(plan.latency.0, plan.latency.1);
        if !self.calm && chance.permille(plan.faults.hiccup_permille) {
            delay += chance.between(MS, HICCUP_MAX);
        }
        let pipe = &mut self.conns[conn].pipes[from];
        pipe.busy_until = pipe.busy_until.max(now + delay);
        pipe.busy_until
    }

    /// Sends bytes, cut anywhere, from one end to the other.
    pub fn send(
        &mut self,
        now: u64,
        (conn, from): (usize, usize),
        mut bytes: Bytes,
        plan: &Plan,
        chance: &mut Chance,
        agenda: &mut Agenda,
    ) {
        let pieces = if chance.permille(250) { chance.between(2, 4) } else { 1 };
        for piece in (1..=pieces).rev() {
            let len = if piece == 1 { bytes.len() } else { chance.below(bytes.len() as u64 + 1) as usize };
            let part = bytes.split_to(len);
            if !part.is_empty() {
                let at = self.arrival(now, conn, from, plan, chance);
                agenda.plan(at, Event::Bytes { conn, to: 1 - from, bytes: part });
            }
        }
    }

    /// Ends the stream from one end: the other learns of it behind all that was sent.
    pub fn finish(
        &mut self,
        now: u64,
        (conn, from): (usize, usize),
        plan: &Plan,
        chance: &mut Chance,
        agenda: &mut Agenda,
    ) {
        let at = self.arrival(now, conn, from, plan, chance);
        agenda.plan(at, Event::Ended { conn, to: 1 - from });
    }

    /// Whether nothing gets from one node to another one.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.lost.contains(&(from, to)))
    }

    /// Whether no connection can be made between two nodes: one direction is not enough.
    pub fn parts(&self, a: usize, b: usize) -> bool {
        self.is_cut(a, b) || self.is_cut(b, a)
    }

    /// Holds back what would reach an end now, if a cut does or what was sent before is held back; else gives it back.
    pub fn hold(&mut self, conn: usize, to: usize, event: Event) -> Option<Event> {
        let [from, into] = [1 - to, to].map(|end| self.conns[conn].ends[end].owner);
        let cut = match (from, into) {
            (Owner::Host { index: from, .. }, Owner::Host { index: into, .. }) => self.is_cut(from, into),
            _ => false,
        };
        let pipe = &mut self.conns[conn].pipes[1 - to];
        if cut || !pipe.held.is_empty() {
            pipe.held.push(event);
            return None;
        }
        Some(event)
    }

    /// When a cut between one node and another one ended last.
    pub fn healed_at(&self, from: usize, to: usize) -> u64 {
        self.healed.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Ends the cut; what it has held back.
    pub fn heal(&mut self, now: u64) -> Vec<Event> {
        if let Some(cut) = self.cut.take() {
            self.healed.extend(cut.lost.into_iter().map(|pair| (pair, now)));
        }
        self.conns.iter_mut().flat_map(|conn| &mut conn.pipes).flat_map(|pipe| std::mem::take(&mut pipe.held)).collect()
    }

    /// Sends a datagram: lost, late, twice.
    pub fn send_datagram(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        bytes: &Bytes,
        plan: &Plan,
        chance: &mut Chance,
        agenda: &mut Agenda,
    ) {
        let faults = &plan.faults;
        let is_deaf = self.deaf.is_some_and(|deaf| (deaf.from, deaf.to) == (from, to) && now < deaf.until);
        if self.is_cut(from, to) || (!self.calm && is_deaf) || (!self.calm && chance.permille(faults.loss_permille)) {
            return;
        }
        let stray = !self.calm && chance.permille(faults.stray_permille);
        let copies = if stray { chance.between(1, 3) } else { 1 };
        for _ in 0..copies {
            let late = if stray { chance.below(STRAY_MAX) } else { 0 };
            let at = now + late + chance.between(plan.latency.0, plan.latency.1);
            agenda.plan(at, Event::Datagram { from, host: to, bytes: bytes.clone() });
        }
    }

    /// Whether what arrives now at an end does arrive.
    pub fn arrives(&self, now: u64, conn: usize, to: usize) -> bool {
        let lost = self.conns[conn].pipes[1 - to].lost_from.is_some_and(|from| now >= from);
        !lost && self.conns[conn].ends[to].open
    }

    /// Breaks a connection: what is under way may still arrive, in part or in whole; each end notices in its own time,
    /// at most `slowest` later. What it sends until then is lost.
    pub fn break_conn(&mut self, now: u64, conn: usize, slowest: u64, chance: &mut Chance, agenda: &mut Agenda) {
        let state = &mut self.conns[conn];
        if state.broken {
            return;
        }
        state.broken = true;
        for end in 0..2 {
            let notices_in = if chance.permille(600) { chance.below(MS) } else { chance.below(slowest) };
            // An end that has noticed reads nothing more.
            let grace = if chance.permille(500) { 0 } else { chance.below(notices_in + 1) };
            state.pipes[1 - end].lost_from = Some(now + grace);
            agenda.plan(now + notices_in, Event::Noticed { conn, to: end });
        }
    }
}
