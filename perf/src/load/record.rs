//! What is counted while a load runs.

use hdrhistogram::Histogram;
use pygmy_proto::ErrorCode;

use super::series::{Latencies, Series, Slice};
use super::traces::Traces;
use crate::error::Error;

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

/// Counts of one thread, or of all; and latencies of all.
#[derive(Debug, Clone)]
pub struct Record {
    /// Nanoseconds from the moment a request was due, or sent in a closed loop, to its answer: of all that were due in the
    /// window.
    pub latencies: Latencies,
    /// The same over time, by when the answers came.
    pub series: Series,
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
    /// Where the time of some of them went.
    pub traces: Traces,
}

impl Record {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub fn new() -> Result<Self, Error> {
        let latencies = Latencies::new()?;
        Ok(Self {
            lateness: latencies.empty().clone(),
            latencies,
            series: Series::default(),
            answered: 0,
            done: 0,
            due: 0,
            unsent: 0,
            traces: Traces::default(),
        })
    }

    /// A request of the window leaves.
    pub fn add_sent(&mut self, late_ns: u64) {
        self.due += 1;
        // Histograms that resize themselves count whatever they are given.
        let counted = self.lateness.record(late_ns);
        debug_assert!(counted.is_ok(), "{counted:?}");
    }

    /// Adds what one thread counted in one interval.
    pub fn add_slice(&mut self, slice: &Slice) {
        self.series.add(slice);
        self.latencies.merge(&slice.latencies);
    }

    /// Adds what another thread counted, but for what its slices hold.
    pub fn merge(&mut self, other: &Record) {
        let added = self.lateness.add(&other.lateness);
        debug_assert!(added.is_ok(), "{added:?}");
        self.answered += other.answered;
        self.done += other.done;
        self.due += other.due;
        self.unsent += other.unsent;
        self.traces.merge(&other.traces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::mix::RequestKind;

    #[test]
    fn merging_adds_everything_and_clamps_nothing() {
        let (mut a, mut b) = (Record::new().unwrap(), Record::new().unwrap());
        let hour = 3_600_000_000_000;
        let (ok, busy) = ((RequestKind::Buy, Outcome::Ok), (RequestKind::Buy, Outcome::Busy));
        for (number, ns) in [(0, 1_000), (7, hour)] {
            let mut latencies = Latencies::new().unwrap();
            latencies.add(ok, ns);
            latencies.add(busy, 5);
            a.add_slice(&Slice { number, latencies });
        }
        b.add_sent(hour);
        (b.answered, b.done, b.unsent) = (2, 1, 7);
        a.merge(&b);
        let times = a.latencies.get(ok).unwrap();
        assert_eq!(times.len(), 2);
        assert!(times.max().abs_diff(hour) < hour / 500, "{}", times.max());
        assert_eq!(a.latencies.get(busy).map(Histogram::len), Some(2));
        assert_eq!(a.series.intervals().len(), 8);
        assert_eq!((a.answered, a.done, a.due, a.unsent, a.lateness.len()), (2, 1, 1, 7, 1));
    }

    #[test]
    fn outcomes_bear_the_protocols_names() {
        assert_eq!(Outcome::of_error(23).name(), "not_enough_stock");
        assert_eq!(Outcome::of_error(9_999).name(), "error 9999");
    }
}
