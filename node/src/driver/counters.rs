//! What a loop has done, for the line it logs at its end and for tests.

use std::fmt;

use pygmy_proto::message::IoStatus;

use super::datagrams::Calls;
use crate::disk::calls::FileCalls;
use crate::machine::CloseReason;

/// Counts since the loop was made.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Calls of `read`.
    pub reads: u64,
    /// Bytes that came.
    pub bytes_in: u64,
    /// Frames that came.
    pub frames_in: u64,
    /// Calls of `writev`.
    pub writes: u64,
    /// Bytes that went.
    pub bytes_out: u64,
    /// Frames that were queued.
    pub frames_out: u64,
    /// Connections that were accepted.
    pub accepts: u64,
    /// Connections that were opened.
    pub connects: u64,
    /// System calls for connections that are neither reads nor writes: making, configuring and closing them.
    pub conn_calls: u64,
    closes: Vec<(CloseReason, u64)>,
}

impl Counters {
    pub(super) fn count_close(&mut self, reason: CloseReason) {
        match self.closes.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.closes.push((reason, 1)),
        }
    }

    /// What the loop, its heartbeats and its log have asked of the system so far. Every turn waits once.
    pub(super) fn io(&self, datagrams: Calls, files: FileCalls) -> IoStatus {
        let own = self.turns + self.reads + self.writes + self.conn_calls;
        IoStatus {
            system_calls: own + datagrams.count + files.count,
            syncs: files.syncs,
            received: self.bytes_in + datagrams.received,
            sent: self.bytes_out + datagrams.sent,
            written: files.written,
        }
    }

    /// How many connections ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closes.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} turns, {} reads of {} bytes with {} frames, {} writes of {} bytes with {} frames, {} accepted, {} opened",
            self.turns,
            self.reads,
            self.bytes_in,
            self.frames_in,
            self.writes,
            self.bytes_out,
            self.frames_out,
            self.accepts,
            self.connects
        )?;
        self.closes.iter().try_for_each(|(reason, count)| write!(f, ", {count} closed as {reason:?}"))
    }
}
