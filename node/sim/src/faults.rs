//! The fault scheduler: what breaks and when. Everything may, but for what the fault model rules out: so many disks
//! lost that those left are no majority of the voters, and in the end so many dead for good that nobody can go on.

use std::collections::BTreeSet;

use pygmy_proto::message::Role;

use crate::chance::Chance;
use crate::check::Check;
use crate::disk::End;
use crate::events::{Event, Fault};
use crate::host::{Item, Process};
use crate::net::{Cut, Deaf, Owner};
use crate::plan::{MS, SEC};
use crate::world::World;

/// A leaving node is killed after this.
const LEAVE_MAX: u64 = 2 * SEC;

/// The death of whoever is the next to ask for promises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doom {
    /// So long after it has asked.
    after: u64,
    end: End,
}

impl World {
    pub(crate) fn plan_faults(&mut self, left_out: &BTreeSet<usize>) {
        for (index, fault) in self.schedule.faults.iter().enumerate() {
            if !left_out.contains(&index) {
                self.agenda.plan(fault.at, Event::Fault(index));
            }
        }
    }

    pub(crate) fn on_fault(&mut self, index: usize) -> Check {
        let Some(planned) = self.schedule.faults.get(index).copied().filter(|_| !self.calm) else { return Ok(()) };
        // Whom it meets does not hang on what was drawn before.
        let others = std::mem::replace(&mut self.chance, Chance::new(planned.seed));
        let done = self.inject(planned.fault);
        self.chance = others;
        done
    }

    fn inject(&mut self, fault: Fault) -> Check {
        match fault {
            Fault::Reset => self.reset_some_link(),
            Fault::Pause => self.pause_somebody(),
            Fault::Clock => self.move_some_clock(),
            Fault::Crash => self.crash_somebody(),
            Fault::CrashAll => self.crash_all(),
            Fault::Wipe => self.wipe_somebody(),
            Fault::Leave => self.ask_somebody_to_leave(),
            Fault::Cut => self.cut_somebody_off()?,
            Fault::Full => self.fill_some_disk(),
            Fault::Slow => self.slow_some_disk(),
            Fault::Error => self.fail_some_disk(),
            Fault::Flip => self.flip_some_bit(),
            Fault::Replace => self.replace_somebody(),
            Fault::Feed => self.harm_some_feed()?,
            Fault::Deaf => self.deafen_somebody(),
        }
        Ok(())
    }

    /// All faults end: nobody is stopped or cut off, the dead come back, or some stay dead, and others die with them.
    pub(crate) fn end_faults(&mut self) {
        let others = std::mem::replace(&mut self.chance, Chance::new(self.schedule.end_seed));
        self.end_all();
        self.chance = others;
    }

    fn end_all(&mut self) {
        // The last thing said on many links is lost, and nothing new will come to make up for it.
        if self.chance.permille(self.plan.faults.last_resets_permille) {
            for _ in 0..self.chance.between(4, 16) {
                self.reset_some_link();
            }
        }
        self.calm = true;
        self.net.calm = true;
        self.trace.note(self.at, 600, &[], || "all faults end".to_owned());
        for host in &mut self.hosts {
            host.slow_until = 0;
            host.disk.mend();
            if let Some(process) = &mut host.process {
                process.paused_until = process.paused_until.min(self.at + MS);
            }
        }
        // A replacement under way has taken already what the cluster can do without.
        if self.chance.permille(self.plan.faults.graves_permille) && !self.replaces() {
            self.bury_some();
            self.kill_the_forgotten();
        }
        for host in 0..self.hosts.len() {
            // Whoever was stopped goes on now, not when it would have.
            self.plan_turn(host, self.at + MS);
            self.agenda.plan(self.at + MS, Event::Start { host });
        }
    }

