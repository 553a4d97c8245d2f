//! A session's counters and window, and the requests that a connection has in flight.

use std::collections::VecDeque;

use pygmy_proto::limits::SESSION_WINDOW;

/// A session as its client must keep it: counters are given out in order and each is finished once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    id: u64,
    /// Lowest counter without its final answer.
    first_incomplete: u64,
    /// For the counters from `first_incomplete` on that were given out: whether they are finished.
    /// Invariant: the first of them is not.
    finished: VecDeque<bool>,
}

impl Session {
    /// A session that was just opened.
    pub fn new(id: u64) -> Self {
        Self { id, first_incomplete: 1, finished: VecDeque::new() }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Lowest counter whose answer is still wanted; what a write declares.
    pub fn first_incomplete(&self) -> u64 {
        self.first_incomplete
    }

    /// The next counter, unless it would lie outside the window that the store grants.
    pub fn take_counter(&mut self) -> Option<u64> {
        let ahead = self.finished.len() as u64;
        if ahead >= SESSION_WINDOW {
            return None;
        }
        self.finished.push_back(false);
        Some(self.first_incomplete + ahead)
    }

    /// `counter` has its final answer, or nobody wants it any more.
    pub fn finish(&mut self, counter: u64) {
        let place = counter.checked_sub(self.first_incomplete).and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(finished) = place.and_then(|place| self.finished.get_mut(place)) {
            *finished = true;
        }
        while self.finished.front() == Some(&true) {
            self.finished.pop_front();
            self.first_incomplete += 1;
        }
    }
}

/// What a connection has in flight, by request id. Ids are not used twice, so that a late answer finds nothing.
#[derive(Debug)]
pub struct Flights<T> {
    slots: Vec<Option<(u64, T)>>,
    free: Vec<usize>,
    issued: u64,
}

/// Bits of a request id that name its slot; the rest make it unique.
const SLOT_BITS: u32 = 16;

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), issued: 0 }
    }
}

impl<T> Flights<T> {
    /// Requests in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes a request; the id to send it under.
    pub fn insert(&mut self, what: T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.issued += 1;
        let id = (self.issued << SLOT_BITS) | slot as u64;
        self.slots[slot] = Some((id, what));
        id
    }

    /// The request with this id is over.
    pub fn take(&mut self, id: u64) -> Option<T> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let (_, what) = self.slots.get_mut(slot)?.take_if(|(own, _)| *own == id)?;
        self.free.push(slot);
        Some(what)
    }

    /// What is in flight.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|(_, what)| what)
    }

    /// All of it, oldest first; none is in flight afterwards.
    pub fn drain(&mut self) -> Vec<T> {
        self.free.clear();
        let mut all: Vec<(u64, T)> = self.slots.drain(..).flatten().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, what)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_incomplete_counter_waits_for_the_slowest() {
        let mut session = Session::new(9);
        assert_eq!((1..=4).map(|_| session.take_counter()).collect::<Vec<_>>(), [1, 2, 3, 4].map(Some));
        session.finish(2);
        session.finish(3);
        assert_eq!(session.first_incomplete(), 1);
        session.finish(1);
        assert_eq!(session.first_incomplete(), 4);
        session.finish(1);
        assert_eq!(session.take_counter(), Some(5));
    }

    #[test]
    fn no_counter_leaves_the_window() {
        let mut session = Session::new(9);
        let given = (0..2 * SESSION_WINDOW).map_while(|_| session.take_counter()).last();
        assert_eq!(given, Some(SESSION_WINDOW));
        session.finish(2);
        assert_eq!(session.take_counter(), None);
        session.finish(1);
        assert_eq!(session.take_counter(), Some(SESSION_WINDOW + 1));
        assert!(session.take_counter().is_some() && session.take_counter().is_none());
    }

    #[test]
    fn a_late_answer_finds_nothing_in_a_slot_that_was_used_again() {
        let mut flights = Flights::default();
        let (a, b) = (flights.insert('a'), flights.insert('b'));
        assert_eq!((flights.take(a), flights.take(a)), (Some('a'), None));
        let c = flights.insert('c');
        assert_eq!((flights.take(a), flights.len()), (None, 2));
        assert_ne!(c, a);
        assert_eq!(flights.drain(), ['b', 'c']);
        assert_eq!((flights.take(b), flights.len()), (None, 0));
    }
}
