//! A table of timers, one place for each.

/// What a replica waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The gap below what is known to exist has not closed by itself: fetch it.
    Gap,
    /// Peers have not been told of a commit by any other frame: tell them.
    CommitNotice,
    /// Nothing of what is pending was numbered for too long: hand it back.
    Unserved,
    /// With a rotating token and nothing to order: pass it on.
    Rotate,
    /// Entries are committed and not applied yet.
    Apply,
    /// The next heartbeat; suspicions are looked at with it.
    Beat,
    /// The next step of an epoch change.
    Campaign,
    /// Answers to a barrier are missing: ask for them again.
    Barrier,
}

const COUNT: usize = 8;

/// Deadlines in nanoseconds of the monotonic clock, indexed by [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct TimerTable([Option<u64>; COUNT]);

impl TimerTable {
    pub(crate) const ALL: [Timer; COUNT] = [
        Timer::Gap,
        Timer::CommitNotice,
        Timer::Unserved,
        Timer::Rotate,
        Timer::Apply,
        Timer::Beat,
        Timer::Campaign,
        Timer::Barrier,
    ];

    /// Sets a timer, replacing an earlier setting.
    pub(crate) fn set(&mut self, timer: Timer, at_ns: u64) {
        self.0[timer as usize] = Some(at_ns);
    }
    /// Sets a timer unless it is running.
    pub(crate) fn start(&mut self, timer: Timer, at_ns: u64) {
        self.0[timer as usize].get_or_insert(at_ns);
    }
    /// Whether a timer is running.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }
    /// When a timer fires.
    pub(crate) fn at(&self, timer: Timer) -> Option<u64> {
        self.0[timer as usize]
    }
    /// Stops a timer.
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }
    /// Stops a timer that is due; whether it was.
    pub(crate) fn take_due(&mut self, timer: Timer, now_ns: u64) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now_ns);
        if due {
            self.stop(timer);
        }
        due
    }
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.iter().flatten().min().copied()
    }
}
