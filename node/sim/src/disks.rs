//! What happens between the nodes and their disks.

use pygmy_node::disk::queue::{Error, Event as DiskEvent};
use pygmy_node::snapshot::BuildError;
use pygmy_node::snapshot::transfer::{Done, Failure};
use pygmy_node::store::Store;
use pygmy_ring::{Recovered, StateMachine};

use crate::check::{Check, Violation, Who};
use crate::disk::{End, Findings, Lane, Trouble, Write};
use crate::events::Event;
use crate::host::{Effects, Item};
use crate::plan::MS;
use crate::world::World;

/// An opening changes a disk at most about so often.
const OPENING_CHANGES: u64 = 30;

impl World {
    /// Gives the disk what a turn wants written, and reads for it.
    pub(crate) fn write_down(&mut self, index: usize, effects: &Effects) -> Check {
        for write in &effects.disk {
            let host = &mut self.hosts[index];
            if let Write::Append { batch, .. } = write {
                let boot = host.process.as_ref().map_or(0, |process| process.boot);
                let who = Who { name: &host.name, number: host.number, boot };
                let ring = host.process.as_ref().and_then(|process| Some(process.node.replica()?.ring()));
                self.checker.on_append(who, &host.disk, batch, ring.map(|ring| ring.membership()))?;
            }
            self.rare.logs_cut += u64::from(matches!(write, Write::Cut(_)));
            self.rare.logs_restarted += u64::from(matches!(write, Write::Restart { .. }));
            host.disk.submit(write.clone());
        }
        self.begin_sync(index);
        for (node, from_seq, upto) in &effects.reads {
            let batches = self.hosts[index].disk.read(*from_seq, *upto);
            let at = self.at + self.chance.between(self.plan.sync.0, self.plan.sync.1);
            let boot = self.who(index).boot;
            self.agenda.plan(at, Event::Read { host: index, boot, node: *node, batches });
        }
        Ok(())
    }

    fn begin_sync(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(pause) = host.disk.begin() else { return };
        let mut takes = pause + self.chance.between(self.plan.sync.0, self.plan.sync.1);
        if !self.calm && self.chance.permille(self.plan.faults.stall_permille) {
            takes += self.chance.between(5 * MS, 60 * MS);
        }
        if host.slow_until > self.at {
            takes += self.chance.between(10 * MS, 300 * MS);
        }
        let boot = self.who(index).boot;
        self.agenda.plan(self.at + takes, Event::Synced { host: index, boot });
    }

    pub(crate) fn on_synced(&mut self, index: usize, boot: u64) -> Check {
        if self.process(index, boot).is_none() {
            return Ok(());
        }
        let host = &mut self.hosts[index];
        let done = host.disk.finish(self.at);
        self.checker.on_platter(&host.disk);
        let end = host.disk.end_seq();
        let name = &host.name;
        self.trace.note(self.at, 100 + index as u64, &end.to_le_bytes(), || format!("{name} has synced {end}"));
        self.on_disk(index, boot, done)
    }

    /// Plans when the writer does what is better done while nothing waits.
    pub(crate) fn plan_rest(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some((at, busy_at)) = host.disk.rest_at(self.at).filter(|_| host.rests_after.is_none()) else { return };
        host.rests_after = Some(busy_at);
        let boot = host.process.as_ref().map_or(0, |process| process.boot);
        self.agenda.plan(at, Event::Rest { host: index, boot });
    }

    pub(crate) fn on_rest(&mut self, index: usize, boot: u64) -> Check {
        if self.process(index, boot).is_none() {
            return Ok(());
        }
        let host = &mut self.hosts[index];
        let busy_at = host.rests_after.take();
        if busy_at.is_some_and(|busy_at| host.disk.is_idle_since(busy_at)) {
            let done = host.disk.rest(self.at);
            return self.on_disk(index, boot, done);
        }
        // Something came meanwhile: the pause begins anew.
        self.plan_rest(index);
        Ok(())
    }

    /// A step of the writer has come to this.
    fn on_disk(&mut self, index: usize, boot: u64, done: Result<Vec<DiskEvent>, Error>) -> Check {
        match done {
            Ok(events) => {
                for event in events {
                    self.rare.full_disks_told += u64::from(event == DiskEvent::Full(true));
                    self.rare.full_disks_recovered += u64::from(event == DiskEvent::Full(false));
                    self.give(index, boot, Item::Disk(event));
                }
                self.begin_sync(index);
                self.plan_rest(index);
                Ok(())
            }
            Err(error) if self.hosts[index].disk.expects(&error) => {
                self.give_up(index, &error.to_string());
                Ok(())
            }
            Err(error) => {
                let detail = format!("{}: {error}", self.hosts[index].name);
                Err(Violation { invariant: "fatal", detail })
            }
        }
    }

