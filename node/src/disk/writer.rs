//! The threads that serve an event loop, which never waits for a disk.
//!
//! One thread writes what has come, as [`super::queue`] says, tells, and wakes the loop. So groups form by themselves:
//! while one is synced, the next gathers. Another thread reads batches for peers that lag, so that an old part of the log
//! that has to come from the disk holds up no write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded, unbounded};
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

use super::bell::Bell;
use super::fs::{Fs, FsFile};
use super::log::LogFiles;
use super::queue::{Command, RETRY, WriteQueue};
pub use super::queue::{Error, Event};
use super::reader::LogReader;
use super::record::Mark;
use super::vote::{Vote, VoteFile};

/// Bytes of batches in one answer to a read; one batch may be more.
pub const READ_BYTES: usize = 2 * 1024 * 1024;
/// Groups of a loop's turns that the channel holds. What is more waits with the loop, whose own limits bound it.
const TURNS: usize = 64;
/// Reads that wait for the reading thread. More are not taken, and asked again by the peer.
const READS: usize = 64;
/// Wakes the event loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

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
    /// Wakes the writer, which is the first of the threads.
    bell: Arc<Bell>,
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
        let queue = WriteQueue::new(log, vote);
        let bell = Arc::<Bell>::default();
        let writer =
            Writer { queue, inbox, bell: Arc::clone(&bell), out: out.clone(), ended: false, busy_at: Instant::now() };
        let mut started = Self {
            turn: Vec::new(),
            waiting: VecDeque::new(),
            commands: Some(commands),
            reads: Some(reads),
            events,
            ended: false,
            bell,
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

    /// System calls that were made for the threads to sleep and to be woken.
    pub fn calls(&self) -> u64 {
        self.bell.calls()
    }

    fn ring(&self) {
        if let Some(writer) = self.threads.first() {
            self.bell.ring(writer.thread());
        }
    }

    fn send_waiting(&mut self) {
        let Some(commands) = &self.commands else { return };
        while let Some(turn) = self.waiting.pop_front() {
            match commands.try_send(turn) {
                Ok(()) => self.ring(),
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
            for turn in std::mem::take(&mut self.waiting) {
                // Fails only if the writer has ended.
                let _ = commands.send(turn);
                self.ring();
            }
        }
        // Now that nothing more can come, the writer is to see that.
        self.ring();
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
    queue: WriteQueue<F>,
    inbox: Receiver<Vec<Command>>,
    /// Rung whenever something was put into the inbox.
    bell: Arc<Bell>,
    out: Out,
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
            self.queue.look_for_room(|event| self.out.tell(Ok(event)));
        }
        self.queue.close()
    }

    fn work(&mut self) -> Result<(), Error> {
        if self.queue.work(|event| self.out.tell(Ok(event)))? {
            return Ok(());
        }
        if self.ended {
            // Nobody will make room, and nobody was told that these are safe.
            self.queue.give_up();
            return Ok(());
        }
        let received = self.receive(Some(RETRY));
        self.take(received);
        self.take_waiting();
        self.queue.make_room()
    }

    /// There is nothing to do: waits for something, or does what can be done meanwhile.
    fn rest(&mut self) -> Result<(), Error> {
        let Some(wait) = self.queue.pause(self.busy_at.elapsed()) else {
            let received = self.receive(None);
            self.take(received);
            return Ok(());
        };
        let received = self.receive(Some(wait));
        if self.take(received) { Ok(()) } else { self.queue.rest(self.busy_at.elapsed()) }
    }

    /// The next turn, which is waited for, at most for `wait`.
    fn receive(&self, wait: Option<Duration>) -> Result<Vec<Command>, RecvTimeoutError> {
        let received = self.bell.sleep(wait, || match self.inbox.try_recv() {
            Ok(turn) => Some(Ok(turn)),
            Err(TryRecvError::Disconnected) => Some(Err(RecvTimeoutError::Disconnected)),
            Err(TryRecvError::Empty) => None,
        });
        received.unwrap_or(Err(RecvTimeoutError::Timeout))
    }

    /// Whether the wait is over.
    fn take(&mut self, received: Result<Vec<Command>, RecvTimeoutError>) -> bool {
        match received {
            Ok(turn) => self.queue.take(turn),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => self.ended = true,
        }
        true
    }

    fn take_waiting(&mut self) {
        while let Ok(turn) = self.inbox.try_recv() {
            self.queue.take(turn);
        }
    }
}
