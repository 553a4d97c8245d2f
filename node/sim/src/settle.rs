//! What follows the faults: everything is answered and everyone agrees, then nothing happens, then everything adds up.

use crate::check::{Check, Violation};
use crate::client::Client;
use crate::host::{Item, Process};
use crate::plan::{MS, SEC};
use crate::world::World;

/// After the faults have ended, everything must be answered and everyone agree within this.
const SETTLE_MAX: u64 = 60 * SEC;
/// Time for what nobody waits for any more to reach its deadline.
const GRACE: u64 = 1_500 * MS;
/// A frame that has come in part is complete, and taken, within this.
const ARRIVAL_MAX: u64 = 100 * MS;
/// How long an idle cluster is watched.
const WATCH: u64 = SEC;
/// Heartbeats of a replica in that time, one more for its edges and one for a fast clock.
const BEATS_MAX: u64 = WATCH / (50 * MS) + 2;

/// Turns that a snapshot makes.
const SNAPSHOT_TURNS_MAX: u64 = 3;

/// What went on so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Activity {
    /// Turns of nodes.
    pub(crate) turns: u64,
    /// Pieces of streams sent.
    pub(crate) pieces: u64,
    /// Datagrams sent.
    pub(crate) datagrams: u64,
    /// Snapshots ordered.
    pub(crate) snapshots: u64,
}

impl World {
    /// Everything pending is answered and all replicas agree, within a bounded time.
    pub(crate) fn settle(&mut self) -> Check {
        for client in self.clients_mut() {
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
        let agrees = |index: &usize| {
            let host = &self.hosts[*index];
            if self.is_removed(*index) {
                return host.process.is_none();
            }
            host.process.as_ref().is_some_and(|process| {
                let ring = process.node.replica().map(|replica| replica.ring());
                !process.leaving
                    && !host.disk.is_busy()
                    && ring.is_none_or(|ring| {
                        ring.installed()
                            && (ring.applied(), ring.log().last_seq()) == (upto, upto)
                            && host.disk.holds(upto, ring.log().last_hash())
                    })
            })
        };
        self.clients().iter().all(Client::is_done)
            && (0..self.hosts.len()).filter(|index| !self.hosts[*index].gone).all(|index| agrees(&index))
            && !self.replaces()
            && self.is_of_one_epoch()
    }

    /// Whether all replicas are in one epoch and, unless it circles, one has the token.
    fn is_of_one_epoch(&self) -> bool {
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let rings: Vec<_> = processes.filter_map(|process| Some(process.node.replica()?.ring())).collect();
        let holders = rings.iter().filter(|ring| ring.token().is_some()).count();
        rings.windows(2).all(|two| two[0].promised() == two[1].promised()) && (self.plan.rotate || holders == 1)
    }

    fn what_hangs(&self) -> String {
        let mut lines = vec![format!("committed up to {}", self.checker.upto())];
        lines.push(self.replacement());
        lines.extend(self.clients().iter().filter(|client| !client.is_done()).map(Client::pending));
        for host in &self.hosts {
            match &host.process {
                Some(process) => {
                    let replica = process.node.replica().map(|replica| (replica.status(), replica.ring()));
                    lines.push(format!("{} leaving: {} {replica:?}", host.name, process.leaving));
                }
                None => lines.push(format!("{} is down, for good: {}", host.name, host.gone)),
            }
        }
        lines.join("\n  ")
    }

    /// A cluster without work sends its heartbeats and does nothing else.
    pub(crate) fn watch_idle(&mut self) -> Check {
        self.run_until(self.at + GRACE)?;
        let before = self.activity;
        self.run_until(self.at + WATCH)?;
        let now = self.activity;
        let nodes = (0..self.hosts.len()).filter(|index| !self.is_removed(*index)).count() as u64;
        let beats = BEATS_MAX * nodes;
        // A rotating token makes two nodes turn at each pass and one at each rest, at most about every millisecond.
        // A catalog that was unwell gets the token that it wanted only when it has been well for long enough.
        let late = 2 * u64::from(self.plan.catalogs);
        let (passes, rests) = if self.plan.rotate { (2 * WATCH / MS, 4 * WATCH / MS) } else { (late, 2 * late) };
        // One that failed may be tried again now: a turn when it is there, and two when the log is cut for it.
        let snapshots = SNAPSHOT_TURNS_MAX * (now.snapshots - before.snapshots);
        let counts = [
            ("pieces of streams", now.pieces - before.pieces, passes),
            ("datagrams", now.datagrams - before.datagrams, beats * (nodes - 1)),
            // Each node's failure detector may look once between two heartbeats, and a turn that was planned for it comes
            // although what it was to look for has been heard meanwhile.
            ("turns", now.turns - before.turns, beats * (nodes + 2) + rests + snapshots),
        ];
        match counts.iter().find(|(_, count, allowed)| count > allowed) {
            None => Ok(()),
            Some((what, count, allowed)) => {
                let detail = format!("{count} {what} in an idle second, allowed are {allowed}");
                Err(Violation { invariant: "idle", detail })
            }
        }
    }

    fn run_until(&mut self, until: u64) -> Check {
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.at = until;
        Ok(())
    }

    /// Whether a process has something before it. A token that circles is always somewhere on its way.
    fn has_unread(&self, process: &Process) -> bool {
        let unread = process.inbox.iter().filter(|item| !matches!(item, Item::Datagram(_))).count();
        !self.plan.rotate && (process.buffered() > 0 || unread > 0)
    }

    pub(crate) fn check_rest(&mut self) -> Check {
        // A token that a catalog wanted while it was unwell may be on its way at this very moment.
        let until = self.at + ARRIVAL_MAX;
        let busy =
            |world: &Self| world.hosts.iter().filter_map(|host| host.process.as_ref()).any(|p| world.has_unread(p));
        while self.at < until && busy(self) {
            self.step()?;
        }
        self.checker.intents_once()?;
        for host in &self.hosts {
            let Some(process) = &host.process else { continue };
            self.checker.at_rest(&host.name, &process.node)?;
            let status = process.node.status(process.clock(self.at));
            let busy: u32 = status.jobs + status.links.iter().map(|link| link.in_flight).sum::<u32>();
            if busy > 0 || self.has_unread(process) {
                let detail = format!("{} is idle and still has {busy} jobs: {status:?}", host.name);
                return Err(Violation { invariant: "I13", detail });
            }
        }
        for host in 0..self.hosts.len() {
            self.count_ring(host);
            self.rare.recycled += self.hosts[host].disk.recycled();
            if self.hosts[host].process.is_some() && self.hosts[host].is_replica() {
                self.probe(host)?;
            }
        }
        self.rare.sessions += self.checker.sessions() as u64;
        Ok(())
    }
}
