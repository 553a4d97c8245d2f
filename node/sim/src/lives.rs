//! Who is known to live and who is not, held against who does run; and what comes of it for those who wait for answers.

use std::collections::BTreeMap;

use pygmy_proto::message::{PeerReason, PeerState, PeerStatus, Role};
use pygmy_ring::detector::{BEAT_NS, LATE_NS, LIMIT_MAX_NS};

use crate::check::{Check, Violation};
use crate::net::{HICCUP_MAX, STRAY_MAX};
use crate::plan::{MS, SEC, SKEW_MAX_PPM};
use crate::world::World;

/// A process that has not turned for so long did not run.
const STOPPED: u64 = LATE_NS * 9 / 10;
/// The longest silence that a detector may wait for, by the slowest clock.
const LIMIT_MAX: u64 = LIMIT_MAX_NS + LIMIT_MAX_NS * (2 * SKEW_MAX_PPM) / 1_000_000;
/// One heartbeat from either side takes a suspicion back.
const TRUST_MAX: u64 = 4 * BEAT_NS;
/// A process that died and came back is not heard by those who have not noticed yet that their connection broke.
const NOTICED_MAX: u64 = SEC + TRUST_MAX;

/// When a process ran, and since when.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ran {
    /// Its last turn.
    last: u64,
    /// The first turn after it had not run for a while.
    woke: u64,
}

impl Ran {
    /// It turns.
    pub(crate) fn turn(&mut self, at: u64) {
        if at > self.last + STOPPED {
            self.woke = at;
        }
        self.last = at;
    }

    /// Another process turns for the first time.
    pub(crate) fn start(&mut self, at: u64) {
        *self = Self { last: at, woke: at };
    }
}

/// Since when a node has suspected another one without a reason, by their indices.
pub(crate) type Grudges = BTreeMap<(usize, usize), u64>;

/// Whether it is silence that speaks against it, or that it does not hear, though its connection stands.
fn is_suspected(peer: &PeerStatus) -> bool {
    peer.state == PeerState::Red && matches!(peer.reason, PeerReason::Silent | PeerReason::OneWay)
}

impl World {
    /// What a node thinks of the others, after a turn.
    pub(crate) fn check_lives(&mut self, index: usize) -> Check {
        let Some(process) = &self.hosts[index].process else { return Ok(()) };
        let grudges = self.grudges.range((index, 0)..(index + 1, 0)).next().is_some();
        let (somebody_rests, suspects) =
            (self.hosts.iter().any(|host| self.at > host.ran.last + LIMIT_MAX), process.node.suspects_anyone());
        if !somebody_rests && !suspects && !grudges {
            return Ok(());
        }
        let peers = process.node.peer_statuses(process.clock(self.at));
        self.the_silent_are_known(index, &peers)?;
        self.nobody_waits_for_suspects(index, &peers)?;
        self.suspicion_passes(index, &peers)
    }

    /// Whoever does not run says nothing. So after the longest limit, and the time that what it said last may take, everybody
    /// who runs knows: from when it last ran, or the observer woke, or a cut that held something back healed.
    fn the_silent_are_known(&mut self, index: usize, peers: &[PeerStatus]) -> Check {
        let stray = if self.plan.faults.stray_permille > 0 { STRAY_MAX } else { 0 };
        let under_way = 2 * self.plan.latency.1 + HICCUP_MAX + stray;
        for peer in peers {
            let Some(other) = self.host_of(peer.node) else { continue };
            let said = self.hosts[other].ran.last.max(self.net.healed_at(other, index));
            let from = said.max(self.hosts[index].ran.woke);
            if self.at <= from + LIMIT_MAX + under_way + self.plan.turn_delay {
                continue;
            }
            self.rare.silences_known += 1;
            if peer.state != PeerState::Red {
                let (name, silent) = (&self.hosts[other].name, (self.at - from) / MS);
                let detail = format!("{name} has not run for {silent} ms, and {} has {peer:?}", self.hosts[index].name);
                return Err(Violation { invariant: "detector", detail });
            }
        }
        Ok(())
    }

    /// No request is left with a server that is suspected while another one of its role is not.
    fn nobody_waits_for_suspects(&mut self, index: usize, peers: &[PeerStatus]) -> Check {
        let host = &self.hosts[index];
        let suspects = |node: u16| peers.iter().any(|peer| peer.node == node && is_suspected(peer));
        let Some(process) = host.process.as_ref().filter(|_| peers.iter().any(is_suspected)) else { return Ok(()) };
        let links = process.node.status(process.clock(self.at)).links;
        let role = |node: u16| self.host_of(node).map(|other| self.hosts[other].role);
        let serves = |node: u16| process.node.is_served_by(node) && !suspects(node);
        let well = |of: Option<Role>| links.iter().any(|link| serves(link.node) && role(link.node) == of);
        let spared: Vec<_> =
            links.iter().filter(|link| link.up && suspects(link.node) && well(role(link.node))).collect();
        if let Some(link) = spared.iter().find(|link| link.in_flight > 0) {
            let detail = format!("{} suspects {} and waits for its answers: {links:?}", host.name, link.node);
            return Err(Violation { invariant: "dispatch", detail });
        }
        self.rare.suspects_spared += spared.len() as u64;
        Ok(())
    }

    /// Of two who run and hear each other, over links that lose nothing, none goes on suspecting the other one.
    fn suspicion_passes(&mut self, index: usize, peers: &[PeerStatus]) -> Check {
        let suspects = peers.iter().filter(|peer| is_suspected(peer));
        let found = suspects.filter_map(|peer| Some((self.host_of(peer.node)?, peer)));
        let unfair: Vec<_> = found.filter(|(other, _)| !self.is_disturbed(index, *other)).collect();
        self.grudges.retain(|(by, of), _| *by != index || unfair.iter().any(|(other, _)| other == of));
        for (other, peer) in unfair {
            let since = *self.grudges.entry((index, other)).or_insert(self.at);
            if self.at > since + TRUST_MAX {
                let names = [index, other].map(|index| &self.hosts[index].name);
                let detail =
                    format!("{} and {} run and hear each other, and the first has {peer:?}", names[0], names[1]);
                return Err(Violation { invariant: "detector", detail });
            }
        }
        Ok(())
    }

    /// Whether there is a reason for one of two nodes not to be heard by the other one, or to say so.
    fn is_disturbed(&self, index: usize, other: usize) -> bool {
        let lossy = !self.calm && (self.plan.faults.loss_permille > 0 || self.plan.faults.stray_permille > 0);
        let deaf = self.net.deaf.is_some_and(|deaf| {
            deaf.until > self.at && [(index, other), (other, index)].contains(&(deaf.from, deaf.to))
        });
        let host = &self.hosts[other];
        let stopped = self.at > host.ran.last + STOPPED || self.at < host.ran.woke + NOTICED_MAX;
        let denies = host.process.as_ref().is_none_or(|process| {
            let mut peers = process.node.peer_statuses(process.clock(self.at)).into_iter();
            peers.find(|peer| peer.node == self.hosts[index].number).is_none_or(|peer| peer.state == PeerState::Red)
        });
        lossy || (deaf && !self.calm) || self.net.parts(index, other) || stopped || denies
    }
}