    /// A process ends because of its disk.
    fn give_up(&mut self, index: usize, why: &str) {
        self.rare.disk_errors += 1;
        let name = &self.hosts[index].name;
        self.trace.note(self.at, 611, &[index as u8], || format!("{name} gives up: {why}"));
        let power = self.chance.permille(300);
        self.kill(index, if power { End::Power } else { End::Killed });
        self.plan_return(index);
    }

    /// Begins what a turn wants done beside the log.
    pub(crate) fn begin_work(&mut self, index: usize, effects: &mut Effects) {
        let boot = self.who(index).boot;
        if let Some(order) = effects.snapshot.take() {
            self.activity.snapshots += 1;
            self.hosts[index].disk.begin_snapshot(order);
            let at = self.at + self.work_takes() + self.work_takes();
            self.agenda.plan(at, Event::Taken { host: index, boot });
        }
        for job in effects.jobs.drain(..) {
            if let Some(lane) = self.hosts[index].disk.begin_job(job) {
                let at = self.at + self.work_takes();
                self.agenda.plan(at, Event::Job { host: index, boot, lane });
            }
        }
    }

    fn work_takes(&mut self) -> u64 {
        let stalls = !self.calm && self.chance.permille(self.plan.faults.stall_permille);
        let stall = if stalls { self.chance.between(5 * MS, 300 * MS) } else { 0 };
        stall + self.chance.between(self.plan.sync.0, 2 * self.plan.sync.1)
    }

    /// A snapshot is taken, or not.
    pub(crate) fn on_snapshot(&mut self, index: usize, boot: u64) -> Check {
        if self.process(index, boot).is_none() {
            return Ok(());
        }
        let host = &mut self.hosts[index];
        let Some(done) = host.disk.take_snapshot() else { return Ok(()) };
        let name = &host.name;
        self.rare.snapshots_taken += u64::from(done.is_ok());
        self.rare.snapshots_put_off += u64::from(matches!(done, Err(BuildError::Later(_))));
        self.trace.note(self.at, 616, &[index as u8, u8::from(done.is_ok())], || match &done {
            Ok(taken) => format!("{name} has a snapshot of {}", taken.info.seq()),
            Err(error) => format!("{name}: {error}"),
        });
        match done {
            Err(BuildError::Fatal(why)) if host.disk.is_faulty() => self.give_up(index, &why),
            done => self.give(index, boot, Item::Snapshot(done)),
        }
        Ok(())
    }

    /// A thread of transfers has done a job.
    pub(crate) fn on_job(&mut self, index: usize, boot: u64, lane: Lane) -> Check {
        if self.process(index, boot).is_none() {
            return Ok(());
        }
        let host = &mut self.hosts[index];
        let (done, more) = host.disk.do_job(lane);
        let name = &host.name;
        match &done {
            Some(Done::Loaded { loaded, .. }) => {
                let hash = loaded.store.state_hash().wrapping_add(loaded.sessions.state_hash());
                self.checker.on_snapshot(name, &loaded.checkpoint.base, &loaded.store, hash)?;
                self.rare.snapshots_received += 1;
                let seq = loaded.info.seq();
                self.trace
                    .note(self.at, 617, &seq.to_le_bytes(), || format!("{name} has received a snapshot of {seq}"));
            }
            Some(Done::Failed { failure, .. }) => {
                self.rare.transfers_failed += 1;
                self.trace.note(self.at, 618, &[index as u8], || format!("{name} gets no snapshot: {failure:?}"));
            }
            _ => {}
        }
        if matches!(done, Some(Done::Begun { .. })) {
            self.fill_under_transfer(index);
        }
        match done {
            Some(Done::Failed { failure: Failure::Fatal(why), .. }) if self.hosts[index].disk.is_faulty() => {
                self.give_up(index, &why);
                return Ok(());
            }
            Some(done) => self.give(index, boot, Item::Transferred(done)),
            None => {}
        }
        if more {
            let at = self.at + self.work_takes();
            self.agenda.plan(at, Event::Job { host: index, boot, lane });
        }
        Ok(())
    }

