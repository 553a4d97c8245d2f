//! The fault scheduler: what breaks, when, and what must not break because this build has one epoch.
//!
//! One epoch stands the loss of no token: whoever holds it, may just have been given it, or alone has a part of the log
//! is not killed, and while a node leaves its links stay whole. A majority of the voters born with the cluster stays.

use pygmy_proto::message::Role;

use crate::events::{Event, Fault};
use crate::host::{Item, Process};
use crate::net::Owner;
use crate::plan::{MS, SEC};
use crate::world::World;

const FAULTS: [Fault; 5] = [Fault::Reset, Fault::Pause, Fault::Clock, Fault::Crash, Fault::Leave];

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for fault in FAULTS {
            self.plan_fault(fault);
        }
    }

    fn plan_fault(&mut self, fault: Fault) {
        let faults = self.plan.faults;
        let every = match fault {
            Fault::Reset => faults.reset_every,
            Fault::Pause => faults.pause_every,
            Fault::Clock => faults.clock_every,
            Fault::Crash => faults.crash_every,
            Fault::Leave => faults.leave_every,
        };
        if let Some(every) = every {
            let at = self.at + self.chance.around(every);
            self.agenda.plan(at, Event::Fault(fault));
        }
    }

    pub(crate) fn on_fault(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        match fault {
            Fault::Reset => self.reset_some_link(),
            Fault::Pause => self.pause_somebody(),
            Fault::Clock => self.move_some_clock(),
            Fault::Crash => self.crash_somebody(),
            Fault::Leave => self.ask_somebody_to_leave(),
        }
        self.plan_fault(fault);
    }

    /// All faults end: nobody is stopped, the dead come back, or some of them do.
    pub(crate) fn end_faults(&mut self) {
        // The last thing said on many links is lost, and nothing new will come to make up for it.
        if self.plan.faults.reset_every.is_some() && self.chance.permille(400) {
            for _ in 0..self.chance.between(4, 16) {
                self.reset_some_link();
            }
        }
        self.calm = true;
        self.net.calm = true;
        self.trace.note(self.at, 600, &[], || "all faults end".to_owned());
        for host in 0..self.hosts.len() {
            if let Some(process) = &mut self.hosts[host].process {
                process.paused_until = process.paused_until.min(self.at + MS);
            }
        }
        if self.chance.permille(300) {
            self.bury_the_dead();
        }
    }

    /// Who is down now stays down, but for the last of a role.
    fn bury_the_dead(&mut self) {
        for host in 0..self.hosts.len() {
            let role = self.hosts[host].role;
            let role_runs = self.running().any(|(index, _)| self.hosts[index].role == role);
            self.hosts[host].gone = self.hosts[host].process.is_none() && role_runs;
        }
    }

    /// A node that is down comes back after a while, `soonest` at the soonest.
    pub(crate) fn plan_return(&mut self, host: usize, soonest: u64) {
        let at = self.at + soonest + self.chance.below(300 * MS);
        self.agenda.plan(at, Event::Start { host });
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.hosts.iter().enumerate().filter_map(|(index, host)| host.process.as_ref().map(|process| (index, process)))
    }

    fn someone_leaves(&self) -> bool {
        self.running().any(|(_, process)| process.leaving)
    }

    fn is_leaving(&self, owner: Owner) -> bool {
        match owner {
            Owner::Host { index, .. } => self.hosts[index].process.as_ref().is_some_and(|process| process.leaving),
            Owner::Client { .. } => false,
        }
    }

    fn reset_some_link(&mut self) {
        let alive = self.net.find(|conn| {
            !conn.broken
                && conn.ends.iter().all(|end| end.open)
                && conn.ends.iter().all(|end| !self.is_leaving(end.owner))
        });
        let Some(conn) = self.chance.pick(&alive) else { return };
        self.rare.resets += 1;
        let [from, to] = self.net.conn(conn).ends.map(|end| self.name_of(end.owner));
        self.trace.note(self.at, 601, &conn.to_le_bytes(), || format!("connection {conn} ({from}, {to}) breaks"));
        self.net.break_conn(self.at, conn, 200 * MS, &mut self.chance, &mut self.agenda);
    }

    fn name_of(&self, owner: Owner) -> String {
        match owner {
            Owner::Host { index, .. } => self.hosts[index].name.clone(),
            Owner::Client { index } => format!("client-{index}"),
        }
    }

    fn pause_somebody(&mut self) {
        let host = self.chance.below(self.hosts.len() as u64) as usize;
        let until = self.at + self.chance.between(MS, 400 * MS);
        let Some(process) = &mut self.hosts[host].process else { return };
        process.paused_until = until;
        self.rare.pauses += 1;
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 602, &[host as u8], || format!("{name} is stopped until {}", until / MS));
    }

    fn move_some_clock(&mut self) {
        let host = self.chance.below(self.hosts.len() as u64) as usize;
        let by = self.chance.below(7 * 86_400 * 1_000_000);
        let back = self.chance.permille(600);
        let Some(process) = &mut self.hosts[host].process else { return };
        process.wall_base = if back { process.wall_base - by.min(process.wall_base) } else { process.wall_base + by };
        self.rare.clock_jumps += 1;
    }

    /// Whether the cluster can do without this node for good.
    fn can_lose(&self, host: usize) -> bool {
        let Some(process) = &self.hosts[host].process else { return false };
        if process.leaving || self.someone_leaves() {
            return false;
        }
        let Some(replica) = process.node.replica() else { return true };
        // A token on its way to a catalog that is gone is lost: it must not be wanted there, nor come unwanted.
        let wants = self.plan.rotate || replica.ring().hello().want > 0;
        if self.hosts[host].role == Role::Catalog && wants {
            return false;
        }
        let voters = self.running().filter(|(_, p)| p.original && p.node.replica().is_some()).count();
        if process.original && voters <= self.plan.majority() {
            return false;
        }
        // A role with nobody in it serves nobody.
        let role = self.hosts[host].role;
        if self.running().filter(|(index, _)| self.hosts[*index].role == role).count() < 2 {
            return false;
        }
        // Two others have what it has.
        let end = replica.ring().log().last_seq();
        let others = self.running().filter(|(index, p)| {
            *index != host && p.node.replica().is_some_and(|other| other.ring().log().last_seq() >= end)
        });
        others.count() >= 2
    }

    fn holder(&self) -> Option<usize> {
        self.running()
            .find(|(_, p)| p.node.replica().is_some_and(|replica| replica.ring().token().is_some()))
            .map(|(index, _)| index)
    }

    fn crash_somebody(&mut self) {
        let Some(holder) = self.holder() else { return };
        let able: Vec<usize> = (0..self.hosts.len()).filter(|host| *host != holder && self.can_lose(*host)).collect();
        let Some(host) = self.chance.pick(&able) else { return };
        match self.hosts[host].role {
            Role::Order => self.rare.order_crashes += 1,
            Role::Catalog => self.rare.catalog_crashes += 1,
            Role::Front | Role::Client => self.rare.front_crashes += 1,
        }
        let name = self.hosts[host].name.clone();
        self.trace.note(self.at, 603, &[host as u8], || format!("{name} is killed"));
        self.count_ring(host);
        let Some(process) = self.hosts[host].process.take() else { return };
        for (conn, end) in self.ends_of(Owner::Host { index: host, boot: process.boot }) {
            self.net.close_end(conn, end);
            self.net.break_conn(self.at, conn, 20 * MS, &mut self.chance, &mut self.agenda);
        }
        self.plan_return(host, MS);
    }

    fn ask_somebody_to_leave(&mut self) {
        let Some(holder) = self.holder() else { return };
        let able: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.can_lose(*host) && self.is_linked(*host)).collect();
        let host =
            if able.contains(&holder) && self.chance.permille(500) { Some(holder) } else { self.chance.pick(&able) };
        let Some(host) = host else { return };
        self.rare.leaves += 1;
        self.rare.holder_leaves += u64::from(host == holder);
        let name = self.hosts[host].name.clone();
        let holds = if host == holder { ", which holds the token," } else { "" };
        self.trace.note(self.at, 604, &[host as u8], || format!("{name}{holds} is asked to leave"));
        if let Some(process) = &mut self.hosts[host].process {
            process.leaving = true;
            let boot = process.boot;
            self.give(host, boot, Item::Leave);
        }
    }

    /// Whether all links of a node with replicas are up at both ends.
    fn is_linked(&self, host: usize) -> bool {
        let number = self.hosts[host].number;
        let is_up = |from: usize, to: u16| {
            let process = self.hosts[from].process.as_ref();
            let links = process.map(|process| process.node.status(process.clock(self.at)).links);
            links.is_some_and(|links| links.iter().any(|link| link.node == to && link.up))
        };
        let whole = self
            .running()
            .filter(|(index, p)| *index != host && p.node.replica().is_some())
            .all(|(index, _)| is_up(host, self.hosts[index].number) && is_up(index, number));
        let owner = self.hosts[host].process.as_ref().map(|process| Owner::Host { index: host, boot: process.boot });
        let broken = |owner| self.ends_of(owner).into_iter().any(|(conn, _)| self.net.conn(conn).broken);
        whole && owner.is_some_and(|owner| !broken(owner)) && self.at < self.plan.chaos.saturating_sub(SEC / 2)
    }
}
