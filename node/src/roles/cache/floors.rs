//! How far an answer must reach: the floor of a read.
//!
//! A front asks a catalog for a barrier ([`Kind::Floor`](pygmy_proto::Kind::Floor)) and is told a position: nothing beyond it had been
//! answered to anybody when the question was *sent*. For [`STALENESS_NS`] from then on, an answer that reaches it keeps the
//! promise; counted from the answer, a question that lay somewhere for a second would pass for fresh. A front asks every
//! third of that time while it is asked itself, so that reads seldom wait for one.

use std::collections::VecDeque;

use pygmy_proto::limits::STALENESS_MS_MAX;

use crate::machine::ms;
use crate::mistake::{Mistake, Planted};

/// Whatever was answered to anybody longer ago than this is in every answer.
pub const STALENESS_NS: u64 = ms(STALENESS_MS_MAX as u64);
/// A barrier is asked for so often, and waited for so long before another catalog is asked.
pub const EVERY_NS: u64 = STALENESS_NS / 3;
/// Questions without an answer that are remembered; of more, the oldest no longer counts.
const ASKED_MAX: usize = 4;

/// Where an answer must reach, and until when that is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The position.
    pub seq: u64,
    /// When the barrier was sent.
    pub sent_ns: u64,
}

impl Bound {
    /// Whether an answer that reaches it may be given now.
    pub fn holds(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.sent_ns) <= STALENESS_NS
    }
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    node: u16,
    sent_ns: u64,
}

/// The barriers of a front.
#[derive(Debug, Default)]
pub struct Floors {
    latest: Option<Bound>,
    /// Questions without an answer, the latest last.
    asked: VecDeque<Asked>,
    /// When the latest question was sent; `None`: none was, or it came to nothing.
    sent_ns: Option<u64>,
    planted: Planted,
}

impl Floors {
    /// Makes a known mistake from now on.
    #[cfg(feature = "mistakes")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// The floor at present, if there is one.
    pub fn current(&self, now_ns: u64) -> Option<Bound> {
        self.latest.filter(|bound| bound.holds(now_ns))
    }

    /// Milliseconds since the barrier of the latest floor was sent.
    pub fn age_ms(&self, now_ns: u64) -> Option<u64> {
        self.latest.map(|bound| now_ns.saturating_sub(bound.sent_ns) / ms(1))
    }

    /// Whether it is time to ask.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.sent_ns.is_none_or(|sent_ns| now_ns.saturating_sub(sent_ns) >= EVERY_NS)
    }

    /// When it will be time to ask.
    pub fn due_ns(&self) -> u64 {
        self.sent_ns.map_or(0, |sent_ns| sent_ns + EVERY_NS)
    }

    /// Whom the latest question went to, if it is not answered.
    pub fn silent(&self) -> Option<u16> {
        self.asked.back().map(|asked| asked.node)
    }

    /// A question was sent.
    pub fn on_asked(&mut self, number: u64, node: u16, now_ns: u64) {
        if self.asked.len() == ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { number, node, sent_ns: now_ns });
        self.sent_ns = Some(now_ns);
    }

    /// An answer came. False when it is to no question that is remembered.
    pub fn on_answer(&mut self, number: u64, node: u16, seq: u64, now_ns: u64) -> bool {
        let Some(at) = self.find(number, node) else { return false };
        let Some(asked) = self.asked.get(at).copied() else { return false };
        // Those before it tell less.
        self.asked.drain(..=at);
        let arrived = self.planted.makes(Mistake::FreshOnArrival);
        let sent_ns = if arrived { now_ns } else { asked.sent_ns };
        if self.latest.is_none_or(|latest| latest.sent_ns <= sent_ns) {
            // Positions that were answered stay answered.
            let seq = self.latest.map_or(seq, |latest| latest.seq.max(seq));
            self.latest = Some(Bound { seq, sent_ns });
        }
        true
    }

    /// A question came to nothing: another may be asked at once. False when it is none that is remembered.
    pub fn on_refused(&mut self, number: u64, node: u16) -> bool {
        let Some(at) = self.find(number, node) else { return false };
        self.asked.remove(at);
        if at == self.asked.len() {
            self.sent_ns = None;
        }
        true
    }

    /// A catalog is gone, and its answers with it.
    pub fn on_lost(&mut self, node: u16) {
        if self.silent() == Some(node) {
            self.sent_ns = None;
        }
        self.asked.retain(|asked| asked.node != node);
    }

    fn find(&self, number: u64, node: u16) -> Option<usize> {
        self.asked.iter().position(|asked| asked.number == number && asked.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_holds_from_when_it_was_asked_for() {
        let mut floors = Floors::default();
        assert!(floors.is_due(0) && floors.current(0).is_none());
        floors.on_asked(1, 5, ms(100));
        assert!(!floors.is_due(ms(100)));
        // The answer takes its time, and that counts.
        assert!(floors.on_answer(1, 5, 40, ms(300)));
        assert_eq!(floors.current(ms(350)), Some(Bound { seq: 40, sent_ns: ms(100) }));
        assert_eq!(floors.current(ms(350) + 1), None);
        assert_eq!(floors.age_ms(ms(350)), Some(250));
    }

    #[test]
    fn it_asks_every_third_of_the_bound_and_another_one_when_it_is_not_answered() {
        let mut floors = Floors::default();
        floors.on_asked(1, 5, ms(0));
        assert!(!floors.is_due(EVERY_NS - 1) && floors.is_due(EVERY_NS));
        assert_eq!((floors.silent(), floors.due_ns()), (Some(5), EVERY_NS));
        floors.on_asked(2, 6, EVERY_NS);
        // The later question is answered first; what the earlier one brings is older.
        assert!(floors.on_answer(2, 6, 9, EVERY_NS + 1));
        assert!(!floors.on_answer(1, 5, 8, EVERY_NS + 2), "it no longer counts");
        assert_eq!(floors.current(EVERY_NS + 2), Some(Bound { seq: 9, sent_ns: EVERY_NS }));
        assert_eq!(floors.silent(), None);
    }

    #[test]
    fn answers_count_under_their_own_number_and_from_whom_was_asked() {
        let mut floors = Floors::default();
        floors.on_asked(1, 5, 0);
        assert!(!floors.on_answer(1, 6, 9, 1) && !floors.on_answer(2, 5, 9, 1));
        assert!(floors.current(1).is_none());
        for number in 2..10 {
            floors.on_asked(number, 5, number);
        }
        assert!(!floors.on_answer(1, 5, 9, 10), "forgotten for the later ones");
        assert!(floors.on_answer(9, 5, 9, 10));
    }

    #[test]
    fn the_next_is_asked_at_once_when_a_catalog_is_gone_or_refuses() {
        let mut floors = Floors::default();
        floors.on_asked(1, 5, 0);
        floors.on_lost(6);
        assert!(!floors.is_due(1));
        floors.on_lost(5);
        assert!(floors.is_due(1));
        floors.on_asked(2, 6, 1);
        assert!(floors.on_refused(2, 6) && !floors.on_refused(2, 6));
        assert!(floors.is_due(2));
    }

    #[test]
    fn a_position_never_goes_back() {
        let mut floors = Floors::default();
        floors.on_asked(1, 5, 0);
        floors.on_answer(1, 5, 40, 1);
        floors.on_asked(2, 6, 2);
        floors.on_answer(2, 6, 39, 3);
        assert_eq!(floors.current(3), Some(Bound { seq: 40, sent_ns: 2 }));
    }
}
