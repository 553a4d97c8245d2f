//! The threads that serve an event loop, which never waits for a disk.
//!
//! One thread writes: it takes what has come, up to 4 MiB, writes it as one group, syncs once, tells, and wakes the loop.
//! So groups form by themselves: while one is synced, the next gathers. Votes go through the same queue and are given in
//! order with the batches around them. When nothing has come for 50 ms, it adds a closing group. Another thread reads
//! batches for peers that lag, so that an old part of the log that has to come from the disk holds up no write.
//!
//! On a full disk the queue stands still until there is room, votes included, since a vote may speak of what was
//! submitted before it; only cuts of the log pass, as they make room.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded, unbounded};
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

use super::fs::{Fs, FsFile};
use super::log::{Durable, LogError, LogFiles};
use super::reader::LogReader;
use super::record::{HEADER_LEN, Mark};
use super::vote::{Vote, VoteError, VoteFile};

/// Bytes of batches in one group.
pub const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of batches in one answer to a read; one batch may be more.
pub const READ_BYTES: usize = 2 * 1024 * 1024;
/// Groups of a loop's turns that the channel holds. What is more waits with the loop, whose own limits bound it.
const TURNS: usize = 64;
/// Reads that wait for the reading thread. More are not taken, and asked again by the peer.
const READS: usize = 64;
/// When nothing has come for so long, the log has fallen idle.
const IDLE: Duration = Duration::from_millis(50);
/// Pause between steps towards a spare segment while there is nothing else to do.
const BREATH: Duration = Duration::from_millis(1);
/// Pause between looks whether a full disk has room again.
const RETRY: Duration = Duration::from_millis(100);

/// Wakes the event loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What the threads have to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The log is durable up to here.
    Durable {
        /// Epoch in which the last batch was submitted.
        epoch: Epoch,
        /// The last position.
        seq: u64,
        /// Hash of the entry there.
        hash: u128,
    },
    /// The vote is durable.
    Vote(Vote),
    /// The vote counts again after damage.
    Absolved,
    /// The disk is full, or no longer.
    Full(bool),
    /// What was read for a node. Empty if the log does not have it.
    Read {
        /// For whom.
        node: u16,
        /// From the batch with the first position asked for on.
        batches: Vec<Batch>,
    },
}

/// Why the log can no longer be written. The process must end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The vote file failed.
    #[error(transparent)]
    Vote(#[from] VoteError),
    /// A thread could not be started.
    #[error("the log's threads cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// It failed before, and said why then.
    #[error("the log's thread has ended")]
    Ended,
}

enum Command {
    Batch(Epoch, Batch),
    Vote(Vote),
    Absolve,
    CutBelow(u64),
    RestartAt(Epoch, Mark),
}

struct Read {
    node: u16,
    from: u64,
    upto: u64,
}

/// The handle of the event loop. Dropping it writes what was flushed, closes the log in order and waits for that.
pub struct LogThread {
    turn: Vec<Command>,
    /// Turns for which the channel had no room.
    waiting: VecDeque<Vec<Command>>,
    commands: Option<Sender<Vec<Command>>>,
    reads: Option<Sender<Read>>,
    events: Receiver<Result<Event, Error>>,
    /// Whether the writer is known to have ended.
    ended: bool,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for LogThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogThread").field("turn", &self.turn.len()).field("waiting", &self.waiting.len()).finish()
    }
}

impl LogThread {
    /// Starts the threads over files that were opened.
    ///
    /// # Errors
    /// The system refused.
    pub fn start<F>(log: LogFiles<F>, vote: VoteFile<F>, wake: Wake) -> Result<Self, Error>
    where
        F: Fs + Send + 'static,
        F::File: FsFile + Send + 'static,
    {
        let (commands, inbox) = bounded(TURNS);
        let (reads, asked) = bounded(READS);
        let (sender, events) = unbounded();
        let out = Out { sender, wake };
        let reader = log.reader();
        let writer = Writer {
            log,
            vote,
            inbox,
            queue: VecDeque::new(),
            out: out.clone(),
            full: false,
            ended: false,
            busy_at: Instant::now(),
        };
        let mut started = Self {
            turn: Vec::new(),
            waiting: VecDeque::new(),
            commands: Some(commands),
            reads: Some(reads),
            events,
            ended: false,
            threads: Vec::new(),
        };
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        started.threads.push(spawn("log-writer").spawn(move || writer.run())?);
        started.threads.push(spawn("log-reader").spawn(move || serve_reads(&reader, &asked, &out))?);
        Ok(started)
    }

