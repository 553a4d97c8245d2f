//! A node's disk: the real files of a log and its vote, over a simulated disk, and a small simulated writer.
//!
//! Whoever uses it knows only what is here: writes are submitted in order, steps begin and finish, and the end of the
//! process comes in between, in the middle of a step even. A plain twin of the files ([`shadow`]) says what must be found
//! whenever they are opened.

mod harm;
mod jobs;
mod shadow;
mod watched;

use std::rc::Rc;
use std::time::Duration;

use pygmy_node::disk::fs::Fs;
use pygmy_node::disk::queue::{Command, Error, Event, RETRY, WriteQueue};
use pygmy_node::disk::reader::LogReader;
use pygmy_node::disk::record::Mark;
use pygmy_node::disk::recover::NEVER;
use pygmy_node::disk::sim::SimFs;
use pygmy_node::disk::vote::VOTE_NAME;
use pygmy_node::disk::writer::READ_BYTES;
use pygmy_node::snapshot::open::{self, OpenError, OpenOptions, Opened};
use pygmy_node::snapshot::{SnapshotOptions, Snapshots};
use pygmy_node::store::Store;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::{Epoch, LogEnd};
use pygmy_ring::config::LogUuid;
use pygmy_ring::sessions::{SessionLimits, Sessions};
use pygmy_ring::{Recovered, Vote};

use self::jobs::Jobs;
pub use self::jobs::Lane;
use self::shadow::{Harmed, Shadow};
use self::watched::{Watch, WatchedFile, WatchedFs};
use crate::chance::Chance;
use crate::mistake::Mistake;

/// Bytes of a segment: small, so that a run uses many.
const SEGMENT_BYTES: u32 = 64 * 1024;
/// A step changes a disk about so often; a crash in its middle comes before one of them.
const CHANGES: u64 = 12;
/// Bytes of a file of the ledger: small, so that a run uses more than one.
const LEDGER_FILE_BYTES: u64 = 2 * 1024;

/// Something to be made durable.
#[derive(Debug, Clone)]
pub enum Write {
    /// A batch, in place of whatever was written at and above its position.
    Append {
        /// The epoch in which it is appended.
        epoch: Epoch,
        /// The batch.
        batch: Batch,
    },
    /// The vote.
    Vote(Vote),
    /// The log begins anew behind the entry of an installed snapshot.
    Restart {
        /// The epoch in which it does.
        epoch: Epoch,
        /// The last entry of the snapshot.
        mark: Mark,
    },
    /// What is below this position is no longer needed.
    Cut(u64),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: all that was submitted is written first.
    Left,
    /// At once, while the machine goes on: what was written is there.
    Killed,
    /// With the machine: of what was not synced each sector is there or not.
    Power,
}

/// What an opening came to, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Writes that nobody was told of and that are there.
    pub survived: u64,
    /// Writes that nobody was told of and that are not.
    pub lost: u64,
    /// Whether a torn tail was cut.
    pub torn: bool,
    /// Batches that were written again to be sure of them.
    pub copied: u64,
    /// Whether something that may have been acknowledged is missing.
    pub damaged: bool,
    /// Whether the log had been ended in order.
    pub clean: bool,
    /// Whether the vote was found although a copy of it was bad.
    pub vote_copy: bool,
    /// The position up to which the snapshot goes that was found; 0: there is none.
    pub snapshot: u64,
    /// Newer snapshots that were damaged.
    pub passed_over: u64,
}

impl Findings {
    /// For a trace.
    pub fn tell(&self, name: &str, end: u64) -> String {
        let mut line = format!("{name} finds a log up to {end}");
        let notes = [
            (self.torn, ", with a torn tail"),
            (self.damaged, ", damaged"),
            (self.clean, ", ended in order"),
            (self.vote_copy, ", and a bad copy of its vote"),
        ];
        notes.iter().filter(|(holds, _)| *holds).for_each(|(_, note)| line += note);
        if self.snapshot > 0 {
            line += &format!(", behind a snapshot of {}", self.snapshot);
        }
        if self.passed_over > 0 {
            line += &format!(", {} damaged ones passed over", self.passed_over);
        }
        line
    }
}

