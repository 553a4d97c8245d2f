//! The loop's timers: one slot for each thing that can fall due, so that arming one is a store and never an allocation.

/// What can fall due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The machine's own next timeout.
    Machine,
    /// The earliest link that waits for its next attempt.
    Reconnect,
    /// The oldest connection without a finished handshake reaches its limit.
    Handshake,
    /// Time to look at the connections whose peers leave output unread.
    Stall,
    /// The oldest closing connection has lingered long enough.
    Linger,
    /// Accepting is tried again after the process ran out of descriptors or memory.
    AcceptPause,
    /// Everything was answered; connections have had their moment to take the last bytes.
    Grace,
    /// Leaving has taken too long.
    Leave,
}

impl Timer {
    const COUNT: usize = Timer::Leave as usize + 1;
}

/// When each timer fires, in nanoseconds of the loop's clock.
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    due_ns: [Option<u64>; Timer::COUNT],
}

impl TimerTable {
    /// Arms `timer` for `due_ns`, or stops it.
    pub(super) fn set(&mut self, timer: Timer, due_ns: Option<u64>) {
        self.due_ns[timer as usize] = due_ns;
    }

    /// Arms `timer` unless it is armed already.
    pub(super) fn set_if_idle(&mut self, timer: Timer, due_ns: u64) {
        self.due_ns[timer as usize].get_or_insert(due_ns);
    }

    /// Whether `timer` is due. It is stopped by that: who wants it again arms it again.
    pub(super) fn take_due(&mut self, timer: Timer, now_ns: u64) -> bool {
        let slot = &mut self.due_ns[timer as usize];
        let due = slot.is_some_and(|due_ns| due_ns <= now_ns);
        if due {
            *slot = None;
        }
        due
    }

    /// When the loop must wake at the latest.
    pub(super) fn next(&self) -> Option<u64> {
        self.due_ns.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_timer_decides_and_fires_once() {
        let mut table = TimerTable::default();
        assert_eq!(table.next(), None);
        table.set(Timer::Machine, Some(30));
        table.set(Timer::Stall, Some(20));
        table.set_if_idle(Timer::Stall, 10);
        assert_eq!(table.next(), Some(20));
        assert!(!table.take_due(Timer::Stall, 19));
        assert!(table.take_due(Timer::Stall, 20));
        assert!(!table.take_due(Timer::Stall, 20));
        assert_eq!(table.next(), Some(30));
        table.set(Timer::Machine, None);
        assert_eq!(table.next(), None);
    }
}
