//! How far behind an answer is: against every change that had been acknowledged when it was asked for. No I/O.

use hashbrown::HashMap;
use pygmy_proto::BookId;

/// A change of a book, and when it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// When whoever made it was told that it is done.
    pub(super) acked_ns: u64,
    /// Its position in the log.
    pub(super) seq: u64,
    /// What it changed.
    pub(super) book: BookId,
}

/// An answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// When it was asked for.
    pub(super) asked_ns: u64,
    /// The position that it says it reflects.
    pub(super) seq: u64,
    /// The last change of the book that it shows.
    pub(super) changed_seq: u64,
    /// The book.
    pub(super) book: BookId,
}

/// How far behind an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lag {
    /// Positions from the one that it reflects to the highest that had been acknowledged.
    pub(super) positions: u64,
    /// How long ago the first position above it had been acknowledged, whatever book it changed.
    pub(super) log_ns: u64,
    /// Acknowledged changes of this very book that it does not show.
    pub(super) versions: u64,
    /// How long ago the oldest of these had been acknowledged.
    pub(super) value_ns: u64,
    /// Whether it lacks a change that lies at or below the position which it says it reflects.
    pub(super) is_false: bool,
}

/// Positions in ascending order, and when they were acknowledged.
#[derive(Debug, Default)]
struct Acked {
    seqs: Vec<u64>,
    acked_ns: Vec<u64>,
    /// The earliest acknowledgement of the position and all above it: acknowledgements may come out of order.
    earliest_ns: Vec<u64>,
}

impl Acked {
    /// Of changes in ascending order of position.
    fn new(changes: &[Change]) -> Self {
        let acked_ns: Vec<u64> = changes.iter().map(|change| change.acked_ns).collect();
        let mut earliest_ns = acked_ns.clone();
        for place in (1..earliest_ns.len()).rev() {
            earliest_ns[place - 1] = earliest_ns[place - 1].min(earliest_ns[place]);
        }
        Self { seqs: changes.iter().map(|change| change.seq).collect(), acked_ns, earliest_ns }
    }

    /// How long before `at_ns` a position above `seq` had been acknowledged first; none had been: 0.
    fn age_ns(&self, seq: u64, at_ns: u64) -> u64 {
        self.earliest_ns.get(self.above(seq)).map_or(0, |earliest_ns| at_ns.saturating_sub(*earliest_ns))
    }

    /// How many positions above `seq` had been acknowledged at `at_ns`.
    fn count(&self, seq: u64, at_ns: u64) -> u64 {
        let first = self.above(seq);
        let (acked_ns, earliest_ns) = (&self.acked_ns[first..], &self.earliest_ns[first..]);
        let until = earliest_ns.partition_point(|earliest_ns| *earliest_ns <= at_ns);
        acked_ns[..until].iter().filter(|acked_ns| **acked_ns <= at_ns).count() as u64
    }

    fn above(&self, seq: u64) -> usize {
        self.seqs.partition_point(|own| *own <= seq)
    }
}

/// All changes that were acknowledged.
#[derive(Debug)]
pub(super) struct Changes {
    all: Acked,
    /// By the moment of their acknowledgement: the highest position up to it.
    highest: Vec<(u64, u64)>,
    books: HashMap<BookId, Acked>,
}

impl Changes {
    /// In any order.
    pub(super) fn new(mut changes: Vec<Change>) -> Self {
        changes.sort_unstable_by_key(|change| change.acked_ns);
        let mut highest: Vec<(u64, u64)> = Vec::with_capacity(changes.len());
        for Change { acked_ns, seq, .. } in &changes {
            let before = highest.last().map_or(0, |(_, before)| *before);
            highest.push((*acked_ns, before.max(*seq)));
        }
        changes.sort_unstable_by_key(|change| change.seq);
        let mut books: HashMap<BookId, Vec<Change>> = HashMap::new();
        for change in &changes {
            books.entry(change.book).or_default().push(*change);
        }
        let books = books.into_iter().map(|(book, changes)| (book, Acked::new(&changes))).collect();
        Self { all: Acked::new(&changes), highest, books }
    }

