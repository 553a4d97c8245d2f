//! Heartbeats as datagrams, and who of the other nodes lives: all nodes tell each other every 50 ms, from this loop.
//!
//! Each pair of nodes has one entry in a failure detector of each: that of the ring judges other log replicas for a log
//! replica, the one here all the rest.

use std::collections::BTreeMap;

use pygmy_proto::datagram::{self, Arrival, DatagramKey, Header, Heartbeat, ReplayGuard};
use pygmy_proto::message::{PeerStatus, ReplicaBeat, Role};
use pygmy_proto::types::Bounded;
use pygmy_ring::detector::BEAT_NS;
use pygmy_ring::{Detector, Heard, Notice};

use super::{Duty, Node};
use crate::machine::{Now, Outbox, ms};
use crate::settings::Settings;

/// One node is answered no more often: whoever asks more often than that learns nothing by it.
const ANSWER_NS: u64 = ms(10);

/// What a node knows for its heartbeats.
#[derive(Debug)]
pub(super) struct Beats {
    key: DatagramKey,
    /// Datagrams sent by this process.
    sent: u64,
    /// Heartbeats among them, those out of turn not counted.
    number: u64,
    guard: ReplayGuard,
    /// Who lives of those that the ring does not judge.
    pub(super) detector: Detector,
    /// When a node without a log is to send its next heartbeat, and by how much its loop was late since the last.
    due_ns: u64,
    late_ns: u64,
    is_due: bool,
    /// Who was answered when.
    answered: BTreeMap<u16, u64>,
}

impl Beats {
    pub(super) fn new(settings: &Settings, now: Now) -> Self {
        Self {
            key: DatagramKey::new(&settings.cluster.id, &settings.cluster.key),
            sent: 0,
            number: 0,
            guard: ReplayGuard::new(),
            detector: Detector::new(),
            due_ns: now.mono_ns,
            late_ns: 0,
            is_due: false,
            answered: BTreeMap::new(),
        }
    }

    /// A handshake has shown which process `node` is: no other one is heard under its number.
    pub(super) fn pin(&mut self, node: u16, boot_nonce: u64) {
        self.guard.pin(node, boot_nonce);
    }

    /// The header of the next datagram of this process.
    fn header(&mut self, settings: &Settings) -> Header {
        self.sent += 1;
        Header { node: settings.me, boot_nonce: settings.boot_nonce, counter: self.sent }
    }

    /// Whether `node` may be answered now.
    fn may_answer(&mut self, now: Now, node: u16) -> bool {
        let last = self.answered.get(&node);
        let may = last.is_none_or(|at| now.mono_ns.saturating_sub(*at) >= ANSWER_NS);
        if may {
            self.answered.insert(node, now.mono_ns);
        }
        may
    }
}

impl Node {
    /// Whether the ring judges whether `node` lives.
    fn is_judged_by_ring(&self, node: u16) -> bool {
        self.duty.replica().is_some() && self.settings.cluster.node(node).is_some_and(|known| known.is_replica())
    }

    /// The detector here is to know `node`, if that is its affair.
    pub(super) fn watch(&mut self, node: u16) {
        if !self.is_judged_by_ring(node) {
            self.beats.detector.meet(node);
        }
    }

    /// All others that `cluster.toml` names are to be heard of.
    pub(super) fn watch_all(&mut self) {
        let me = self.settings.me;
        let others: Vec<u16> = self.settings.cluster.nodes.iter().map(|node| node.number).collect();
        others.into_iter().filter(|node| *node != me).for_each(|node| self.watch(node));
    }

    /// A handshake with `node` is done.
    pub(super) fn watch_link(&mut self, now: Now, node: u16, boot_nonce: u64) {
        if !self.is_judged_by_ring(node) {
            self.beats.detector.link_up(now.mono_ns, node, boot_nonce);
        }
    }

    /// When this node's loop is to run for its next heartbeat.
    fn beat_due_ns(&self) -> u64 {
        self.duty.replica().map_or(self.beats.due_ns, |replica| replica.ring().beat_due_ns())
    }