    /// Takes a batch, behind all that was taken before. `epoch` is that of the log it is submitted to.
    pub fn submit(&mut self, epoch: Epoch, batch: Batch) {
        self.turn.push(Command::Batch(epoch, batch));
    }

    /// Takes a vote, behind all that was taken before.
    pub fn submit_vote(&mut self, vote: Vote) {
        self.turn.push(Command::Vote(vote));
    }

    /// The last vote counts again after damage; see [`VoteFile::absolve`].
    pub fn submit_absolution(&mut self) {
        self.turn.push(Command::Absolve);
    }

    /// A snapshot has durably what is below `seq`; see [`LogFiles::cut_below`].
    pub fn submit_cut(&mut self, seq: u64) {
        self.turn.push(Command::CutBelow(seq));
    }

    /// A snapshot was installed; see [`LogFiles::restart_at`].
    pub fn submit_restart(&mut self, epoch: Epoch, mark: Mark) {
        self.turn.push(Command::RestartAt(epoch, mark));
    }

    /// Closes the turn: what was taken since the last call goes to the disk. Never blocks.
    pub fn flush(&mut self) {
        if !self.turn.is_empty() {
            self.waiting.push_back(std::mem::take(&mut self.turn));
        }
        self.send_waiting();
    }

    /// Asks for the batches with the entries from `from` to `upto`, for `node`. `false`: too many reads wait already.
    pub fn read(&mut self, node: u16, from: u64, upto: u64) -> bool {
        self.reads.as_ref().is_some_and(|reads| reads.try_send(Read { node, from, upto }).is_ok())
    }

    /// The next thing that happened. Never blocks. To be called in every turn of the loop until there is nothing more:
    /// turns for which the channel had no room are handed over here.
    ///
    /// # Errors
    /// The log can no longer be written. What was told before is true; nothing more will be.
    pub fn poll(&mut self) -> Result<Option<Event>, Error> {
        self.send_waiting();
        match self.events.try_recv() {
            Ok(event) => {
                self.ended |= event.is_err();
                event.map(Some)
            }
            Err(TryRecvError::Empty) if !self.ended => Ok(None),
            Err(_) => Err(Error::Ended),
        }
    }

    fn send_waiting(&mut self) {
        let Some(commands) = &self.commands else { return };
        while let Some(turn) = self.waiting.pop_front() {
            match commands.try_send(turn) {
                Ok(()) => {}
                Err(TrySendError::Full(turn)) => return self.waiting.push_front(turn),
                // The writer has said why before it ended; `poll` tells.
                Err(TrySendError::Disconnected(_)) => self.ended = true,
            }
        }
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            for turn in self.waiting.drain(..) {
                // Fails only if the writer has ended.
                let _ = commands.send(turn);
            }
        }
        self.reads = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the log panicked");
            }
        }
    }
}

#[derive(Clone)]
struct Out {
    sender: Sender<Result<Event, Error>>,
    wake: Wake,
}

impl Out {
    /// If the loop is gone, nobody needs to know.
    fn tell(&self, event: Result<Event, Error>) {
        let _ = self.sender.send(event);
        (self.wake)();
    }
}

fn serve_reads<File: FsFile>(reader: &LogReader<File>, asked: &Receiver<Read>, out: &Out) {
    for Read { node, from, upto } in asked {
        let batches = reader.read(from, upto, READ_BYTES).unwrap_or_else(|error| {
            // Others have it; this one is told of at the next opening, which tells whether it matters.
            log::error!("reading the log from {from} for node {node}: {error}");
            Vec::new()
        });
        out.tell(Ok(Event::Read { node, batches }));
    }
}

struct Writer<F: Fs> {
    log: LogFiles<F>,
    vote: VoteFile<F>,
    inbox: Receiver<Vec<Command>>,
    queue: VecDeque<Command>,
    out: Out,
    /// What was told last.
    full: bool,
    /// Whether the loop has let go of its end.
    ended: bool,
    /// When there was something to do last.
    busy_at: Instant,
}

impl<F: Fs> Writer<F> {
    fn run(mut self) {
        if let Err(error) = self.serve() {
            self.out.tell(Err(error));
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        while !(self.ended && self.queue.is_empty()) {
            if self.queue.is_empty() {
                self.rest()?;
            }
            self.take_waiting();
            if !self.queue.is_empty() {
                self.work()?;
                self.busy_at = Instant::now();
            }
            self.tell_full(false);
        }
        self.log.close_group()?;
        Ok(())
    }

    /// There is nothing to do: waits for something, or does what can be done meanwhile.
    fn rest(&mut self) -> Result<(), Error> {
        let closing = self.log.is_unclosed().then(|| IDLE.saturating_sub(self.busy_at.elapsed()));
        let filling = if self.log.is_full() { Some(RETRY) } else { self.log.wants_spare().then_some(BREATH) };
        let Some(wait) = closing.into_iter().chain(filling).min() else {
            self.take(self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected));
            return Ok(());
        };
        if self.take(self.inbox.recv_timeout(wait)) {
            return Ok(());
        }
        if self.log.is_unclosed() && self.busy_at.elapsed() >= IDLE {
            self.log.close_group()?;
        } else {
            self.log.prepare(true)?;
        }
        Ok(())
    }

