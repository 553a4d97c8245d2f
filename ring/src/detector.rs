//! The failure detector: who is heard, and after how much silence a peer is taken for gone.
//!
//! Every node sends every other one a heartbeat every [`BEAT_NS`], from its event loop. A [`Detector`] keeps, for each peer, how
//! long it may be silent: its **limit**. A peer is *green* while it is heard, *yellow* when two heartbeats are missing and a third of its limit
//! has passed: it is asked for a heartbeat at once (a **probe**), and *red* at its limit: suspected. Suspicion is an opinion. It is told
//! to whoever asks ([`Notice`]), and what is done about it is decided elsewhere.
//!
//! The limit is the largest of three estimates, never below [`LIMIT_MIN_NS`] nor above [`LIMIT_MAX_NS`]:
//!
//! * **Pace.** The smoothed interval between heartbeats and four times its mean deviation, as RFC 6298 computes the
//!   retransmission timer of TCP from round trips. The interval is what passed divided by how many heartbeats the sender says to have
//!   sent meanwhile: a lost one does not make the sender look slow, nor a flood after a stop fast.
//! * **Memory.** Twice the longest silence that the peer came back from, in the last one to two [`WINDOW_NS`]. This is
//!   what grows under loss and on a machine with too much to do: their silences come in tails that a mean deviation
//!   does not describe, and a limit that forgets them at once makes the same mistake again.
//! * **Prior.** [`LIMIT_PRIOR_NS`], until enough heartbeats were heard. A new process, a new connection, and one that comes
//!   back from a silence beyond any limit start from it again.
//!
//! A peer that says how late its own loop has been gets that much more.
//!
//! Silence proves nothing when it is the listener who does not listen. Time in which the own loop did not run when it should have
//! ([`Detector::tick`]) is not counted as anyone's silence, and for [`GRACE_NS`] after it nobody is accused: what came meanwhile must
//! be read first. Nor is hearing a peer enough: a peer that says, for longer than the limit, that it does not hear this node is cut
//! off in one direction, and its link counts as down.

use std::collections::BTreeMap;

use pygmy_proto::message::{PeerReason, PeerState, PeerStatus};

use crate::config::Mistake;

/// Between two heartbeats of one node.
pub const BEAT_NS: u64 = 50_000_000;
/// The shortest limit: three heartbeats in a row are missing, and so are the answers to several probes. Detection on a quiet
/// machine takes this long; less would make a suspect of everyone whose process waited for a processor.
pub const LIMIT_MIN_NS: u64 = 200_000_000;
/// The limit of a peer that is not known yet.
pub const LIMIT_PRIOR_NS: u64 = 200_000_000;
/// The longest limit. To wait longer would cost more than a suspicion that is wrong.
pub const LIMIT_MAX_NS: u64 = 1_000_000_000;
/// The longest silence is remembered for one to two of these.
pub const WINDOW_NS: u64 = 60_000_000_000;
/// A turn that comes later than this shows that the own loop did not run.
pub const LATE_NS: u64 = 100_000_000;
/// For how long after that nobody is accused.
pub const GRACE_NS: u64 = 100_000_000;
/// So long nobody is yellow: two heartbeats are missing.
pub const YELLOW_MIN_NS: u64 = 2 * BEAT_NS;
/// A peer that is yellow is asked no more often.
pub const PROBE_NS: u64 = 25_000_000;

/// Heartbeats that arrive closer together than this were held up and came at once.
const TOGETHER_NS: u64 = 10_000_000;
/// Intervals after which the pace is known well enough to do without the prior.
const SAMPLES_MIN: u32 = 8;

const _: () = assert!(LIMIT_MIN_NS > 2 * BEAT_NS && LIMIT_MIN_NS <= LIMIT_PRIOR_NS && LIMIT_PRIOR_NS < LIMIT_MAX_NS);
const _: () = assert!(LATE_NS < LIMIT_MIN_NS && YELLOW_MIN_NS + 2 * PROBE_NS < LIMIT_MIN_NS);

/// What a detector wants to be known or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The peer is taken for gone, though its connection stands or there is none.
    Suspect(u16),
    /// It is not any more.
    Trust(u16),
    /// The peer is to be sent a heartbeat that asks for one.
    Probe(u16),
}

/// What a heartbeat says to the detector of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Of the sender's process.
    pub boot_nonce: u64,
    /// How many heartbeats the process had sent to everybody by then, those out of turn not counted.
    pub number: u64,
    /// Whether the sender names the receiver among those it hears.
    pub hears_me: bool,
    /// By how much the sender's loop has been late.
    pub late_ns: u64,
}

/// Smoothed interval and mean deviation of RFC 6298, §2.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    samples: u32,
    interval_ns: u64,
    deviation_ns: u64,
}

