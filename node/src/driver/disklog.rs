//! The log on disk behind the driver's seam.

use std::sync::Arc;

use mio::Waker;
use pygmy_proto::batch::Batch;
use pygmy_proto::message::Epoch;
use pygmy_ring::Vote;

use super::log::{LogError, LogEvent, LogWriter};
use crate::disk::fs::RealFs;
use crate::disk::log::LogFiles;
use crate::disk::vote::VoteFile;
use crate::disk::writer::{Error, Event, LogThread};

/// The log in a directory of its own, written by a thread of its own.
#[derive(Debug)]
pub struct DiskLog {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Opened; there is nobody to wake yet.
    Opened(Box<(LogFiles<RealFs>, VoteFile<RealFs>)>),
    Running(LogThread),
    /// The thread could not be started, or is gone.
    Failed(Option<Error>),
}

impl DiskLog {
    /// Around the files of an opened log.
    pub fn new(log: LogFiles<RealFs>, vote: VoteFile<RealFs>) -> Self {
        Self { state: State::Opened(Box::new((log, vote))) }
    }

    fn thread(&mut self) -> Option<&mut LogThread> {
        match &mut self.state {
            State::Running(thread) => Some(thread),
            State::Opened(_) | State::Failed(_) => None,
        }
    }
}

impl LogWriter for DiskLog {
    fn attach(&mut self, waker: Arc<Waker>) {
        let wake = move || {
            if let Err(error) = waker.wake() {
                ::log::error!("the event loop cannot be woken: {error}");
            }
        };
        let state = std::mem::replace(&mut self.state, State::Failed(None));
        self.state = match state {
            State::Opened(files) => {
                let (log, vote) = *files;
                match LogThread::start(log, vote, Arc::new(wake)) {
                    Ok(thread) => State::Running(thread),
                    Err(error) => State::Failed(Some(error)),
                }
            }
            other => other,
        };
    }

    fn submit(&mut self, epoch: Epoch, batch: Batch) {
        if let Some(thread) = self.thread() {
            thread.submit(epoch, batch);
        }
    }

    fn submit_vote(&mut self, vote: Vote) {
        if let Some(thread) = self.thread() {
            thread.submit_vote(vote);
        }
    }

    fn read(&mut self, node: u16, from_seq: u64, upto: u64) {
        if let Some(thread) = self.thread() {
            // One that was not taken is asked for again by the peer.
            thread.read(node, from_seq, upto);
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        match &mut self.state {
            State::Running(thread) => {
                thread.flush();
                Ok(())
            }
            State::Opened(_) => Ok(()),
            State::Failed(error) => Err(error.take().unwrap_or(Error::Ended).into()),
        }
    }

    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        let Some(thread) = self.thread() else { return Ok(None) };
        let Some(event) = thread.poll()? else { return Ok(None) };
        Ok(Some(match event {
            Event::Durable { epoch, seq, hash } => LogEvent::Durable { epoch, seq, hash },
            Event::Vote(vote) => LogEvent::Vote(vote),
            Event::Full(full) => LogEvent::Full(full),
            Event::Read { node, batches } => LogEvent::Read { node, batches },
            // Only a vote that was damaged is ever absolved, and such a one never counts again here.
            Event::Absolved => return Ok(None),
        }))
    }
}
