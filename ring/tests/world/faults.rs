//! What goes wrong in the simulated cluster.

use std::collections::BTreeSet;

use pygmy_proto::batch::Batch;
use pygmy_proto::message::Membership;
use pygmy_ring::config::LogUuid;
use pygmy_ring::{Change, Config, Input, Mistake, Replica};

use super::checker::Check;
use super::disk::Disk;
use super::rare::configuration_in;
use super::{Event, MS, Mix, World, uuid, voter};

impl World {
    pub(super) fn on_fault(&mut self) -> Check {
        if self.now >= self.faults_end {
            return self.heal();
        }
        let after = self.upto(self.pace.fault_ns);
        self.schedule(after, Event::Fault);
        let count = self.nodes.len() as u64;
        let (a, b) = (self.upto(count) as u16 + 1, self.upto(count) as u16 + 1);
        if self.plan.mix == Mix::Links {
            return self.break_links_of(a, b);
        }
        match self.upto(23) {
            20 | 21 if self.pace.damages => return self.damage(a),
            22 if self.pace.changes => self.change(a),
            0..3 if self.pace.deaths => return self.kill(a),
            3..7 if self.nodes[&a].replica.is_none() => self.restart(a),
            7 if self.pace.deaths => {
                for node in 1..=count as u16 {
                    self.kill(node)?;
                    let after = self.upto(20 * MS);
                    self.schedule(after, Event::Restart { node });
                }
            }
            8 if self.pace.deaths => self.wipe(a),
            9 | 10 if self.pace.pauses => self.pause(a),
            11 | 12 if self.pace.partitions => self.part(a),
            13 | 14 if self.pace.changes => self.change(a),
            15 if self.pace.snapshots => self.take_snapshot(a),
            16 if self.pace.deaths && self.boot(a).is_some() && !self.must_remember(a) => {
                self.trace(|| format!("{a} is asked to leave"));
                if let Some(state) = self.nodes.get_mut(&a) {
                    state.leaving = true;
                }
                self.input(a, Input::Leave);
            }
            17 => return self.exit_those_that_left(),
            _ if a != b => {
                let again = self.upto(20 * MS);
                self.break_link(a, b, Some(again));
            }
            _ => {}
        }
        Ok(())
    }

    /// All links of a node, or one of them, break and come back.
    fn break_links_of(&mut self, node: u16, other: u16) -> Check {
        let all = self.upto(2) == 0;
        let others: Vec<u16> = self.nodes.keys().copied().filter(|n| *n != node && (all || *n == other)).collect();
        for other in others {
            let again = self.upto(2 * MS);
            self.break_link(node, other, Some(again));
        }
        Ok(())
    }

    /// The faults end: a majority of the voters is healed, whoever else can is too, or stays dead for good.
    fn heal(&mut self) -> Check {
        self.trace(|| "the faults end".into());
        if self.plan.mix == Mix::Links {
            return Ok(());
        }
        self.end_partition(self.partition);
        let nodes: Vec<u16> = self.nodes.keys().copied().collect();
        for node in &nodes {
            // Whoever was asked to leave has left by now, and comes back.
            if self.nodes[node].leaving {
                self.kill(*node)?;
            }
            if let Some(state) = self.nodes.get_mut(node) {
                (state.paused_at, state.paused_until) = (0, 0);
            }
        }
        let rest = self.upto(nodes.len() as u64) as usize;
        for node in nodes.iter().cycle().skip(rest).take(nodes.len()) {
            if self.upto(2) == 0 && self.can_do_without(*node) {
                self.kill(*node)?;
                self.trace(|| format!("{node} stays dead for good"));
                self.to_replace.remove(node);
                if let Some(state) = self.nodes.get_mut(node) {
                    state.gone = true;
                }
            }
        }
        for node in nodes {
            if self.nodes[&node].replica.is_none() && !self.nodes[&node].gone {
                self.restart(node);
            }
        }
        let broken: Vec<_> = self.links.iter().filter(|(_, link)| link.broken).map(|(pair, _)| *pair).collect();
        for (acceptor, dialer) in broken {
            self.schedule(0, Event::Connect { dialer, acceptor });
        }
        Ok(())
    }

