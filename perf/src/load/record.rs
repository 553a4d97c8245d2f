//! What is counted while a load runs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use pygmy_proto::ErrorCode;

use super::mix::RequestKind;
use crate::error::Error;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was turned away for want of room.
    Busy,
    /// It was refused with another code.
    Refused(u16),
    /// No answer came: the connection broke, or the run ended first.
    Lost,
}

impl Outcome {
    /// That of an error's code.
    pub fn of_error(code: u16) -> Self {
        if code == ErrorCode::Busy as u16 { Self::Busy } else { Self::Refused(code) }
    }

    /// The name in reports.
    pub fn name(self) -> String {
        match self {
            Self::Ok => "ok".into(),
            Self::Busy => "busy".into(),
            Self::Refused(code) => ErrorCode::from_u16(code).map_or(format!("error {code}"), |code| code.name().into()),
            Self::Lost => "lost".into(),
        }
    }
}

/// Counts and latencies of one thread, or of all.
#[derive(Debug, Clone)]
pub struct Record {
    empty: Histogram<u64>,
    /// Nanoseconds from the moment a request was due, or sent in a closed loop, to its answer.
    pub latencies: BTreeMap<(RequestKind, Outcome), Histogram<u64>>,
    /// Nanoseconds by which requests left after they were due.
    pub lateness: Histogram<u64>,
    /// Answers that came within the window, whenever they were asked for.
    pub answered: u64,
    /// Those of them that were `ok`.
    pub done: u64,
    /// Requests that were due within the window.
    pub due: u64,
    /// Requests that were due within the window and never left.
    pub unsent: u64,
}

impl Record {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// Never in practice: when three digits were more than the histograms can keep.
    pub fn new() -> Result<Self, Error> {
        let empty = Histogram::new(DIGITS).map_err(|error| Error::Usage(error.to_string()))?;
        let lateness = empty.clone();
        Ok(Self { empty, latencies: BTreeMap::new(), lateness, answered: 0, done: 0, due: 0, unsent: 0 })
    }

    /// A request of the window is over.
    pub fn add(&mut self, kind: RequestKind, outcome: Outcome, ns: u64) {
        let empty = &self.empty;
        let own = self.latencies.entry((kind, outcome)).or_insert_with(|| empty.clone());
        // Histograms that resize themselves count whatever they are given.
        let counted = own.record(ns);
        debug_assert!(counted.is_ok(), "{counted:?}");
    }

    /// A request of the window leaves.
    pub fn add_sent(&mut self, late_ns: u64) {
        self.due += 1;
        let counted = self.lateness.record(late_ns);
        debug_assert!(counted.is_ok(), "{counted:?}");
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Record) {
        for (key, theirs) in &other.latencies {
            let empty = &self.empty;
            // Both resize themselves, so that nothing is refused.
            let added = self.latencies.entry(*key).or_insert_with(|| empty.clone()).add(theirs);
            debug_assert!(added.is_ok(), "{added:?}");
        }
        let added = self.lateness.add(&other.lateness);
        debug_assert!(added.is_ok(), "{added:?}");
        self.answered += other.answered;
        self.done += other.done;
        self.due += other.due;
        self.unsent += other.unsent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_everything_and_clamps_nothing() {
        let (mut a, mut b) = (Record::new().unwrap(), Record::new().unwrap());
        let hour = 3_600_000_000_000;
        a.add(RequestKind::Buy, Outcome::Ok, 1_000);
        b.add(RequestKind::Buy, Outcome::Ok, hour);
        b.add(RequestKind::Buy, Outcome::of_error(ErrorCode::Busy as u16), 5);
        b.add_sent(hour);
        (b.answered, b.done, b.unsent) = (2, 1, 7);
        a.merge(&b);
        let ok = &a.latencies[&(RequestKind::Buy, Outcome::Ok)];
        assert_eq!(ok.len(), 2);
        assert!(ok.max().abs_diff(hour) < hour / 500, "{}", ok.max());
        assert_eq!(a.latencies[&(RequestKind::Buy, Outcome::Busy)].len(), 1);
        assert_eq!((a.answered, a.done, a.due, a.unsent, a.lateness.len()), (2, 1, 1, 7, 1));
    }

    #[test]
    fn outcomes_bear_the_protocols_names() {
        assert_eq!(Outcome::of_error(23).name(), "not_enough_stock");
        assert_eq!(Outcome::of_error(9_999).name(), "error 9999");
    }
}