    /// Whoever the others can do without dies, or not, and stays dead.
    fn bury_some(&mut self) {
        let count = self.hosts.len();
        let first = self.chance.below(count as u64) as usize;
        for host in (first..first + count).map(|index| index % count) {
            if self.chance.permille(500) && !self.hosts[host].gone && self.can_do_without(host) {
                self.crash(host);
                self.hosts[host].gone = true;
                self.rare.graves += 1;
                let name = &self.hosts[host].name;
                self.trace.note(self.at, 605, &[host as u8], || format!("{name} stays dead"));
            }
        }
    }

    /// Whether the others are a majority of the voters with their disks, and one of each role.
    fn can_do_without(&self, host: usize) -> bool {
        let left = |index: usize| index != host && !self.hosts[index].gone;
        let others = || (0..self.hosts.len()).filter(|index| left(*index));
        let voters = others().filter(|index| self.is_whole(*index)).count();
        let has = |role: Role| others().any(|index| self.hosts[index].role == role && !self.is_removed(index));
        voters >= self.checker.majority() && has(Role::Front) && has(Role::Order) && has(Role::Catalog)
    }

    /// A node that is down comes back after a while.
    pub(crate) fn plan_return(&mut self, host: usize) {
        let at = self.at + MS + self.chance.below(self.plan.faults.down_max.max(1));
        self.agenda.plan(at, Event::Start { host });
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.hosts.iter().enumerate().filter_map(|(index, host)| host.process.as_ref().map(|process| (index, process)))
    }

    pub(crate) fn pick_running(&mut self, wanted: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let able: Vec<usize> = self.running().map(|(index, _)| index).filter(|index| wanted(self, *index)).collect();
        self.chance.pick(&able)
    }

    fn holder(&self) -> Option<usize> {
        let holds = |process: &Process| process.node.replica().is_some_and(|replica| replica.ring().token().is_some());
        self.running().find(|(_, process)| holds(process)).map(|(index, _)| index)
    }

    pub(crate) fn name_of(&self, owner: Owner) -> String {
        match owner {
            Owner::Host { index, .. } => self.hosts[index].name.clone(),
            Owner::Client { index } => format!("client-{index}"),
            Owner::Operator => "operator".to_owned(),
        }
    }

    fn reset_some_link(&mut self) {
        let alive = self.net.find(|conn| !conn.broken && conn.ends.iter().all(|end| end.open));
        let Some(conn) = self.chance.pick(&alive) else { return };
        self.break_conn(conn);
    }

    pub(crate) fn break_conn(&mut self, conn: usize) {
        self.rare.resets += 1;
        let [from, to] = self.net.conn(conn).ends.map(|end| self.name_of(end.owner));
        self.trace.note(self.at, 601, &conn.to_le_bytes(), || format!("connection {conn} ({from}, {to}) breaks"));
        self.net.break_conn(self.at, conn, 200 * MS, &mut self.chance, &mut self.agenda);
    }

    fn pause_somebody(&mut self) {
        let holder = self.holder().filter(|_| self.chance.permille(300));
        let Some(host) = holder.or_else(|| self.pick_running(|_, _| true)) else { return };
        self.pause(host);
    }

    fn pause(&mut self, host: usize) {
        let until = self.at + self.chance.between(MS, self.plan.faults.pause_max);
        self.pause_until(host, until);
    }

    /// A front has asked for a barrier: it is stopped for longer than that counts, if that was drawn.
    pub(crate) fn pause_who_asked(&mut self, host: usize) {
        if self.calm || self.stops_asking != Some(host) {
            return;
        }
        self.stops_asking = None;
        self.rare.fed_paused += 1;
        let until = self.at + self.chance.between(200 * MS, 1_500 * MS);
        self.pause_until(host, until);
    }