    /// Takes the time of an input: what this loop was late by is nobody's silence.
    pub(super) fn tick(&mut self, now: Now) {
        let due_ns = self.beat_due_ns();
        self.beats.late_ns = self.beats.late_ns.max(now.mono_ns.saturating_sub(due_ns));
        self.beats.detector.tick(now.mono_ns, due_ns);
    }

    /// When [`Self::on_beat_timeout`] must be called next.
    pub(super) fn next_beat_timeout(&self) -> Option<u64> {
        let own = self.duty.replica().is_none().then_some(self.beats.due_ns);
        own.into_iter().chain(self.beats.detector.next_timeout()).min()
    }

    /// The heartbeat of a node without a log may be due; a log replica's ring has its own timer.
    pub(super) fn on_beat_timeout(&mut self, now: Now) {
        if self.duty.replica().is_none() && now.mono_ns >= self.beats.due_ns {
            self.beats.due_ns = now.mono_ns + BEAT_NS;
            self.beats.is_due = true;
        }
    }

    /// Sends the heartbeat that is due, if one is, to all others.
    pub(super) fn send_beat(&mut self, now: Now, out: &mut Outbox) {
        let replica = self.duty.replica_mut().and_then(|replica| replica.take_beat());
        if replica.is_none() && !std::mem::take(&mut self.beats.is_due) {
            return;
        }
        self.beats.number += 1;
        let late_ns = std::mem::take(&mut self.beats.late_ns);
        let heartbeat = self.heartbeat(now, late_ns, false, replica);
        let header = self.beats.header(&self.settings);
        // Fronts have no links with each other, so their directory does not name them.
        let is_front = |number: u16| self.settings.cluster.node(number).is_some_and(|node| node.role == Role::Front);
        let known = self.directory.iter().map(|(number, _)| number).filter(|number| !is_front(*number));
        let fronts = self.settings.cluster.nodes.iter().map(|node| node.number).filter(|number| is_front(*number));
        let others = known.chain(fronts).filter(|number| *number != self.settings.me);
        let key = &self.beats.key;
        out.send_datagram(others, |out| datagram::write(out, key, &header, &heartbeat));
    }

    /// Sends `node` a heartbeat out of turn: one that asks for one, or the answer to such a one.
    fn send_beat_to(&mut self, now: Now, node: u16, asks: bool, out: &mut Outbox) {
        let replica = self.duty.replica().map(|replica| replica.beat_now());
        let heartbeat = self.heartbeat(now, self.beats.late_ns, asks, replica);
        let header = self.beats.header(&self.settings);
        let key = &self.beats.key;
        out.send_datagram(std::iter::once(node), |out| datagram::write(out, key, &header, &heartbeat));
    }

    fn heartbeat(&self, now: Now, late_ns: u64, asks: bool, replica: Option<ReplicaBeat>) -> Heartbeat {
        let ring = self.duty.replica().map(|replica| replica.ring().detector());
        let replicas = ring.into_iter().flat_map(|detector| detector.heard(now.mono_ns));
        let hears = replicas.chain(self.beats.detector.heard(now.mono_ns)).collect();
        Heartbeat {
            late_us: u32::try_from(late_ns / 1_000).unwrap_or(u32::MAX),
            number: self.beats.number,
            asks,
            hears: Bounded::truncated(hears),
            replica,
        }
    }

    /// A datagram came from wherever.
    pub(super) fn on_datagram(&mut self, now: Now, bytes: &[u8], out: &mut Outbox) {
        let (header, heartbeat) = match datagram::read(bytes, &self.beats.key) {
            Ok(read) => read,
            Err(error) => return log::debug!("a datagram is dropped: {error}"),
        };
        let arrival = match self.beats.guard.check(&header) {
            Ok(arrival) => arrival,
            Err(why) => return log::debug!("a heartbeat of {} is dropped: {why}", self.name_of(header.node)),
        };
        // One that was overtaken says what is no longer so.
        if arrival == Arrival::Newest {
            self.on_heartbeat(now, header, heartbeat, out);
        }
    }

