//! Latencies over time: what came in every tenth of a second, kept small, and merged from all threads.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;

use super::mix::RequestKind;
use super::record::Outcome;
use crate::error::Error;

/// Length of an interval.
pub const INTERVAL_NS: u64 = 100_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// What is counted apart: requests of one kind that ended in one way.
pub type Key = (RequestKind, Outcome);

/// Histograms by kind and result, made when they are needed.
#[derive(Debug, Clone)]
pub struct Latencies {
    empty: Histogram<u64>,
    by_key: BTreeMap<Key, Histogram<u64>>,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never in practice: when three digits were more than the histograms can keep.
    pub fn new() -> Result<Self, Error> {
        let empty = Histogram::new(DIGITS).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Self { empty, by_key: BTreeMap::new() })
    }

    /// One that counted nothing, as all are at first.
    pub fn empty(&self) -> &Histogram<u64> {
        &self.empty
    }

    /// Counts one.
    pub fn add(&mut self, key: Key, ns: u64) {
        // Histograms that resize themselves count whatever they are given.
        let counted = self.of(key).record(ns);
        debug_assert!(counted.is_ok(), "{counted:?}");
    }

    /// Adds what others counted.
    pub fn merge(&mut self, other: &Latencies) {
        for (key, theirs) in &other.by_key {
            // Both resize themselves, so that nothing is refused.
            let added = self.of(*key).add(theirs);
            debug_assert!(added.is_ok(), "{added:?}");
        }
    }

    fn of(&mut self, key: Key) -> &mut Histogram<u64> {
        let empty = &self.empty;
        self.by_key.entry(key).or_insert_with(|| empty.clone())
    }

    /// Those of one kind and result, if there are any.
    pub fn get(&self, key: Key) -> Option<&Histogram<u64>> {
        self.by_key.get(&key)
    }

    /// All that there are, by kind, then by result.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Histogram<u64>)> {
        self.by_key.iter().filter(|(_, times)| !times.is_empty()).map(|(key, times)| (*key, times))
    }

    /// Takes them out; what is left counts on from nothing in histograms that are as large as those were.
    fn take(&mut self) -> Self {
        let of_same_size = self.by_key.iter().map(|(key, times)| (*key, Histogram::new_from(times))).collect();
        Self { empty: self.empty.clone(), by_key: std::mem::replace(&mut self.by_key, of_same_size) }
    }
}

/// What one thread counted in one interval.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Which interval, from the start of the window.
    pub number: usize,
    /// What came in it.
    pub latencies: Latencies,
}

/// Where a thread counts. What it counted it hands on once an interval, so that it need not stop to look into it.
#[derive(Debug)]
pub struct Slicer {
    number: usize,
    latencies: Latencies,
    slices: Sender<Slice>,
}

impl Slicer {
    /// Hands slices on to `slices`.
    ///
    /// # Errors
    /// As [`Latencies::new`].
    pub fn new(slices: Sender<Slice>) -> Result<Self, Error> {
        Ok(Self { number: 0, latencies: Latencies::new()?, slices })
    }

    /// Counts a request that ended `at_ns` after the start of the window and took `ns`.
    pub fn add(&mut self, at_ns: u64, key: Key, ns: u64) {
        self.go_to(at_ns);
        self.latencies.add(key, ns);
    }

    /// So far has the time gone since the start of the window: intervals before that are complete.
    pub fn go_to(&mut self, at_ns: u64) {
        let number = usize::try_from(at_ns / INTERVAL_NS).unwrap_or(usize::MAX);
        if number > self.number {
            self.hand_on();
            self.number = number;
        }
    }

    /// Hands on what was counted since.
    pub fn hand_on(&mut self) {
        if self.latencies.iter().next().is_some() {
            let slice = Slice { number: self.number, latencies: self.latencies.take() };
            // Nobody takes slices any more when the run has failed elsewhere, and says why.
            let _ = self.slices.send(slice);
        }
    }
}

/// A histogram that takes room for what it counted alone: of each bucket its upper end, and how many are in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sparse {
    buckets: Vec<(u64, u64)>,
}

impl Sparse {
    /// All that a histogram counted.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let buckets = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        Self { buckets: buckets.collect() }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Sparse) {
        self.buckets.extend_from_slice(&other.buckets);
        self.buckets.sort_unstable_by_key(|(ns, _)| *ns);
        self.buckets.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 += later.1;
            }
            is_same
        });
    }

    /// Adds it to a histogram that counts as exactly.
    pub fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (ns, count) in &self.buckets {
            let counted = histogram.record_n(*ns, *count);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
    }

    /// How many it counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The time that a share of them did not exceed; 0 of none.
    pub fn at_quantile(&self, quantile: f64) -> u64 {
        let wanted = ((self.count() as f64 * quantile).ceil() as u64).max(1);
        let mut counted = 0;
        let reached = self.buckets.iter().find(|(_, count)| {
            counted += count;
            counted >= wanted
        });
        reached.map_or(0, |(ns, _)| *ns)
    }
}