impl Pace {
    fn add(&mut self, sample_ns: u64) {
        if self.samples == 0 {
            (self.interval_ns, self.deviation_ns) = (sample_ns, sample_ns / 2);
        } else {
            self.deviation_ns = (3 * self.deviation_ns + self.interval_ns.abs_diff(sample_ns)) / 4;
            self.interval_ns = (7 * self.interval_ns + sample_ns) / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    fn limit(&self) -> u64 {
        let computed = self.interval_ns + 4 * self.deviation_ns;
        if self.samples < SAMPLES_MIN { computed.max(LIMIT_PRIOR_NS) } else { computed }
    }
}

/// The longest of what was noted lately.
#[derive(Debug, Clone, Copy, Default)]
struct Longest {
    began_ns: u64,
    current_ns: u64,
    before_ns: u64,
}

impl Longest {
    fn turn_to(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.began_ns);
        if passed >= WINDOW_NS {
            self.before_ns = if passed < 2 * WINDOW_NS { self.current_ns } else { 0 };
            self.current_ns = 0;
            self.began_ns = now_ns;
        }
    }

    fn get(&self) -> u64 {
        self.current_ns.max(self.before_ns)
    }
}

/// The connection with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Link {
    /// There never was one: heartbeats are all there is to go by.
    #[default]
    None,
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Peer {
    link: Link,
    boot_nonce: u64,
    /// When it was heard last, whatever that proved.
    heard_ns: Option<u64>,
    /// Since when it is silent, the time in which nobody listened left out.
    quiet_from_ns: u64,
    /// When the peer last said that it hears this node, or showed it in a handshake; left out as above.
    confirmed_ns: u64,
    /// Its latest word is that it does not.
    denies: bool,
    /// The heartbeat from which the next interval is measured: when it came, and its number.
    mark: Option<(u64, u64)>,
    pace: Pace,
    longest: Longest,
    /// By how much its loop has been late, by its latest word.
    late_ns: u64,
    probed_ns: u64,
    suspected: bool,
    suspicions: u64,
    returns: u64,
}

impl Peer {
    fn limit(&self) -> u64 {
        let learned = self.pace.limit().max(2 * self.longest.get()).max(LIMIT_MIN_NS);
        (learned + self.late_ns).min(LIMIT_MAX_NS)
    }

    /// Nothing that was learned says anything any more.
    fn reset(&mut self, now_ns: u64) {
        self.pace = Pace::default();
        self.longest = Longest { began_ns: now_ns, ..Longest::default() };
        self.mark = None;
        self.late_ns = 0;
        self.denies = false;
        self.confirmed_ns = now_ns;
        self.quiet_from_ns = now_ns;
    }

    fn hear(&mut self, now_ns: u64, learns: bool) {
        if self.heard_ns.is_none() {
            self.reset(now_ns);
        }
        self.heard_ns = Some(now_ns);
        let silence = now_ns.saturating_sub(self.quiet_from_ns);
        self.quiet_from_ns = now_ns;
        if silence > LIMIT_MAX_NS {
            // It did not run, or was cut off: that is no silence to be expected of it.
            return self.reset(now_ns);
        }
        self.longest.turn_to(now_ns);
        if learns {
            self.longest.current_ns = self.longest.current_ns.max(silence);
        }
    }

    /// Measures the interval since the heartbeat that was marked last. Those that come together count for one moment:
    /// the first of them was held up, and the others do not show how fast they were sent.
    fn measure(&mut self, now_ns: u64, number: u64) {
        match self.mark {
            Some((_, last)) if number <= last => {}
            Some((at_ns, _)) if now_ns.saturating_sub(at_ns) < TOGETHER_NS => self.mark = Some((at_ns, number)),
            Some((at_ns, last)) => {
                let sample_ns = (now_ns - at_ns) / (number - last);
                if sample_ns <= LIMIT_MAX_NS {
                    self.pace.add(sample_ns);
                }
                self.mark = Some((now_ns, number));
            }
            None => self.mark = Some((now_ns, number)),
        }
    }

    fn silent_at(&self) -> u64 {
        self.quiet_from_ns + self.limit()
    }

    fn one_way_at(&self) -> Option<u64> {
        self.denies.then(|| self.confirmed_ns + self.limit())
    }

    /// When there is something new to be found about it, now that it was heard.
    fn news_at(&self) -> u64 {
        if self.suspected {
            return 0;
        }
        self.probe_at().min(self.one_way_at().unwrap_or(u64::MAX))
    }

    /// From when on it is yellow.
    fn yellow_at(&self) -> u64 {
        // Well below half of the limit: a silence that a probe has ended would otherwise raise it, and itself with it.
        self.quiet_from_ns + (self.limit() / 3).max(YELLOW_MIN_NS)
    }

