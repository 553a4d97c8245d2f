//! Which catalog feeds this front.
//!
//! One does. When it is lost, suspected or falls behind, another one is asked to go on where it ended; that one answers once it
//! has applied as much. One that does not in time is given up, and what is kept is forgotten: whether anybody can go on there
//! is then in doubt, and an empty cache is only slow.

use crate::machine::ms;

/// A catalog that has not answered for so long is given up.
pub const OPEN_NS: u64 = ms(100);
/// A feed that has not reached a position for so long after a barrier told of it is given up.
pub const BEHIND_NS: u64 = ms(100);
/// A catalog is told how much was read whenever it is this much more.
const READ_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is nobody to ask.
    Idle,
    /// A catalog was asked.
    Opening { node: u16, since_ns: u64 },
    /// It tells.
    Live { node: u16, read: u64, told: u64 },
}

/// The feed of a front.
#[derive(Debug)]
pub struct FeedLink {
    state: State,
    /// Request id of the latest `FeedOpen`.
    number: u64,
    /// A position that the feed has not reached, and since when it is known.
    behind: Option<(u64, u64)>,
}

impl Default for FeedLink {
    fn default() -> Self {
        Self { state: State::Idle, number: 0, behind: None }
    }
}

impl FeedLink {
    /// The catalog that feeds, or was asked to.
    pub fn node(&self) -> Option<u16> {
        match self.state {
            State::Idle => None,
            State::Opening { node, .. } | State::Live { node, .. } => Some(node),
        }
    }

    /// The catalog that feeds.
    pub fn feeding(&self) -> Option<u16> {
        self.node().filter(|_| matches!(self.state, State::Live { .. }))
    }

    /// A catalog was asked, under this request id.
    pub fn on_asked(&mut self, node: u16, number: u64, now_ns: u64) {
        self.state = State::Opening { node, since_ns: now_ns };
        self.number = number;
        self.behind = None;
    }

    /// There is nobody to ask.
    pub fn on_nobody(&mut self) {
        self.state = State::Idle;
        self.behind = None;
    }

    /// A catalog says from where on it tells. False when it was not asked, or was asked something else since.
    pub fn on_ok(&mut self, node: u16, number: u64) -> bool {
        if self.node() != Some(node) || self.number != number {
            return false;
        }
        if let State::Opening { .. } = self.state {
            self.state = State::Live { node, read: 0, told: 0 };
        }
        true
    }

    /// A catalog tells something. False when this front does not listen to it.
    pub fn on_feed(&mut self, from: u16, bytes: u64) -> bool {
        match &mut self.state {
            State::Live { node, read, .. } if *node == from => {
                *read += bytes;
                true
            }
            _ => false,
        }
    }

    /// How much is to be told as read, and to whom, if it is time.
    pub fn take_read(&mut self) -> Option<(u16, u64)> {
        match &mut self.state {
            State::Live { node, read, told } if *read - *told >= READ_BYTES => {
                *told = *read;
                Some((*node, *read))
            }
            _ => None,
        }
    }

    /// A barrier has told a position while the feed is at `processed`. True when the feed stays behind.
    pub fn on_floor(&mut self, seq: u64, processed: u64, now_ns: u64) -> bool {
        if self.feeding().is_none() {
            return false;
        }
        match self.behind {
            Some((at, since_ns)) if processed < at => now_ns.saturating_sub(since_ns) >= BEHIND_NS,
            _ => {
                self.behind = (processed < seq).then_some((seq, now_ns));
                false
            }
        }
    }

    /// When the catalog that was asked is given up.
    pub fn gives_up_ns(&self) -> Option<u64> {
        match self.state {
            State::Opening { since_ns, .. } => Some(since_ns + OPEN_NS),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_latest_question_counts() {
        let mut link = FeedLink::default();
        assert!(!link.on_ok(5, 0) && !link.on_feed(5, 10));
        link.on_asked(5, 1, 0);
        assert_eq!((link.node(), link.feeding(), link.gives_up_ns()), (Some(5), None, Some(OPEN_NS)));
        link.on_asked(6, 2, 7);
        link.on_asked(5, 3, 9);
        assert!(!link.on_ok(5, 1), "what 5 says to the first question");
        assert!(!link.on_feed(5, 10), "and what it tells behind that");
        assert!(!link.on_ok(6, 3));
        assert!(link.on_ok(5, 3));
        assert_eq!((link.feeding(), link.gives_up_ns()), (Some(5), None));
        assert!(link.on_feed(5, 10) && !link.on_feed(6, 10));
        assert!(link.on_ok(5, 3), "it begins anew by itself");
        link.on_nobody();
        assert_eq!((link.node(), link.on_feed(5, 1)), (None, false));
    }

    #[test]
    fn what_was_read_is_told_in_pieces() {
        let mut link = FeedLink::default();
        link.on_asked(5, 1, 0);
        link.on_ok(5, 1);
        link.on_feed(5, READ_BYTES - 1);
        assert_eq!(link.take_read(), None);
        link.on_feed(5, 2);
        assert_eq!((link.take_read(), link.take_read()), (Some((5, READ_BYTES + 1)), None));
    }

    #[test]
    fn a_feed_that_stays_behind_is_given_up_and_one_that_follows_is_not() {
        let mut link = FeedLink::default();
        assert!(!link.on_floor(9, 0, 0), "there is none");
        link.on_asked(5, 1, 0);
        link.on_ok(5, 1);
        assert!(!link.on_floor(9, 8, 0));
        // It has reached what it was behind of, and is behind of the next.
        assert!(!link.on_floor(20, 10, BEHIND_NS));
        assert!(!link.on_floor(30, 19, 2 * BEHIND_NS - 1));
        assert!(link.on_floor(30, 19, 2 * BEHIND_NS));
    }
}
