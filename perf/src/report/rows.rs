//! Words in rows, each joined by an upright line to the place that it is about, so that neither words nor lines cross.

/// Rows that fill up, the first one nearest to what the words are about. Places must be given from the right to the left:
/// then the line to a word passes to the left of the words before it.
#[derive(Debug)]
pub(super) struct Rows {
    taken: Vec<Vec<(f64, f64)>>,
    max: usize,
    clear: f64,
}

impl Rows {
    /// Empty ones, `max` at most; `clear` is kept free between a line and the words that it passes.
    pub(super) fn new(max: usize, clear: f64) -> Self {
        Self { taken: Vec::new(), max, clear }
    }

    /// The first row that has room for words from `start` to `end` that belong to `place`, which are then there. `None`
    /// when there is none.
    pub(super) fn take(&mut self, place: f64, (start, end): (f64, f64)) -> Option<usize> {
        let span = (place.min(start) - self.clear, place.max(end));
        let is_free = |row: &Vec<(f64, f64)>| row.iter().all(|(from, to)| span.1 <= *from || *to <= span.0);
        let row = self.taken.iter().position(is_free).unwrap_or(self.taken.len());
        if row == self.max {
            return None;
        }
        if row == self.taken.len() {
            self.taken.push(Vec::new());
        }
        self.taken[row].push(span);
        let line = (place - self.clear, place + self.clear);
        self.taken[..row].iter_mut().for_each(|passed| passed.push(line));
        Some(row)
    }

    /// How many rows have words.
    pub(super) fn used(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_go_beyond_those_that_their_line_would_cross() {
        let mut rows = Rows::new(3, 3.0);
        assert_eq!(rows.take(100.0, (104.0, 150.0)), Some(0));
        assert_eq!(rows.take(80.0, (84.0, 140.0)), Some(1));
        assert_eq!(rows.take(10.0, (14.0, 60.0)), Some(0), "there is room to the left of both");
        assert_eq!(rows.take(5.0, (9.0, 95.0)), Some(2), "the second's line passes the first row");
        assert_eq!(rows.take(4.0, (8.0, 95.0)), None);
        assert_eq!(rows.used(), 3);
    }

    proptest! {
        #[test]
        fn no_line_crosses_words(mut places in prop::collection::vec((0.0..800.0, 10.0..150.0_f64), 0..20)) {
            places.sort_by(|a: &(f64, f64), b| b.0.total_cmp(&a.0));
            let mut rows = Rows::new(usize::MAX, 3.0);
            let found: Vec<(f64, f64, usize)> = places
                .iter()
                .map(|(place, width)| (*place, place + 4.0 + width, rows.take(*place, (place + 4.0, place + 4.0 + width)).unwrap()))
                .collect();
            for (at, (place, end, row)) in found.iter().enumerate() {
                for (other, other_end, other_row) in &found[..at] {
                    // The other is to the right: its words are not above or beneath this one's, and its line not in them.
                    prop_assert!(row != other_row || end <= other || place >= other_end);
                    prop_assert!(row > other_row || end <= other, "a line through words");
                }
            }
        }
    }
}