    /// How far behind an answer is.
    pub(super) fn lag(&self, look: &Look) -> Lag {
        let Look { asked_ns, seq, changed_seq, book } = *look;
        let acknowledged = self.highest.partition_point(|(acked_ns, _)| *acked_ns <= asked_ns);
        let highest = acknowledged.checked_sub(1).map_or(0, |last| self.highest[last].1);
        let mut lag =
            Lag { positions: highest.saturating_sub(seq), log_ns: self.all.age_ns(seq, asked_ns), ..Lag::default() };
        if let Some(own) = self.books.get(&book) {
            lag.versions = own.count(changed_seq, asked_ns);
            lag.value_ns = own.age_ns(changed_seq, asked_ns);
            lag.is_false = own.above(seq) > own.above(changed_seq);
        }
        lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn book(number: u64) -> BookId {
        BookId::new(&format!("book-{number}")).unwrap()
    }

    fn change(acked_ns: u64, seq: u64, number: u64) -> Change {
        Change { acked_ns, seq, book: book(number) }
    }

    fn look(asked_ns: u64, seq: u64, changed_seq: u64) -> Look {
        Look { asked_ns, seq, changed_seq, book: book(1) }
    }

    /// Two books, of which the first changes at 10, 12 and 14.
    fn changes() -> Changes {
        Changes::new(vec![change(100, 10, 1), change(120, 11, 2), change(150, 12, 1), change(140, 14, 1)])
    }

    #[test]
    fn an_answer_that_shows_everything_is_behind_nothing() {
        assert_eq!(changes().lag(&look(1_000, 14, 14)), Lag::default());
        // What was not acknowledged when it was asked for is not missed.
        assert_eq!(changes().lag(&look(99, 0, 0)), Lag::default());
        assert_eq!(Changes::new(Vec::new()).lag(&look(5, 0, 0)), Lag::default());
    }

    #[test]
    fn a_change_of_another_book_leaves_the_value_as_it_is() {
        let expected = Lag { positions: 1, log_ns: 10, ..Lag::default() };
        assert_eq!(changes().lag(&look(130, 10, 10)), expected);
    }

    #[test]
    fn the_oldest_change_that_is_not_shown_makes_the_lag() {
        let expected = Lag { positions: 4, log_ns: 80, versions: 2, value_ns: 60, is_false: false };
        assert_eq!(changes().lag(&look(200, 10, 10)), expected);
        // 14 was acknowledged before 12: at 145 it alone is missed.
        let expected = Lag { positions: 3, log_ns: 5, versions: 1, value_ns: 5, is_false: false };
        assert_eq!(changes().lag(&look(145, 11, 10)), expected);
    }

    #[test]
    fn an_answer_that_claims_a_position_shows_every_change_up_to_it() {
        assert!(changes().lag(&look(200, 12, 10)).is_false);
        assert!(!changes().lag(&look(200, 11, 10)).is_false, "11 is another book's");
        assert!(changes().lag(&look(0, 14, 12)).is_false, "even where nobody has been told of it");
    }

    /// The same by looking at every change there is.
    fn plainly(changes: &[Change], look: &Look) -> Lag {
        let acked = || changes.iter().filter(|change| change.acked_ns <= look.asked_ns);
        let highest = acked().map(|change| change.seq).max().unwrap_or(0);
        let age = |found: Option<&Change>| found.map_or(0, |change| look.asked_ns - change.acked_ns);
        let own = || acked().filter(|change| change.book == look.book && change.seq > look.changed_seq);
        let is_hidden =
            |change: &&Change| change.book == look.book && change.seq > look.changed_seq && change.seq <= look.seq;
        Lag {
            positions: highest.saturating_sub(look.seq),
            log_ns: age(acked().filter(|change| change.seq > look.seq).min_by_key(|change| change.acked_ns)),
            versions: own().count() as u64,
            value_ns: age(own().min_by_key(|change| change.acked_ns)),
            is_false: changes.iter().any(|change| is_hidden(&change)),
        }
    }

    #[test]
    fn it_agrees_with_looking_at_every_change() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..2_000 {
            let mut seq = 0;
            let mut all: Vec<Change> = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                seq += rng.random_range(1..4);
                all.push(change(seq * 10 + rng.random_range(0..50), seq, rng.random_range(1..3)));
            }
            let shown = rng.random_range(0..=seq);
            let asked_ns = rng.random_range(0..=seq * 10 + 60);
            let look = look(asked_ns, shown, rng.random_range(0..=shown));
            assert_eq!(Changes::new(all.clone()).lag(&look), plainly(&all, &look), "{all:?} {look:?}");
        }
    }
}