    fn pause_until(&mut self, host: usize, until: u64) {
        let at = self.at;
        let Some(process) = &mut self.hosts[host].process else { return };
        (process.paused_from, process.paused_until) = (at, until);
        self.rare.pauses += 1;
        self.begin_thread(host);
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 602, &[host as u8], || format!("{name} is stopped until {}", until / MS));
    }

    fn move_some_clock(&mut self) {
        let Some(host) = self.pick_running(|_, _| true) else { return };
        let by = self.chance.below(7 * 86_400 * 1_000_000);
        let back = self.chance.permille(600);
        let Some(process) = &mut self.hosts[host].process else { return };
        let wall = &mut process.clocks.wall_us;
        *wall = if back { wall.saturating_sub(by) } else { *wall + by };
        self.rare.clock_jumps += 1;
    }

    fn crash_somebody(&mut self) {
        if self.chance.permille(150) {
            // Not now, but when somebody asks for promises, which takes too little time to be hit by chance: those who
            // gave them are left with an epoch that does not begin.
            let after = self.chance.below(4 * (self.plan.latency.1 + self.plan.sync.1));
            self.doom = Some(Doom { after, end: self.draw_end() });
            return;
        }
        let holder = self.holder().filter(|_| self.chance.permille(300));
        let Some(host) = holder.or_else(|| self.pick_running(|_, _| true)) else { return };
        match self.hosts[host].role {
            Role::Order => self.rare.order_crashes += 1,
            Role::Catalog => self.rare.catalog_crashes += 1,
            Role::Front | Role::Client => self.rare.front_crashes += 1,
        }
        self.rare.holder_crashes += u64::from(self.holder() == Some(host));
        self.crash(host);
        self.plan_return(host);
    }

    /// Somebody has asked for promises: it dies soon, if that was drawn.
    pub(crate) fn doom_coordinator(&mut self, host: usize, boot: u64) {
        if let Some(Doom { after, end }) = self.doom.take().filter(|_| !self.calm) {
            self.agenda.plan(self.at + after, Event::Doom { host, boot, end });
        }
    }

    pub(crate) fn on_doom(&mut self, host: usize, boot: u64, end: End) {
        if !self.calm && self.process(host, boot).is_some() {
            self.rare.coordinator_crashes += 1;
            self.kill(host, end);
            self.plan_return(host);
        }
    }

    /// A process or its machine dies.
    pub(crate) fn crash(&mut self, host: usize) {
        let end = self.draw_end();
        self.kill(host, end);
    }

    fn draw_end(&mut self) -> End {
        if self.chance.permille(self.plan.faults.power_permille) { End::Power } else { End::Killed }
    }

    fn crash_all(&mut self) {
        self.rare.all_crashes += 1;
        let fronts_too = self.chance.permille(500);
        // They may well hang on one plug.
        let end = self.draw_end();
        for host in 0..self.hosts.len() {
            if self.hosts[host].process.is_some() && (fronts_too || self.hosts[host].role != Role::Front) {
                self.kill(host, end);
                self.plan_return(host);
            }
        }
    }

    /// Ends a process without a word.
    pub(crate) fn kill(&mut self, host: usize, end: End) {
        self.count_ring(host);
        let Some(process) = self.hosts[host].process.take() else { return };
        let name = self.hosts[host].name.clone();
        let how = if end == End::Power { "loses its power" } else { "is killed" };
        self.trace.note(self.at, 603, &[host as u8], || format!("{name} {how}"));
        // A machine that is gone says nothing; one that only lost the process resets its connections.
        let slowest = if self.chance.permille(200) { SEC } else { 20 * MS };
        for (conn, end) in self.ends_of(Owner::Host { index: host, boot: process.boot }) {
            self.net.close_end(conn, end);
            self.net.break_conn(self.at, conn, slowest, &mut self.chance, &mut self.agenda);
        }
        self.end_disk(host, end);
    }

    /// The disk of a dead replica is lost, unless too few voters would be left.
    fn wipe_somebody(&mut self) {
        let able: Vec<usize> = (0..self.hosts.len())
            .filter(|index| self.hosts[*index].process.is_none() && self.hosts[*index].is_replica())
            .filter(|index| !self.is_named_by_a_replacement(*index))
            .filter(|index| !self.votes(*index) || !self.is_spared_by_harm(*index))
            .collect();
        let Some(host) = self.chance.pick(&able) else { return };
        self.rare.wipes += 1;
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 606, &[host as u8], || format!("the disk of {name} is lost"));
        self.wipe(host);
    }

    fn ask_somebody_to_leave(&mut self) {
        let staying =
            |world: &Self, index: usize| world.hosts[index].process.as_ref().is_some_and(|process| !process.leaving);
        let holder = self.holder().filter(|host| staying(self, *host) && self.chance.permille(500));
        let Some(host) = holder.or_else(|| self.pick_running(staying)) else { return };
        self.rare.leaves += 1;
        let holds = self.holder() == Some(host);
        self.rare.holder_leaves += u64::from(holds);
        let name = self.hosts[host].name.clone();
        let holds = if holds { ", which holds the token," } else { "" };
        self.trace.note(self.at, 604, &[host as u8], || format!("{name}{holds} is asked to leave"));
        if let Some(process) = &mut self.hosts[host].process {
            process.leaving = true;
            let boot = process.boot;
            self.give(host, boot, Item::Leave);
            self.agenda.plan(self.at + LEAVE_MAX, Event::Force { host, boot });
        }
    }

    pub(crate) fn on_force(&mut self, host: usize, boot: u64) {
        if self.hosts[host].process.as_ref().is_some_and(|process| process.boot == boot) {
            self.rare.forced += 1;
            self.kill(host, End::Killed);
            self.plan_return(host);
        }
    }

    /// One node, some nodes or one pair; in both directions or one; with resets or in silence.
    fn cut_somebody_off(&mut self) -> Check {
        let count = self.hosts.len();
        let one = self.chance.below(count as u64) as usize;
        let side: BTreeSet<usize> = match self.chance.below(3) {
            0 => BTreeSet::from([one]),
            _ => (0..count).filter(|_| self.chance.permille(500)).collect(),
        };
        let pair = self.chance.permille(250).then(|| self.chance.below(count as u64) as usize);
        let (one_way, silent) = (self.chance.permille(300), self.chance.permille(400));
        // One may be on both sides: it hears those who do not hear each other.
        let bridge = (pair.is_none() && self.chance.permille(250)).then(|| self.chance.below(count as u64) as usize);
        let is_bridge = |index: usize| bridge == Some(index);
        let crosses = |a: usize, b: usize| match pair {
            Some(other) => (a, b) == (one, other) || (b, a) == (one, other),
            None => side.contains(&a) != side.contains(&b) && !is_bridge(a) && !is_bridge(b),
        };
        let from_this_side = |a: usize| if pair.is_some() { a == one } else { side.contains(&a) };
        let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let lost: BTreeSet<(usize, usize)> =
            all.filter(|(a, b)| a != b && crosses(*a, *b) && (!one_way || from_this_side(*a))).collect();
        self.rare.one_way_cuts += u64::from(one_way);
        self.rare.bridged_cuts += u64::from(bridge.is_some());
        self.cut_off(lost, silent)
    }

    fn cut_off(&mut self, lost: BTreeSet<(usize, usize)>, silent: bool) -> Check {
        self.heal(self.cuts)?;
        self.cuts += 1;
        let number = self.cuts;
        self.rare.cuts += 1;
        self.rare.silent_cuts += u64::from(silent);
        let names: Vec<String> =
            lost.iter().map(|(a, b)| format!("{} > {}", self.hosts[*a].name, self.hosts[*b].name)).collect();
        self.trace.note(self.at, 607, &[u8::from(silent)], || {
            format!("cut {number}{}: {}", if silent { ", in silence" } else { "" }, names.join(", "))
        });
        self.net.cut = Some(Cut { number, lost, silent });
        if !silent {
            self.reset_what_is_cut();
        }
        let at = self.at + self.chance.between(MS, 1_500 * MS);
        self.agenda.plan(at, Event::Heal { cut: number });
        Ok(())
    }

    fn reset_what_is_cut(&mut self) {
        let cut = self.net.find(|conn| match conn.ends.map(|end| end.owner) {
            [Owner::Host { index: a, .. }, Owner::Host { index: b, .. }] => !conn.broken && self.net.parts(a, b),
            _ => false,
        });
        for conn in cut {
            self.net.break_conn(self.at, conn, 200 * MS, &mut self.chance, &mut self.agenda);
        }
    }

    /// The catalog that feeds a front dies, stops or is not reached from there any more; or the front stops.
    fn harm_some_feed(&mut self) -> Check {
        let Some(front) = self.pick_running(|world, index| world.hosts[index].role == Role::Front) else {
            return Ok(());
        };
        let at = self.at;
        let process = self.hosts[front].process.as_ref();
        let feed = process.and_then(|process| process.node.front_status(process.clock(at))).map(|front| front.feed);
        let catalog = feed.and_then(|number| self.host_of(number)).filter(|host| self.hosts[*host].process.is_some());
        let Some(catalog) = catalog else { return Ok(()) };
        match self.chance.below(8) {
            0 => {
                self.rare.feeds_killed += 1;
                self.rare.catalog_crashes += 1;
                self.crash(catalog);
                self.plan_return(catalog);
            }
            1 => {
                self.rare.feeds_paused += 1;
                self.pause(catalog);
            }
            2 => {
                let (one_way, silent) = (self.chance.permille(500), self.chance.permille(600));
                let mut lost = BTreeSet::from([(catalog, front)]);
                if !one_way {
                    lost.insert((front, catalog));
                }
                self.rare.feeds_cut += 1;
                return self.cut_off(lost, silent);
            }
            3 => {
                self.stops_asking = Some(front);
            }
            4 | 5 => {
                // What it asks is heard and answered at once, and the answers are old when they come.
                self.rare.answers_held_back += 1;
                let others = (0..self.hosts.len()).filter(|other| *other != front);
                return self.cut_off(others.map(|other| (other, front)).collect(), true);
            }
            _ => return self.leave_others_behind(front, catalog),
        }
        Ok(())
    }

    /// A catalog hears nothing of the others for a while, and then a front loses the one that feeds it: it comes to one that
    /// knows less than itself.
    fn leave_others_behind(&mut self, front: usize, catalog: usize) -> Check {
        let number = self.hosts[catalog].number;
        let others = self.running().map(|(index, _)| &self.hosts[index]).filter(|host| host.role == Role::Catalog);
        let others = others.filter(|host| host.number != number).map(|host| host.number);
        // The next one in the circle, to which a front turns.
        let next = others.min_by_key(|other| (*other < number, *other));
        let Some(behind) = next.and_then(|number| self.host_of(number)) else { return Ok(()) };
        let joins = |owners: [Owner; 2]| {
            let index = |owner| if let Owner::Host { index, .. } = owner { Some(index) } else { None };
            let ends = owners.map(index);
            ends == [Some(front), Some(catalog)] || ends == [Some(catalog), Some(front)]
        };
        let links = self
            .net
            .find(|conn| !conn.broken && conn.ends.iter().all(|end| end.open) && joins(conn.ends.map(|end| end.owner)));
        self.rare.left_behind += 1;
        for conn in links {
            let at = self.at + self.chance.between(MS, 200 * MS);
            self.agenda.plan(at, Event::Break { conn });
        }
        let replicas = (0..self.hosts.len()).filter(|index| *index != behind && self.hosts[*index].is_replica());
        self.cut_off(replicas.map(|index| (index, behind)).collect(), true)
    }

    /// Datagrams from one node to another one get lost for a while, and all else arrives.
    fn deafen_somebody(&mut self) {
        let count = self.hosts.len() as u64;
        let (from, to) = (self.chance.below(count) as usize, self.chance.below(count) as usize);
        let until = self.at + self.chance.between(50 * MS, 1_500 * MS);
        if from == to {
            return;
        }
        self.rare.deafened += 1;
        let (name, other) = (&self.hosts[from].name, &self.hosts[to].name);
        self.trace.note(self.at, 620, &[from as u8, to as u8], || {
            format!("{other} does not hear {name} until {}", until / MS)
        });
        self.net.deaf = Some(Deaf { from, to, until });
    }

    fn pick_running_replica(&mut self) -> Option<usize> {
        self.pick_running(|world, index| world.hosts[index].is_replica())
    }

    fn fill_some_disk(&mut self) {
        if let Some(host) = self.pick_running_replica() {
            self.fill_disk(host);
        }
    }

    /// The disk is full before what is on its way from a peer is there.
    pub(crate) fn fill_under_transfer(&mut self, host: usize) {
        if !self.calm
            && !self.hosts[host].disk.is_filled()
            && self.chance.permille(self.plan.faults.full_transfers_permille)
        {
            self.fill_disk(host);
        }
    }

    fn fill_disk(&mut self, host: usize) {
        self.rare.full_disks += 1;
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 608, &[host as u8], || format!("the disk of {name} is full"));
        // The segments that there are can be filled still, or some of another one made.
        let room = if self.chance.permille(500) { 0 } else { self.chance.below(150_000) };
        self.hosts[host].disk.fill(room);
        let at = self.at + self.chance.between(MS, 600 * MS);
        self.agenda.plan(at, Event::Room { host });
    }

    fn slow_some_disk(&mut self) {
        let Some(host) = self.pick_running_replica() else { return };
        self.rare.slow_disks += 1;
        let until = self.at + self.chance.between(50 * MS, 1_500 * MS);
        self.hosts[host].slow_until = until;
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 609, &[host as u8], || format!("the disk of {name} is slow until {}", until / MS));
    }

    fn fail_some_disk(&mut self) {
        let Some(host) = self.pick_running_replica() else { return };
        let write = self.chance.permille(400);
        let what = if write { "write" } else { "sync" };
        let Self { hosts, chance, .. } = self;
        let disk = &mut hosts[host].disk;
        if write {
            disk.fail_write(chance)
        } else {
            disk.fail_sync(chance)
        }
        let name = &self.hosts[host].name;
        self.trace.note(self.at, 613, &[host as u8], || format!("a {what} of {name} will fail"));
    }

    /// A bit flips, unless too few would be left who have everything.
    fn flip_some_bit(&mut self) {
        let replicas: Vec<usize> = (0..self.hosts.len()).filter(|index| self.hosts[*index].is_replica()).collect();
        let Some(host) = self.chance.pick(&replicas) else { return };
        let spared = self.is_spared_by_harm(host);
        let Self { hosts, chance, .. } = self;
        let disk = &mut hosts[host].disk;
        let may_lose = !spared && disk.is_whole();
        let what = match chance.below(10) {
            0..3 => {
                let done = disk.flip_vote(chance);
                self.rare.vote_flips += u64::from(done);
                done.then_some("the vote")
            }
            3..6 => {
                let done = disk.flip_newest(chance) || (may_lose && disk.flip_snapshot(chance));
                self.rare.snapshot_flips += u64::from(done);
                done.then_some("a snapshot")
            }
            _ => {
                let place = disk.place(false, chance).filter(|place| place.vouched && may_lose);
                if let Some(place) = place {
                    disk.flip(place, chance);
                    self.rare.flips += 1;
                }
                place.map(|_| "the log")
            }
        };
        let name = &self.hosts[host].name;
        if let Some(what) = what {
            self.trace.note(self.at, 614, &[host as u8], || format!("a bit flips in {what} of {name}"));
        }
    }
}