    /// Whether a majority of the voters of every configuration that any log names is left, and a catalog, when `node`,
    /// all that are gone and all that lack what they once held are left out.
    pub(super) fn can_do_without(&self, node: u16) -> bool {
        let left = |n: u16| n != node && !self.nodes[&n].gone && self.nodes[&n].disk.ails().is_none();
        // A replacement that has begun must find the log that it names.
        let uuid = self.nodes[&node].disk.uuid;
        let named = |m: &Membership| m.swap.as_ref().is_some_and(|s| s.new.log_uuid == uuid);
        if self.memberships().iter().any(named) || self.tickets.values().any(|t| t.names == Some(uuid)) {
            return false;
        }
        let logs: BTreeSet<LogUuid> =
            self.nodes.iter().filter(|(n, _)| left(**n)).map(|(_, state)| state.disk.uuid).collect();
        let removed =
            |n: u16| self.alive().any(|(_, replica)| replica.membership().removed.contains(&self.nodes[&n].disk.uuid));
        let catalogs = self.nodes.keys().filter(|n| left(**n) && self.is_catalog(**n) && !removed(**n)).count();
        let majority = |voters: &[pygmy_proto::message::Voter]| {
            voters.iter().filter(|voter| logs.contains(&voter.log_uuid)).count() > voters.len() / 2
        };
        catalogs > 0 && self.memberships().iter().all(|membership| majority(&membership.voters))
    }

    /// Every configuration that any log, also of a dead process, names last.
    fn memberships(&self) -> Vec<Membership> {
        let of_disk = |state: &super::Node| {
            let now = pygmy_ring::Now { mono_ns: self.now, wall_us: 0 };
            let replica = Replica::open(state.config.clone(), now, state.disk.recovered()).ok()?;
            Some(replica.membership().clone())
        };
        let alive = self.alive().map(|(_, replica)| replica.membership().clone());
        self.nodes.values().filter_map(of_disk).chain(alive).collect()
    }

    fn exit_those_that_left(&mut self) -> Check {
        let left = self.nodes.iter().find_map(|(node, state)| {
            (state.leaving && state.replica.as_ref().is_some_and(Replica::has_left)).then_some(*node)
        });
        left.map_or(Ok(()), |node| self.kill(node))
    }

    pub(super) fn kill(&mut self, node: u16) -> Check {
        if self.nodes[&node].replica.is_none() || self.must_remember(node) {
            return Ok(());
        }
        self.trace(|| format!("{node} dies"));
        self.summary.deaths += 1;
        let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        let waiting = self.nodes[&node].disk.queue.len() as u64;
        let reached = if self.upto(2) == 0 { self.upto(waiting + 1) as usize } else { 0 };
        if let Some(state) = self.nodes.get_mut(&node) {
            if let Some(replica) = state.replica.take() {
                super::add(&mut self.summary.counters, &replica.counters());
            }
            state.disk.crash(reached);
            (state.paused_at, state.paused_until) = (0, 0);
            self.checker.on_platter(state.disk.uuid, &state.disk.log);
        }
        self.fresh.retain(|(asked, _), _| *asked != node);
        let mut lost: Vec<u64> = self.tickets.iter().filter(|(_, t)| t.node == node).map(|(n, _)| *n).collect();
        lost.sort_unstable();
        for ticket in lost.iter().filter_map(|number| self.tickets.remove(number)) {
            if let Some(client) = ticket.client {
                self.clients[client].on_handed_back(ticket.counter, self.now);
            }
        }
        if self.rng_bool(30) {
            let after = self.upto(20 * MS);
            self.schedule(after, Event::Restart { node });
        }
        for other in others {
            self.break_link(node, other, None);
            self.link(node, other).seen[usize::from(node > other)] = None;
        }
        Ok(())
    }

    fn rng_bool(&mut self, percent: u64) -> bool {
        self.upto(100) < percent
    }