/// Why a process does not start.
#[derive(Debug)]
pub enum Trouble {
    /// The disk did not do what it was asked to: another attempt may succeed.
    Disk(OpenError),
    /// What was found is not what must be there: the invariant, and why.
    Wrong(&'static str, String),
}

/// What became of the bits on a platter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    None,
    /// Something was lost, an opening has seen it, and the log has not got it back.
    Seen,
    /// Something was flipped, and no opening has seen it yet.
    Fresh,
}

/// A process's hold on the files.
#[derive(Debug)]
struct Files {
    queue: WriteQueue<WatchedFs>,
    reader: LogReader<WatchedFile>,
    jobs: Jobs,
    /// Submitted, and not taken by the writer.
    inbox: Vec<Command>,
    /// Whether a step has begun.
    under_way: bool,
    /// Whether the disk was full at the last one.
    stuck: bool,
    /// When a step ended last.
    busy_at: u64,
}

/// A disk with the files of one log.
#[derive(Debug)]
pub struct Disk {
    uuid: LogUuid,
    fs: SimFs,
    watch: Rc<Watch>,
    files: Option<Files>,
    shadow: Shadow,
    harm: Harm,
    /// A copy of the vote is bad.
    vote_harmed: bool,
    /// The newest snapshot is bad, and nothing may come of that.
    newest_harmed: bool,
    /// Snapshots taken in a row while nothing was wrong with the disk: beside two of them one may be lost.
    sound: u64,
    /// It has no room to speak of.
    filled: bool,
    /// A fault was injected that ends the process when it strikes.
    faulty: bool,
}

impl Disk {
    /// An empty disk, whose log bears this name.
    pub fn format(uuid: LogUuid, mistake: Option<Mistake>) -> Self {
        Self {
            uuid,
            fs: SimFs::new(),
            watch: Rc::new(Watch { mistake, ..Watch::default() }),
            files: None,
            shadow: Shadow::default(),
            harm: Harm::None,
            vote_harmed: false,
            newest_harmed: false,
            sound: 0,
            filled: false,
            faulty: false,
        }
    }

    /// The name of its log.
    pub fn uuid(&self) -> LogUuid {
        self.uuid
    }

    // --- a process's life

    /// A new process opens the files, as one does in production. When `power` changes have been made on the way, the
    /// power fails.
    pub fn open(&mut self, power: Option<u64>, at: u64) -> Result<(Recovered<Store>, Findings), Trouble> {
        if self.watch.mistake == Some(Mistake::LoseVote) {
            self.lose_vote();
        }
        if let Some(changes) = power {
            self.fs.power_off_after(changes);
        }
        let opened = open(&self.fs, self.uuid, &self.watch).map_err(Trouble::Disk)?;
        self.fs.mend();
        let (queue, snapshots, recovered, findings) = self.look_at(opened)?;
        self.shadow.restart(&recovered);
        if self.harm != Harm::None || self.newest_harmed || findings.passed_over > 0 {
            self.sound = 0;
        }
        self.harm = if self.harm == Harm::None { Harm::None } else { Harm::Seen };
        (self.vote_harmed, self.newest_harmed, self.faulty) = (false, false, false);
        let (reader, jobs) = (queue.log().reader(), Jobs::new(snapshots));
        let (inbox, under_way, stuck, busy_at) = (Vec::new(), false, false, at);
        self.files = Some(Files { queue, reader, jobs, inbox, under_way, stuck, busy_at });
        Ok((recovered, findings))
    }

    /// Compares what was found with what must be there.
    fn look_at(&self, opened: Opened<WatchedFs>) -> Result<Looked, Trouble> {
        let Opened { log, votes, snapshots, mut recovered, notes } = opened;
        let vote_lost = recovered.damaged == Some(NEVER);
        match self.watch.mistake {
            Some(Mistake::TornForDamage) if !vote_lost => recovered.damaged = None,
            Some(Mistake::TrustDamagedVote) if vote_lost => recovered.damaged = None,
            Some(Mistake::ForgetSessions) => recovered.sessions = Sessions::new(SessionLimits::default()),
            _ => {}
        }
        let harmed = Harmed { log: self.harm == Harm::Fresh, newest: self.newest_harmed };
        let survived =
            self.shadow.must_find(&recovered, harmed).map_err(|(invariant, what)| Trouble::Wrong(invariant, what))?;
        let findings = Findings {
            survived: survived.there,
            lost: survived.lost,
            torn: notes.cut_bytes > 0,
            copied: notes.copied as u64,
            damaged: recovered.damaged.is_some(),
            clean: notes.clean,
            vote_copy: self.vote_harmed && !vote_lost,
            snapshot: recovered.base.end.seq,
            passed_over: snapshots.damaged().len() as u64,
        };
        Ok((WriteQueue::new(log, votes), snapshots, recovered, findings))
    }