    /// What a new process finds; `None` when it gives up, or the power fails while it looks.
    pub(crate) fn open_disk(&mut self, index: usize) -> Result<Option<Recovered<Store>>, Violation> {
        if !self.hosts[index].is_replica() {
            return Ok(Some(Recovered::empty(Store::new())));
        }
        let faults = self.plan.faults;
        let hidden = !self.calm && self.chance.permille(faults.unreadable_permille) && self.hide_something(index);
        let fails = !self.calm && self.chance.permille(faults.power_at_start_permille);
        let power = fails.then(|| self.chance.between(1, OPENING_CHANGES));
        let host = &mut self.hosts[index];
        match host.disk.open(power, self.at) {
            Ok((recovered, findings)) => {
                let host = &self.hosts[index];
                self.checker.on_platter(&host.disk);
                let hash = recovered.machine.state_hash().wrapping_add(recovered.sessions.state_hash());
                self.checker.on_snapshot(&host.name, &recovered.base, &recovered.machine, hash)?;
                self.count_findings(&findings);
                let host = &self.hosts[index];
                let end = host.disk.end_seq();
                self.trace.note(self.at, 615, &end.to_le_bytes(), || findings.tell(&host.name, end));
                Ok(Some(recovered))
            }
            Err(Trouble::Disk(error)) if power.is_some() || hidden || host.disk.is_filled() => {
                let name = host.name.clone();
                self.trace.note(self.at, 612, &[index as u8], || format!("{name} does not start: {error}"));
                self.rare.power_failures_at_start += u64::from(power.is_some());
                self.rare.starts_refused += u64::from(power.is_none());
                self.end_disk(index, if power.is_some() { End::Power } else { End::Killed });
                self.plan_return(index);
                Ok(None)
            }
            Err(Trouble::Disk(error)) => {
                Err(Violation { invariant: "start", detail: format!("{}: {error}", host.name) })
            }
            Err(Trouble::Wrong(invariant, what)) => {
                Err(Violation { invariant, detail: format!("{}: {what}", host.name) })
            }
        }
    }

    fn count_findings(&mut self, findings: &Findings) {
        self.rare.survived_writes += findings.survived;
        self.rare.lost_writes += findings.lost;
        self.rare.torn_tails += u64::from(findings.torn);
        self.rare.batches_copied += findings.copied;
        self.rare.damaged_logs += u64::from(findings.damaged);
        self.rare.clean_openings += u64::from(findings.clean);
        self.rare.votes_from_a_copy += u64::from(findings.vote_copy);
        self.rare.snapshots_found += u64::from(findings.snapshot > 0);
        self.rare.snapshots_passed_over += findings.passed_over;
    }

    /// What would be found if the power failed now.
    pub(crate) fn probe(&mut self, index: usize) -> Check {
        let Self { hosts, chance, .. } = self;
        let host = &hosts[index];
        self.rare.probes += 1;
        host.disk
            .probe(chance)
            .map_err(|(invariant, what)| Violation { invariant, detail: format!("{}: {what}", host.name) })
    }

    /// The process that used a disk has ended.
    pub(crate) fn end_disk(&mut self, index: usize, end: End) {
        self.rare.power_failures += u64::from(end == End::Power);
        let disk = &self.hosts[index].disk;
        self.rare.snapshots_interrupted += u64::from(disk.is_building());
        self.rare.transfers_interrupted += u64::from(disk.is_busy() && !disk.is_building());
        self.hosts[index].disk.end(end, &mut self.chance);
    }

    /// Whether the voters would have a majority with whole disks if this one had not.
    pub(crate) fn is_spared_by_harm(&self, index: usize) -> bool {
        // While the voters change, a majority of those before and of those after is needed.
        let others = (0..self.hosts.len()).filter(|other| *other != index);
        self.replaces() || others.filter(|other| self.is_whole(*other)).count() < self.checker.majority()
    }

    /// Some sector cannot be read by the process that starts; whether that is so.
    fn hide_something(&mut self, index: usize) -> bool {
        let spared = self.is_spared_by_harm(index);
        let Self { hosts, chance, .. } = self;
        let disk = &mut hosts[index].disk;
        if chance.permille(300) {
            return disk.hide_vote(chance);
        }
        let Some(place) = disk.place(true, chance).filter(|place| !place.vouched || (!spared && disk.is_whole()))
        else {
            return false;
        };
        disk.hide(place);
        self.rare.unreadable += 1;
        true
    }
}