    /// Whether the wait is over.
    fn take(&mut self, received: Result<Vec<Command>, RecvTimeoutError>) -> bool {
        match received {
            Ok(turn) => self.queue.extend(turn),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => self.ended = true,
        }
        true
    }

    fn take_waiting(&mut self) {
        while let Ok(turn) = self.inbox.try_recv() {
            self.queue.extend(turn);
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        match self.queue.pop_front() {
            Some(Command::Batch(epoch, batch)) => self.write_group((epoch, batch))?,
            Some(Command::Vote(vote)) => {
                self.vote.write(vote)?;
                self.out.tell(Ok(Event::Vote(vote)));
            }
            Some(Command::Absolve) => {
                self.vote.absolve()?;
                self.out.tell(Ok(Event::Absolved));
            }
            Some(Command::CutBelow(seq)) => self.log.cut_below(seq)?,
            Some(Command::RestartAt(epoch, mark)) => match self.log.restart_at(epoch, mark) {
                Err(LogError::Full) => self.stand_still(vec![Command::RestartAt(epoch, mark)])?,
                done => {
                    done?;
                    self.out.tell(Ok(Event::Durable { epoch, seq: mark.seq, hash: mark.hash }));
                }
            },
            None => {}
        }
        Ok(())
    }

    /// Writes a batch and those behind it that go on from it.
    fn write_group(&mut self, first: (Epoch, Batch)) -> Result<(), Error> {
        let mut room = self.log.group_bytes_max().min(GROUP_BYTES).saturating_sub(record_len(&first.1));
        let mut group = vec![first];
        while self.queue.front().is_some_and(|next| goes_on(&group, room, next)) {
            if let Some(Command::Batch(epoch, batch)) = self.queue.pop_front() {
                room = room.saturating_sub(record_len(&batch));
                group.push((epoch, batch));
            }
        }
        match self.log.write(&group) {
            Err(LogError::Full) => {
                return self
                    .stand_still(group.into_iter().map(|(epoch, batch)| Command::Batch(epoch, batch)).collect());
            }
            done => done?,
        }
        if let Some(Durable { tag, end }) = self.log.sync()? {
            self.out.tell(Ok(Event::Durable { epoch: tag, seq: end.seq, hash: end.hash }));
        }
        self.log.prepare(false)?;
        Ok(())
    }

    /// The disk is full: puts back what could not be done, lets cuts pass, and waits a little for more of them.
    fn stand_still(&mut self, undone: Vec<Command>) -> Result<(), Error> {
        for command in undone.into_iter().rev() {
            self.queue.push_front(command);
        }
        self.tell_full(true);
        if self.ended {
            // Nobody will make room, and nobody was told that these are safe.
            self.queue.clear();
            return Ok(());
        }
        let received = self.inbox.recv_timeout(RETRY);
        self.take(received);
        self.take_waiting();
        let (cuts, others) =
            std::mem::take(&mut self.queue).into_iter().partition(|c| matches!(c, Command::CutBelow(_)));
        self.queue = others;
        let cuts: VecDeque<Command> = cuts;
        for cut in cuts {
            if let Command::CutBelow(seq) = cut {
                self.log.cut_below(seq)?;
            }
        }
        self.log.prepare(true)?;
        Ok(())
    }

    fn tell_full(&mut self, stuck: bool) {
        let full = stuck || self.log.is_full();
        if full != self.full {
            self.full = full;
            self.out.tell(Ok(Event::Full(full)));
        }
    }
}

/// Whether `next` belongs in `group`, which may have `room` bytes more. One that goes back begins a group of its own.
fn goes_on(group: &[(Epoch, Batch)], room: usize, next: &Command) -> bool {
    let (Some((_, last)), Command::Batch(_, batch)) = (group.last(), next) else { return false };
    let header = batch.header();
    record_len(batch) <= room
        && header.first_seq == last.last_seq() + 1
        && header.hash_before == last.header().hash_last
}

fn record_len(batch: &Batch) -> usize {
    HEADER_LEN + batch.bytes().len()
}
