//! The session of a client: counters, the window, and what is still open.

use std::collections::BTreeMap;

use pygmy_proto::limits::SESSION_WINDOW;

/// What is known of a counter that was given out and has no final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Its call goes on.
    Running,
    /// Its call ended with an unknown outcome.
    Unsettled,
}

/// A session as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    id: u64,
    next_counter: u64,
    /// Invariant: every counter is below `next_counter`.
    open: BTreeMap<u64, Open>,
}

impl Session {
    /// The session `id`, whose next write gets `next_counter`, and in which `unsettled` writes await their answers.
    pub fn new(id: u64, next_counter: u64, unsettled: impl IntoIterator<Item = u64>) -> Self {
        let open: BTreeMap<u64, Open> =
            unsettled.into_iter().filter(|counter| *counter > 0).map(|counter| (counter, Open::Unsettled)).collect();
        let above = open.last_key_value().map_or(0, |(counter, _)| *counter);
        Self { id, next_counter: next_counter.max(above + 1), open }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The counter of the next write.
    pub fn next_counter(&self) -> u64 {
        self.next_counter
    }

    /// Lowest counter whose answer is still wanted.
    pub fn first_incomplete(&self) -> u64 {
        self.open.first_key_value().map_or(self.next_counter, |(counter, _)| *counter)
    }

    /// Counters whose outcome is unknown and that no call is settling, ascending.
    pub fn unsettled(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.iter().filter(|(_, open)| **open == Open::Unsettled).map(|(counter, _)| *counter)
    }

    /// Gives out the next counter, unless it would lie outside the window.
    pub(super) fn take_counter(&mut self) -> Option<u64> {
        let counter = self.next_counter;
        if counter - self.first_incomplete() >= SESSION_WINDOW {
            return None;
        }
        self.next_counter += 1;
        self.open.insert(counter, Open::Running);
        Some(counter)
    }

    /// Whether the window cannot move on its own: its lowest counter waits for somebody to settle it.
    pub(super) fn is_stuck(&self) -> bool {
        self.open.first_key_value().is_some_and(|(_, open)| *open == Open::Unsettled)
    }

    /// A call has taken up a counter again.
    pub(super) fn resume(&mut self, counter: u64) {
        if let Some(open) = self.open.get_mut(&counter) {
            *open = Open::Running;
        }
    }

    /// A counter has its final answer.
    pub(super) fn finish(&mut self, counter: u64) {
        self.open.remove(&counter);
    }

    /// A call gave up without an answer.
    pub(super) fn give_up(&mut self, counter: u64) {
        if let Some(open) = self.open.get_mut(&counter) {
            *open = Open::Unsettled;
        }
    }
}