    /// What a process would find if the power failed now is what must be there.
    ///
    /// # Errors
    /// It is not: the invariant, and why.
    pub fn probe(&self, chance: &mut Chance) -> Result<(), (&'static str, String)> {
        if self.harm == Harm::Fresh || self.vote_harmed {
            return Ok(());
        }
        let image = self.fs.copy_after_crash(chance.word());
        let watch = Rc::new(Watch { mistake: self.watch.mistake, ..Watch::default() });
        let looked = open(&image, self.uuid, &watch).map_err(Trouble::Disk).and_then(|opened| self.look_at(opened));
        match looked {
            Ok(_) => Ok(()),
            Err(Trouble::Disk(error)) => Err(("start", error.to_string())),
            Err(Trouble::Wrong(invariant, what)) => Err((invariant, what)),
        }
    }

    /// The process ends. What was under way is done in part, and what the writer would do next may have begun.
    pub fn end(&mut self, end: End, chance: &mut Chance) {
        if let Some(mut files) = self.files.take() {
            if end == End::Left {
                self.finish_all(&mut files);
            } else if files.under_way || files.jobs.is_busy() || chance.permille(200) {
                let most = if files.jobs.is_busy() { 3 * CHANGES } else { CHANGES };
                self.fs.mend();
                self.fs.power_off_after(chance.between(1, most));
                files.do_in_part(chance.permille(500));
            }
        }
        self.fs = if end == End::Power { self.fs.crash(chance.word()) } else { self.fs.kill() };
        self.faulty = false;
    }

    /// What the writing thread does when its process leaves: all that it was given, as far as that is possible.
    fn finish_all(&mut self, files: &mut Files) {
        // Whatever became of a snapshot, nobody is there any more to be told.
        files.jobs.finish_all();
        files.take_inbox();
        while !files.queue.is_empty() {
            let shadow = &mut self.shadow;
            let done = files.step(|event| {
                shadow.on_event(&event);
            });
            if !matches!(done, Ok(true)) {
                return;
            }
        }
        // An error is one of the injected, and shows in what the next process finds.
        let _ = files.queue.close();
    }

    // --- the writer

    /// Takes what is to be made durable, behind all that was taken before.
    pub fn submit(&mut self, write: Write) {
        if let Some(files) = &mut self.files {
            files.inbox.push(match &write {
                Write::Append { epoch, batch } => Command::Batch(*epoch, batch.clone()),
                Write::Vote(vote) => Command::Vote(*vote),
                Write::Restart { epoch, mark } => Command::RestartAt(*epoch, *mark),
                Write::Cut(seq) => Command::CutBelow(*seq),
            });
            self.shadow.submit(write);
        }
    }

    /// Begins a step over what waits, when none is under way: for how long it stands still first, if it is to be begun.
    pub fn begin(&mut self) -> Option<u64> {
        let files = self.files.as_mut().filter(|files| !files.under_way)?;
        files.take_inbox();
        files.under_way = !files.queue.is_empty();
        let pause = if files.stuck { RETRY.as_nanos() as u64 } else { 0 };
        files.under_way.then_some(pause)
    }

    /// The step under way is done: what there is to tell.
    ///
    /// # Errors
    /// The process must end.
    pub fn finish(&mut self, at: u64) -> Result<Vec<Event>, Error> {
        let Some(files) = &mut self.files else { return Ok(Vec::new()) };
        files.busy_at = at;
        let mut events = Vec::new();
        files.step(|event| events.push(event))?;
        files.queue.look_for_room(|event| events.push(event));
        self.tell(events)
    }

    /// When the writer does what is better done while nothing waits, if no step ends before; and when one ended last.
    pub fn rest_at(&self, at: u64) -> Option<(u64, u64)> {
        let files = self.files.as_ref().filter(|files| !files.under_way)?;
        let pause = files.queue.pause(Duration::from_nanos(at - files.busy_at))?;
        Some((at + pause.as_nanos() as u64, files.busy_at))
    }

    /// Whether no step has begun or ended since `busy_at`.
    pub fn is_idle_since(&self, busy_at: u64) -> bool {
        self.files.as_ref().is_some_and(|files| !files.under_way && files.busy_at == busy_at)
    }