    fn probe_at(&self) -> u64 {
        self.yellow_at().max(self.probed_ns + PROBE_NS)
    }

    /// Whether it may be judged at all: otherwise nothing but a handshake, or the first heartbeat, changes what it is.
    fn is_watched(&self) -> bool {
        self.link != Link::Down && self.heard_ns.is_some()
    }
}

/// What a node knows of its peers' lives. No clock, no I/O: the time comes with every call.
#[derive(Debug, Default)]
pub struct Detector {
    peers: BTreeMap<u16, Peer>,
    ticked_ns: u64,
    grace_until_ns: u64,
    /// Before this, [`Self::judge`] would find nothing new.
    judge_at_ns: u64,
    mistake: Option<Mistake>,
}

impl Detector {
    /// A detector that knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that makes a planted mistake; obeyed only in builds with the feature `mistakes`.
    #[must_use]
    pub fn with_mistake(mut self, mistake: Option<Mistake>) -> Self {
        self.mistake = mistake;
        self
    }

    fn makes(&self, mistake: Mistake) -> bool {
        cfg!(feature = "mistakes") && self.mistake == Some(mistake)
    }

    /// Takes the time of an input, and when the loop was due to run at the latest. What it ran late by is nobody's silence.
    pub fn tick(&mut self, now_ns: u64, due_ns: u64) {
        let from_ns = due_ns.max(self.ticked_ns);
        self.ticked_ns = now_ns;
        if now_ns.saturating_sub(due_ns) <= LATE_NS || self.makes(Mistake::AccuseWhenLate) {
            return;
        }
        self.grace_until_ns = now_ns + GRACE_NS;
        self.judge_at_ns = self.judge_at_ns.min(self.grace_until_ns);
        let missed_ns = now_ns.saturating_sub(from_ns);
        for peer in self.peers.values_mut().filter(|peer| !peer.suspected) {
            peer.quiet_from_ns = now_ns.min(peer.quiet_from_ns + missed_ns);
            peer.confirmed_ns = now_ns.min(peer.confirmed_ns + missed_ns);
            // What lies in the socket came at its own time, not now.
            peer.mark = None;
        }
    }

    /// There is a peer of which nothing is known yet.
    pub fn meet(&mut self, node: u16) {
        self.peers.entry(node).or_default();
    }

    /// A handshake with the process `boot_nonce` of `node` was done, 0 if it did not say: both ends hear each other.
    pub fn link_up(&mut self, now_ns: u64, node: u16, boot_nonce: u64) {
        let peer = self.peers.entry(node).or_default();
        peer.link = Link::Up;
        peer.boot_nonce = boot_nonce;
        peer.heard_ns = Some(now_ns);
        peer.suspected = false;
        peer.reset(now_ns);
        self.judge_at_ns = 0;
    }