    fn on_heartbeat(&mut self, now: Now, header: Header, heartbeat: Heartbeat, out: &mut Outbox) {
        let Header { node, boot_nonce, .. } = header;
        let Heartbeat { late_us, number, asks, hears, replica } = heartbeat;
        if !self.is_judged_by_ring(node) {
            let (hears_me, late_ns) = (hears.contains(&self.settings.me), u64::from(late_us) * 1_000);
            self.beats.detector.hear_beat(now.mono_ns, node, &Heard { boot_nonce, number, hears_me, late_ns });
        } else if let Some(beat) = replica {
            self.ring(now, pygmy_ring::Input::Beat { node, number, beat });
        }
        if asks && self.beats.may_answer(now, node) {
            self.send_beat_to(now, node, false, out);
        }
    }

    /// Judges at the end of a turn who lives, and tells the role what is new, so that nothing waits for the dead.
    pub(super) fn judge_peers(&mut self, now: Now, out: &mut Outbox) {
        let mut notices = self.duty.replica_mut().map(|replica| replica.take_notices()).unwrap_or_default();
        self.beats.detector.judge(now.mono_ns, &mut notices);
        for notice in notices {
            match notice {
                Notice::Probe(node) => self.send_beat_to(now, node, true, out),
                Notice::Suspect(node) => self.suspect(now, node, out),
                Notice::Trust(node) => self.trust(now, node, out),
            }
        }
    }

    fn suspect(&mut self, now: Now, node: u16, out: &mut Outbox) {
        log::warn!("{} is suspected: it is silent, or does not hear this node", self.name_of(node));
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.on_suspect(&mut ctx, node),
            Duty::Order(order, ..) => order.on_suspect(node),
            Duty::Catalog(..) => {}
        }
    }

    fn trust(&mut self, now: Now, node: u16, out: &mut Outbox) {
        log::info!("{} is heard again", self.name_of(node));
        let (mut ctx, duty) = self.parts(now, out);
        match duty {
            Duty::Front(front) => front.on_trust(&mut ctx, node),
            Duty::Order(order, ..) => order.on_trust(node),
            Duty::Catalog(..) => {}
        }
    }

    /// How often this node has suspected anyone whose connection stood.
    pub fn suspicions(&self) -> u64 {
        let ring = self.duty.replica().map_or(0, |replica| replica.ring().detector().suspicions());
        ring + self.beats.detector.suspicions()
    }

    /// Whether `node` is suspected though its connection stands.
    pub(super) fn is_suspected(&self, node: u16) -> bool {
        let ring = self.duty.replica().is_some_and(|replica| replica.ring().detector().suspects(node));
        ring || self.beats.detector.suspects(node)
    }

    /// Whether this node suspects anyone whose connection stands.
    pub fn suspects_anyone(&self) -> bool {
        let ring = self.duty.replica().is_some_and(|replica| replica.ring().detector().suspects_anyone());
        ring || self.beats.detector.suspects_anyone()
    }

    /// Whether this node gives requests to `node`.
    pub fn is_served_by(&self, node: u16) -> bool {
        match &self.duty {
            Duty::Front(front) => front.is_served_by(node),
            Duty::Order(order, ..) => order.is_served_by(node),
            Duty::Catalog(..) => false,
        }
    }

    /// What both detectors think of everyone, by number.
    pub fn peer_statuses(&self, now: Now) -> Vec<PeerStatus> {
        let ring = self.duty.replica().map(|replica| replica.ring().detector());
        let replicas = ring.into_iter().flat_map(|detector| detector.statuses(now.mono_ns));
        let mut all: Vec<PeerStatus> = replicas.chain(self.beats.detector.statuses(now.mono_ns)).collect();
        all.sort_unstable_by_key(|peer| peer.node);
        all
    }
}
