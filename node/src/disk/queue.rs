//! What is to be written, and how: the writing thread without its thread.
//!
//! What has come is written as one group, up to 4 MiB, synced once and told. Votes go through the same queue and are
//! given in order with the batches around them. When nothing has come for 50 ms, a closing group is added.
//!
//! On a full disk the queue stands still until there is room, votes included, since a vote may speak of what was
//! submitted before it; only cuts of the log pass, as they make room.
//!
//! [`super::writer`] drives it from a thread, and the simulator from its agenda.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;

use super::fs::Fs;
use super::log::{Durable, LogError, LogFiles};
use super::record::{HEADER_LEN, Mark};
use super::vote::{Vote, VoteError, VoteFile};

/// Bytes of batches in one group.
pub const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// When nothing has come for so long, the log has fallen idle.
pub const IDLE: Duration = Duration::from_millis(50);
/// Pause between steps towards a spare segment while there is nothing else to do.
const BREATH: Duration = Duration::from_millis(1);
/// Pause between looks whether a full disk has room again.
pub const RETRY: Duration = Duration::from_millis(100);

/// What there is to tell.
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

/// Something to be done, behind all that was taken before.
#[derive(Debug, Clone)]
pub enum Command {
    /// Write a batch, submitted to the log of this epoch.
    Batch(Epoch, Batch),
    /// Give a vote.
    Vote(Vote),
    /// A snapshot has durably what is below; see [`LogFiles::cut_below`].
    CutBelow(u64),
    /// A snapshot was installed; see [`LogFiles::restart_at`].
    RestartAt(Epoch, Mark),
}

/// What waits to be written, and the files it goes to.
#[derive(Debug)]
pub struct WriteQueue<F: Fs> {
    log: LogFiles<F>,
    vote: VoteFile<F>,
    waiting: VecDeque<Command>,
    /// Whether it was told last that the disk is full.
    full: bool,
}

impl<F: Fs> WriteQueue<F> {
    /// An empty queue in front of files that were opened.
    pub fn new(log: LogFiles<F>, vote: VoteFile<F>) -> Self {
        Self { log, vote, waiting: VecDeque::new(), full: false }
    }

    /// The log behind it.
    pub fn log(&self) -> &LogFiles<F> {
        &self.log
    }

    /// Takes what is to be done, behind all that was taken before.
    pub fn take(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.waiting.extend(commands);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does the next thing, with all that belongs in its group, and tells what is true then. `false`: the disk is full,
    /// and all stands still until [`Self::make_room`].
    ///
    /// # Errors
    /// The files can no longer be written.
    pub fn work(&mut self, mut tell: impl FnMut(Event)) -> Result<bool, Error> {
        match self.waiting.pop_front() {
            Some(Command::Batch(epoch, batch)) => return self.write_group((epoch, batch), tell),
            Some(Command::Vote(vote)) => {
                self.vote.write(vote)?;
                tell(Event::Vote(vote));
            }
            Some(Command::CutBelow(seq)) => self.log.cut_below(seq)?,
            Some(Command::RestartAt(epoch, mark)) => match self.log.restart_at(epoch, mark) {
                Err(LogError::Full) => return Ok(self.stand_still([Command::RestartAt(epoch, mark)], tell)),
                done => {
                    done?;
                    tell(Event::Durable { epoch, seq: mark.seq, hash: mark.hash });
                }
            },
            None => {}
        }
        Ok(true)
    }

    /// Writes a batch and those behind it that go on from it.
    fn write_group(&mut self, first: (Epoch, Batch), mut tell: impl FnMut(Event)) -> Result<bool, Error> {
        let mut room = self.log.group_bytes_max().min(GROUP_BYTES).saturating_sub(record_len(&first.1));
        let mut group = vec![first];
        while self.waiting.front().is_some_and(|next| goes_on(&group, room, next)) {
            if let Some(Command::Batch(epoch, batch)) = self.waiting.pop_front() {
                room = room.saturating_sub(record_len(&batch));
                group.push((epoch, batch));
            }
        }
        let done = match self.log.append(&group) {
            Err(LogError::Full) => {
                let undone = group.into_iter().map(|(epoch, batch)| Command::Batch(epoch, batch));
                return Ok(self.stand_still(undone, tell));
            }
            done => done?,
        };
        if let Some(Durable { tag, end }) = done {
            tell(Event::Durable { epoch: tag, seq: end.seq, hash: end.hash });
        }
        self.log.prepare(false)?;
        Ok(true)
    }

    /// The disk is full: puts back what could not be done.
    fn stand_still(
        &mut self,
        undone: impl IntoIterator<Item = Command, IntoIter: DoubleEndedIterator>,
        tell: impl FnMut(Event),
    ) -> bool {
        for command in undone.into_iter().rev() {
            self.waiting.push_front(command);
        }
        self.tell_full(true, tell);
        false
    }

    /// To be called [`RETRY`] after the disk was full: lets cuts of the log pass, and tries for a spare segment.
    ///
    /// # Errors
    /// The files can no longer be written.
    pub fn make_room(&mut self) -> Result<(), Error> {
        let is_cut = |command: &Command| matches!(command, Command::CutBelow(_));
        let (cuts, others): (VecDeque<_>, _) = std::mem::take(&mut self.waiting).into_iter().partition(is_cut);
        self.waiting = others;
        for cut in cuts {
            if let Command::CutBelow(seq) = cut {
                self.log.cut_below(seq)?;
            }
        }
        Ok(self.log.prepare(true)?)
    }

    /// Forgets what waits.
    pub fn give_up(&mut self) {
        self.waiting.clear();
    }

    /// For how long nothing must come before [`Self::rest`] is called, when nothing waits and nothing has for `idle`;
    /// `None`: there is nothing to do.
    pub fn pause(&self, idle: Duration) -> Option<Duration> {
        let closing = self.log.is_unclosed().then(|| IDLE.saturating_sub(idle));
        let filling = if self.log.is_full() { Some(RETRY) } else { self.log.wants_spare().then_some(BREATH) };
        closing.into_iter().chain(filling).min()
    }

    /// Does what is better done while nothing waits.
    ///
    /// # Errors
    /// The files can no longer be written.
    pub fn rest(&mut self, idle: Duration) -> Result<(), Error> {
        if self.log.is_unclosed() && idle >= IDLE {
            self.log.close_group()?;
        } else {
            self.log.prepare(true)?;
        }
        Ok(())
    }

    /// Tells whether the disk is full, if that has changed.
    pub fn look_for_room(&mut self, tell: impl FnMut(Event)) {
        self.tell_full(false, tell);
    }

    /// Ends the log in order.
    ///
    /// # Errors
    /// The files can no longer be written.
    pub fn close(&mut self) -> Result<(), Error> {
        self.log.close_group()?;
        Ok(())
    }

    fn tell_full(&mut self, stuck: bool, mut tell: impl FnMut(Event)) {
        let full = stuck || self.log.is_full();
        if full != self.full {
            self.full = full;
            tell(Event::Full(full));
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