    /// A process that died comes back with its disk: the same log, another boot.
    pub(super) fn restart(&mut self, node: u16) {
        if self.nodes[&node].gone || self.nodes[&node].replica.is_some() {
            return;
        }
        self.next_boot += 1;
        let boot = self.next_boot;
        self.trace(|| format!("{node} is started again as boot {boot}"));
        let Some(state) = self.nodes.remove(&node) else { return };
        let config = Config { boot_nonce: boot, log_uuid: state.disk.uuid, ..state.config };
        self.start(config, state.disk);
        let others: Vec<u16> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            let after = self.upto(2 * MS);
            self.schedule(after, Event::Connect { dialer: node.max(other), acceptor: node.min(other) });
        }
    }

    /// A dead process's disk is lost, if the cluster can do without: it comes back with another one, and another name.
    fn wipe(&mut self, node: u16) {
        let count = self.nodes.len() as u64;
        let lost_already = self.summary.wipes > 0 && count < 5;
        if self.nodes[&node].replica.is_some() || lost_already || !self.can_do_without(node) {
            return;
        }
        // One copy too few, and an entry that counts as durable may be gone: the fault model stops short of that.
        if self.nodes.values().any(|state| state.disk.queue.is_empty() && state.gone) {
            return;
        }
        self.summary.wipes += 1;
        self.next_boot += 1;
        let fresh = uuid(node, self.next_boot);
        self.trace(|| format!("the disk of {node} is lost"));
        let keeps_name = self.plan.mistake == Some(Mistake::EmptyDiskVotes);
        let old = self.nodes[&node].disk.uuid;
        if !keeps_name && self.memberships().iter().any(|m| m.voters.iter().any(|v| v.log_uuid == old)) {
            self.to_replace.insert(node, old);
        }
        if let Some(state) = self.nodes.get_mut(&node) {
            let name = if keeps_name { state.disk.uuid } else { fresh };
            state.disk = Disk::new(name);
        }
    }

    fn pause(&mut self, node: u16) {
        if self.boot(node).is_none() {
            return;
        }
        let longest = [20 * MS, 400 * MS, 1_500 * MS][self.upto(3) as usize];
        let length = self.upto(longest);
        self.trace(|| format!("{node} is paused for {} ms", length / MS));
        self.summary.pauses += 1;
        if let Some(state) = self.nodes.get_mut(&node) {
            state.paused_at = self.now;
            state.paused_until = self.now + length;
        }
    }

    /// A part of the nodes, or one direction of one pair, is cut off for a while.
    fn part(&mut self, node: u16) {
        self.end_partition(self.partition);
        self.partition += 1;
        let partition = self.partition;
        self.summary.partitions += 1;
        let nodes: Vec<u16> = self.nodes.keys().copied().collect();
        let side: BTreeSet<u16> = match self.upto(3) {
            0 => BTreeSet::from([node]),
            _ => nodes.iter().copied().filter(|_| self.upto(2) == 0).collect(),
        };
        let one_way = self.upto(3) == 0;
        self.trace(|| format!("{side:?} is cut off, one way: {one_way}"));
        for a in &nodes {
            for b in &nodes {
                if a < b && side.contains(a) != side.contains(b) {
                    self.break_link(*a, *b, Some(MS));
                    let link = self.link(*a, *b);
                    link.blocked = !one_way;
                    link.deaf = if one_way { [side.contains(a), side.contains(b)] } else { [true, true] };
                }
            }
        }
        let after = self.upto(1_000 * MS);
        self.schedule(after, Event::Heal { partition });
    }

    pub(super) fn end_partition(&mut self, partition: u64) {
        if partition != self.partition {
            return;
        }
        for link in self.links.values_mut() {
            link.blocked = false;
            link.deaf = [false, false];
        }
    }

    /// Somebody asks a catalog to put another log in a voter's place.
    fn change(&mut self, at: u16) {
        let Some(replica) = self.replica(at) else { return };
        let membership = replica.membership().clone();
        let catalogs = self.nodes[&at].config.catalogs.len() as u16;
        let learners: Vec<u16> = self
            .alive()
            .map(|(node, _)| node)
            .filter(|node| !membership.voters.iter().any(|v| v.log_uuid == self.nodes[node].disk.uuid))
            .collect();
        if learners.is_empty() || membership.voters.is_empty() {
            return;
        }
        let new = learners[self.upto(learners.len() as u64) as usize];
        let own_slot = membership.voters.iter().find(|v| v.node == new);
        let old = match own_slot {
            // Its own former log, which is lost, is the one to go.
            Some(former) => former.log_uuid,
            // A replacement has the role of what it replaces.
            None => {
                let pick = self.upto(membership.voters.len() as u64);
                let like: Vec<_> = membership.voters.iter().filter(|v| v.holds_token == self.is_catalog(new)).collect();
                let Some(old) = like.get(pick as usize).map(|v| v.log_uuid) else { return };
                old
            }
        };
        let new = voter(new, self.nodes[&new].disk.uuid, catalogs);
        self.propose_change(at, Change::Replace { old, new });
    }

    /// Something befalls whoever has just changed the voters: rarely is so much at stake.
    pub(super) fn maybe_mishap(&mut self, node: u16, batch: &Batch) {
        if configuration_in(batch).is_some() && self.upto(2) == 0 {
            let after = self.upto(self.pace.frame_ns);
            self.schedule(after, Event::Mishap { node });
        }
    }

    pub(super) fn mishap(&mut self, node: u16) -> Check {
        if self.now >= self.faults_end {
            return Ok(());
        }
        match self.upto(3) {
            0 if self.pace.deaths => return self.kill(node),
            1 if self.pace.pauses => self.pause(node),
            _ if self.pace.partitions => self.part(node),
            _ => {}
        }
        Ok(())
    }

    /// Whoever lost its disk is put in its own former place, however often that must be asked for.
    pub(super) fn on_operator(&mut self) {
        let after = 20 * MS + self.upto(100 * MS);
        self.schedule(after, Event::Operator);
        let often = if self.plan.mix == Mix::Changes { 1 } else { 4 };
        if self.pace.changes && self.plan.mix != Mix::Links && self.now < self.faults_end && self.upto(often) == 0 {
            let at = self.upto(self.nodes.len() as u64) as u16 + 1;
            self.change(at);
        }
        for (node, old) in self.to_replace.clone() {
            let new = self.nodes[&node].disk.uuid;
            if let Some(latest) = self.latest_membership().filter(|m| m.swap.is_none() && !names(m, old)) {
                self.summary.rare.lost_disks_replaced += u64::from(names(&latest, new));
                self.to_replace.remove(&node);
                continue;
            }
            let asked: Vec<u16> = self.alive().map(|(n, _)| n).filter(|n| self.is_catalog(*n)).collect();
            let waits = self.tickets.values().any(|ticket| ticket.client.is_none());
            if self.nodes[&node].replica.is_none() || asked.is_empty() || waits {
                continue;
            }
            let at = asked[self.upto(asked.len() as u64) as usize];
            let catalogs = self.nodes[&node].config.catalogs.len() as u16;
            self.propose_change(at, Change::Replace { old, new: voter(node, new, catalogs) });
        }
    }

    /// The latest configuration that any live process knows: those that were removed learn of no other.
    fn latest_membership(&self) -> Option<Membership> {
        self.alive().map(|(_, replica)| replica.membership()).max_by_key(|m| m.id).cloned()
    }

    /// Whether a replacement is half done.
    pub(super) fn is_swapping(&self) -> bool {
        self.latest_membership().is_some_and(|m| m.swap.is_some())
    }

    /// Whether `node` has been told of what its disk has silently lost: another process would have to be told again.
    fn must_remember(&self, node: u16) -> bool {
        self.nodes[&node].replica.is_some() && self.nodes[&node].disk.ails().is_some_and(|lost| !lost.shows)
    }

    /// The disk of a dead process loses the end of its log, which it had acknowledged. Either that shows when it is
    /// read, or it does not; then somebody who remembers must be the first whom it meets. Never are all copies of an
    /// entry lost.
    fn damage(&mut self, node: u16) -> Check {
        let state = &self.nodes[&node];
        let ails = self.nodes.values().any(|state| state.disk.ails().is_some());
        let spent = self.summary.wipes > 0 && self.nodes.len() < 5;
        if state.replica.is_some() || state.disk.log.is_empty() || ails || spent || !self.can_do_without(node) {
            return Ok(());
        }
        let (uuid, end) = (state.disk.uuid, state.disk.end());
        let shows = self.upto(2) == 0;
        let count = 1 + self.upto(4) as usize;
        let remembers = |replica: &Replica<_>| {
            let acked = replica.hello(node).acked;
            acked.log_uuid == uuid && acked.end >= end
        };
        let witness = self.alive().find(|(other, r)| self.nodes[other].paused_until <= self.now && remembers(r));
        let witness = witness.map(|(other, _)| other);
        if !shows && witness.is_none() {
            return Ok(());
        }
        self.trace(|| format!("the disk of {node} loses the last {count} batches up to {end:?}; it shows: {shows}"));
        if let Some(state) = self.nodes.get_mut(&node) {
            state.disk.lose(count, shows);
        }
        if shows {
            self.summary.rare.damages += 1;
            return Ok(());
        }
        self.summary.rare.amnesias += 1;
        self.restart(node);
        witness.map_or(Ok(()), |witness| self.meet(node, witness))
    }

    fn take_snapshot(&mut self, node: u16) {
        let Some(snapshot) = self.snapshot_of(node) else { return };
        self.summary.snapshots += 1;
        self.trace(|| format!("{node} takes a snapshot at {}", snapshot.at.base.end.seq));
        if let Some(state) = self.nodes.get_mut(&node) {
            state.disk.take(snapshot);
        }
    }
}

/// Whether the log `uuid` votes.
fn names(membership: &Membership, uuid: LogUuid) -> bool {
    membership.voters.iter().any(|voter| voter.log_uuid == uuid)
}
