//! What engines ask of the system, told to other threads while they run.

use std::sync::atomic::{AtomicU64, Ordering};

use pygmy_proto::message::IoStatus;

/// Plain counts of one engine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// System calls.
    pub(super) calls: u64,
    /// Bytes that came.
    pub(super) received: u64,
    /// Bytes that went.
    pub(super) sent: u64,
}

/// Where an engine shows its counts, once a turn.
#[derive(Debug, Default)]
pub struct Traffic {
    calls: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// There is one writer, so these are plain stores.
    pub(super) fn show(&self, counts: Counts) {
        self.calls.store(counts.calls, Ordering::Relaxed);
        self.received.store(counts.received, Ordering::Relaxed);
        self.sent.store(counts.sent, Ordering::Relaxed);
    }

    /// The counts as of its latest turn, in the form in which servers tell theirs.
    pub fn get(&self) -> IoStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoStatus {
            system_calls: get(&self.calls),
            received: get(&self.received),
            sent: get(&self.sent),
            ..IoStatus::default()
        }
    }
}