    /// Nothing came.
    ///
    /// # Errors
    /// The process must end.
    pub fn rest(&mut self, at: u64) -> Result<Vec<Event>, Error> {
        let Some(files) = &mut self.files else { return Ok(Vec::new()) };
        files.queue.rest(Duration::from_nanos(at - files.busy_at))?;
        let mut events = Vec::new();
        files.queue.look_for_room(|event| events.push(event));
        self.tell(events)
    }

    fn tell(&mut self, events: Vec<Event>) -> Result<Vec<Event>, Error> {
        for event in &events {
            // What was never submitted shows as an acknowledgement of something that is not there.
            self.shadow.on_event(event);
        }
        Ok(events)
    }

    /// A part of the log, whole batches from `from_seq` on; empty when it does not begin there or is damaged.
    pub fn read(&self, from_seq: u64, upto: u64) -> Vec<Batch> {
        let read = self.files.as_ref().map(|files| files.reader.read(from_seq, upto, READ_BYTES));
        read.and_then(Result::ok).unwrap_or_default()
    }

    // --- what is there

    /// End and last hash of the log before `first_seq`, as it will be when all that was submitted is on the platter.
    pub fn end_before(&self, first_seq: u64) -> (u64, u128) {
        let before = self.shadow.view.end_before(first_seq);
        (before.seq, before.hash)
    }

    /// Epoch and position of the end of the log as it will be when all that was submitted is on the platter.
    pub fn view_end(&self) -> LogEnd {
        self.shadow.view_end()
    }

    /// The epoch for whose sake a part of the log may go, as the vote file on the platter has it.
    pub fn cut(&self) -> Epoch {
        self.shadow.vote.cut
    }

    /// The log on the platter, as far as it is known batch by batch.
    pub fn platter(&self) -> &[Batch] {
        &self.shadow.log.batches
    }

    /// The position up to which the platter has everything.
    pub fn end_seq(&self) -> u64 {
        self.shadow.end().seq
    }

    /// The highest epoch that a process over this platter answers for.
    pub fn promised(&self) -> Epoch {
        self.shadow.promised()
    }

    /// Whether the entry at `seq` with this hash is on the platter, or the last one of a snapshot there; position 0
    /// always is.
    pub fn holds(&self, seq: u64, hash: u128) -> bool {
        let snapshot = self.shadow.snapshot;
        seq == 0 || (snapshot.seq, snapshot.hash) == (seq, hash) || self.shadow.log.has(seq, hash)
    }

    /// Segments that were used again.
    pub fn recycled(&self) -> u64 {
        self.watch.recycled.get()
    }

    /// For a mistake only: the vote file is gone.
    fn lose_vote(&mut self) {
        // There may be none yet.
        let _ = self.fs.remove(VOTE_NAME).and_then(|()| self.fs.sync_dir());
    }
}

impl Files {
    /// What a process does whose power fails on the way. Whatever it came to: nobody is there any more to be told.
    fn do_in_part(&mut self, jobs_first: bool) {
        if jobs_first {
            self.jobs.finish_all();
        }
        let _ = if self.under_way { self.step(|_| ()).map(|_| ()) } else { self.queue.rest(Duration::MAX) };
        self.jobs.finish_all();
    }

    fn take_inbox(&mut self) {
        self.queue.take(self.inbox.drain(..));
    }

    /// One step of the writer. Whether the disk had room for it.
    fn step(&mut self, tell: impl FnMut(Event)) -> Result<bool, Error> {
        self.under_way = false;
        if std::mem::take(&mut self.stuck) {
            self.queue.make_room()?;
        }
        let done = self.queue.work(tell)?;
        self.stuck = !done;
        Ok(done)
    }
}

/// The files, what they hold, and that in numbers.
type Looked = (WriteQueue<WatchedFs>, Snapshots<WatchedFs>, Recovered<Store>, Findings);

fn open(fs: &SimFs, uuid: LogUuid, watch: &Rc<Watch>) -> Result<Opened<WatchedFs>, OpenError> {
    let snapshots = SnapshotOptions { ledger_file_bytes: LEDGER_FILE_BYTES };
    let options = OpenOptions { segment_bytes: SEGMENT_BYTES, snapshots };
    open::open(WatchedFs { fs: fs.clone(), watch: watch.clone() }, uuid, options)
}