    /// The connection with `node` is gone: that counts at once, and until the next handshake.
    pub fn link_down(&mut self, node: u16) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link = Link::Down;
            peer.suspected = false;
        }
    }

    /// There is no such peer any more.
    pub fn forget(&mut self, node: u16) {
        self.peers.remove(&node);
    }

    /// A frame of `node` came: it lives. That it comes when it comes says nothing about heartbeats.
    pub fn hear_frame(&mut self, now_ns: u64, node: u16) {
        let learns = !self.makes(Mistake::LimitNeverGrows);
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.link == Link::Up) {
            peer.hear(now_ns, learns);
            self.judge_at_ns = self.judge_at_ns.min(peer.news_at());
        }
    }

    /// The latest heartbeat of `node` came. One that was never met is nobody.
    pub fn hear_beat(&mut self, now_ns: u64, node: u16, heard: &Heard) {
        let learns = !self.makes(Mistake::LimitNeverGrows);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.link == Link::Down {
            // It lives, but who has no connection is of no use before the next handshake.
            peer.heard_ns = Some(now_ns);
            return;
        }
        if peer.boot_nonce != heard.boot_nonce {
            peer.boot_nonce = heard.boot_nonce;
            peer.reset(now_ns);
        }
        peer.hear(now_ns, learns);
        peer.measure(now_ns, heard.number);
        peer.late_ns = if learns { heard.late_ns } else { 0 };
        peer.denies = !heard.hears_me;
        if heard.hears_me {
            peer.confirmed_ns = now_ns;
        }
        self.judge_at_ns = self.judge_at_ns.min(peer.news_at());
    }

    /// Whether `node` was heard lately, by this node's own ears alone.
    pub fn hears(&self, now_ns: u64, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_watched() && !self.is_silent(now_ns, peer))
    }

    /// Whether both ends hear each other.
    pub fn trusts(&self, now_ns: u64, node: u16) -> bool {
        self.hears(now_ns, node) && self.peers.get(&node).is_some_and(|peer| !self.is_one_way(now_ns, peer))
    }

    /// Everyone who is heard.
    pub fn heard(&self, now_ns: u64) -> impl Iterator<Item = u16> {
        self.peers
            .iter()
            .filter(move |(_, peer)| peer.is_watched() && !self.is_silent(now_ns, peer))
            .map(|(node, _)| *node)
    }

    /// A silence that was judged already lasts until something is heard, however late the own loop is.
    fn is_silent(&self, now_ns: u64, peer: &Peer) -> bool {
        now_ns >= peer.silent_at() && (peer.suspected || now_ns >= self.grace_until_ns)
    }

    fn is_one_way(&self, now_ns: u64, peer: &Peer) -> bool {
        let over = peer.one_way_at().is_some_and(|at| now_ns >= at);
        over && (peer.suspected || now_ns >= self.grace_until_ns)
    }

    /// Judges everyone, at the end of a turn: whatever had come was read before. What is new goes to `notices`.
    pub fn judge(&mut self, now_ns: u64, notices: &mut Vec<Notice>) {
        if now_ns < self.judge_at_ns {
            return;
        }
        let mut peers = std::mem::take(&mut self.peers);
        for (node, peer) in &mut peers {
            if peer.is_watched() {
                self.judge_one(now_ns, *node, peer, notices);
            }
        }
        self.peers = peers;
        let watched = self.peers.values().filter(|peer| peer.is_watched());
        self.judge_at_ns = watched.filter_map(|peer| self.next_at(now_ns, peer)).min().unwrap_or(u64::MAX);
    }

    fn judge_one(&self, now_ns: u64, node: u16, peer: &mut Peer, notices: &mut Vec<Notice>) {
        let gone = self.is_silent(now_ns, peer) || self.is_one_way(now_ns, peer);
        if gone != peer.suspected {
            peer.suspected = gone;
            if gone {
                peer.suspicions += 1;
                notices.push(Notice::Suspect(node));
            } else {
                peer.returns += 1;
                notices.push(Notice::Trust(node));
            }
        }
        if !gone && now_ns >= peer.probe_at() {
            peer.probed_ns = now_ns;
            notices.push(Notice::Probe(node));
        }
    }

    /// When there is something new to be found about a peer, if nothing is heard of it until then.
    fn next_at(&self, now_ns: u64, peer: &Peer) -> Option<u64> {
        if peer.suspected {
            return None;
        }
        let verdict_at = peer.silent_at().min(peer.one_way_at().unwrap_or(u64::MAX)).max(self.grace_until_ns);
        Some(peer.probe_at().min(verdict_at).max(now_ns + 1))
    }

    /// When [`Self::judge`] is to be called next.
    pub fn next_timeout(&self) -> Option<u64> {
        (self.judge_at_ns != u64::MAX).then_some(self.judge_at_ns)
    }

    /// How often anyone was suspected so far.
    pub fn suspicions(&self) -> u64 {
        self.peers.values().map(|peer| peer.suspicions).sum()
    }

    /// Whether `node` is suspected at the moment.
    pub fn suspects(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.suspected)
    }

    /// Whether anyone is suspected at the moment.
    pub fn suspects_anyone(&self) -> bool {
        self.peers.values().any(|peer| peer.suspected)
    }

    /// What is thought of everyone, and why.
    pub fn statuses(&self, now_ns: u64) -> impl Iterator<Item = PeerStatus> {
        self.peers.iter().map(move |(node, peer)| {
            let (state, reason) = self.state(now_ns, peer);
            PeerStatus {
                node: *node,
                state,
                reason,
                heard_ms: peer.heard_ns.map(|heard_ns| to_ms(now_ns.saturating_sub(heard_ns))),
                limit_ms: to_ms(peer.limit()),
                suspicions: peer.suspicions,
                returns: peer.returns,
            }
        })
    }

    fn state(&self, now_ns: u64, peer: &Peer) -> (PeerState, PeerReason) {
        if peer.link == Link::Down {
            (PeerState::Red, PeerReason::Reset)
        } else if peer.heard_ns.is_none() {
            (PeerState::Red, PeerReason::NeverHeard)
        } else if self.is_silent(now_ns, peer) {
            (PeerState::Red, PeerReason::Silent)
        } else if self.is_one_way(now_ns, peer) {
            (PeerState::Red, PeerReason::OneWay)
        } else if now_ns < self.grace_until_ns {
            (PeerState::Yellow, PeerReason::OwnLoopLate)
        } else if now_ns >= peer.yellow_at() {
            (PeerState::Yellow, PeerReason::Silent)
        } else {
            (PeerState::Green, PeerReason::Heard)
        }
    }
}

fn to_ms(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX)
}