/// What came in each interval of the window and, of requests that were due in it, behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Series {
    intervals: Vec<BTreeMap<Key, Sparse>>,
}

impl Series {
    /// Adds what one thread counted in one interval.
    pub fn add(&mut self, slice: &Slice) {
        if self.intervals.len() <= slice.number {
            self.intervals.resize_with(slice.number + 1, BTreeMap::new);
        }
        let own = &mut self.intervals[slice.number];
        for (key, times) in slice.latencies.iter() {
            own.entry(key).or_default().merge(&Sparse::of(times));
        }
    }

    /// The intervals from the start of the window on, up to the last one in which something came.
    pub fn intervals(&self) -> &[BTreeMap<Key, Sparse>] {
        &self.intervals
    }

    /// What came in some of them, by kind and result.
    pub fn sum(&self, range: std::ops::Range<usize>) -> BTreeMap<Key, Sparse> {
        let mut sum: BTreeMap<Key, Sparse> = BTreeMap::new();
        let end = range.end.min(self.intervals.len());
        for (key, times) in self.intervals[range.start.min(end)..end].iter().flatten() {
            sum.entry(*key).or_default().merge(times);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const BUY: Key = (RequestKind::Buy, Outcome::Ok);
    const LOST: Key = (RequestKind::Buy, Outcome::Lost);

    #[test]
    fn what_threads_hand_on_adds_up_to_what_they_counted() {
        let (into, slices) = channel();
        let mut threads = [Slicer::new(into.clone()).unwrap(), Slicer::new(into).unwrap()];
        let mut expected = Latencies::new().unwrap();
        for request in 0..1_000_u64 {
            let (at_ns, ns) = (request * 777_777, request * request * 1_234 + 1);
            let key = if request % 10 == 0 { LOST } else { BUY };
            threads[(request % 2) as usize].add(at_ns, key, ns);
            expected.add(key, ns);
        }
        threads.iter_mut().for_each(Slicer::hand_on);
        drop(threads);
        let (mut series, mut total) = (Series::default(), Latencies::new().unwrap());
        for slice in slices {
            series.add(&slice);
            total.merge(&slice.latencies);
        }
        assert_eq!(series.intervals().len(), (999 * 777_777 / INTERVAL_NS) as usize + 1);
        let sum = series.sum(0..usize::MAX);
        for key in [BUY, LOST] {
            assert_eq!(total.get(key), expected.get(key));
            let mut again = Latencies::new().unwrap();
            sum[&key].add_to(again.of(key));
            assert_eq!(again.get(key), expected.get(key), "nothing is lost by keeping it small");
        }
    }

    #[test]
    fn an_interval_in_which_nothing_came_is_empty() {
        let (into, slices) = channel();
        let mut slicer = Slicer::new(into).unwrap();
        slicer.add(5, BUY, 1);
        slicer.go_to(INTERVAL_NS * 3);
        slicer.add(INTERVAL_NS * 3 + 1, BUY, 2);
        slicer.hand_on();
        slicer.hand_on();
        drop(slicer);
        let mut series = Series::default();
        slices.iter().for_each(|slice| series.add(&slice));
        let counts = series.intervals().iter().map(|of| of.get(&BUY).map_or(0, Sparse::count));
        assert_eq!(counts.collect::<Vec<_>>(), [1, 0, 0, 1]);
        assert_eq!(series.sum(1..3), BTreeMap::new());
        assert_eq!(series.sum(0..9)[&BUY].at_quantile(1.0), 2);
    }

    #[test]
    fn quantiles_are_those_of_the_histogram() {
        let mut histogram = Histogram::new(DIGITS).unwrap();
        (1..=5_000_u64).for_each(|n| histogram.record(n * n).unwrap());
        let sparse = Sparse::of(&histogram);
        assert_eq!(sparse.count(), 5_000);
        for quantile in [0.0, 0.5, 0.99, 0.999, 1.0] {
            assert_eq!(sparse.at_quantile(quantile), histogram.value_at_quantile(quantile), "{quantile}");
        }
        assert_eq!(Sparse::default().at_quantile(0.5), 0);
    }
}
