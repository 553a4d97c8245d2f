//! What is counted while a system is loaded.

use hdrhistogram::Histogram;

use super::peer::Spans;
use crate::error::Error;
use crate::span;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;
/// Answers are waited for so long after the window, so that the slowest are not left out.
const DRAIN_NS: u64 = 5_000_000_000;

/// The moments of a load, in nanoseconds of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// From here on it counts.
    pub(super) from_ns: u64,
    /// Up to here; nothing is sent after it.
    pub(super) to_ns: u64,
    /// Answers are waited for up to here.
    pub(super) drain_ns: u64,
}

impl Window {
    /// That of a load that begins now.
    pub(super) fn from_now(now_ns: u64, spans: Spans) -> Self {
        let from_ns = now_ns + span::ns(spans.warmup);
        let to_ns = from_ns + span::ns(spans.duration);
        Self { from_ns, to_ns, drain_ns: to_ns + DRAIN_NS }
    }

    fn counts(&self, at_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&at_ns)
    }
}

/// Counts of one client, or of all.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    window: Window,
    /// Requests that were done within the window.
    done: u64,
    /// Requests of the window that were refused, not replicated in time or not answered.
    failed: u64,
    /// From the sending of a request of the window until it was done.
    latency_ns: Histogram<u64>,
}

impl Tally {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// Never in practice: when three digits were more than a histogram can keep.
    pub(super) fn new(window: Window) -> Result<Self, Error> {
        let latency_ns = Histogram::new(DIGITS).map_err(|error| Error::Usage(error.to_string()))?;
        Ok(Self { window, done: 0, failed: 0, latency_ns })
    }

    /// Some requests that were sent together are over.
    pub(super) fn count(&mut self, sent_ns: u64, now_ns: u64, done: u64, failed: u64) {
        if self.window.counts(now_ns) {
            self.done += done;
        }
        if self.window.counts(sent_ns) {
            self.failed += failed;
            // Histograms that resize themselves count whatever they are given.
            let counted = self.latency_ns.record_n(now_ns.saturating_sub(sent_ns), done);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
    }

    /// Adds what another client counted.
    pub(super) fn merge(&mut self, other: &Tally) {
        self.done += other.done;
        self.failed += other.failed;
        let added = self.latency_ns.add(&other.latency_ns);
        debug_assert!(added.is_ok(), "{added:?}");
    }

    /// What it comes to.
    pub(super) fn measured(&self) -> Measured {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let at = |quantile| seconds(self.latency_ns.value_at_quantile(quantile));
        let window_s = seconds(self.window.to_ns - self.window.from_ns);
        Measured {
            per_s: self.done as f64 / window_s,
            failed: self.failed,
            p50_s: at(0.5),
            p99_s: at(0.99),
            max_s: at(1.0),
        }
    }
}

/// What a load came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Requests done, a second.
    pub(super) per_s: f64,
    /// Requests that were not.
    pub(super) failed: u64,
    /// Half were done faster.
    pub(super) p50_s: f64,
    /// One in a hundred took longer.
    pub(super) p99_s: f64,
    /// The slowest.
    pub(super) max_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { from_ns: 1_000_000_000, to_ns: 3_000_000_000, drain_ns: 8_000_000_000 };

    #[test]
    fn rates_count_by_the_answer_and_latencies_by_the_sending() {
        let mut tally = Tally::new(WINDOW).unwrap();
        tally.count(900_000_000, 1_100_000_000, 3, 7);
        tally.count(2_900_000_000, 4_900_000_000, 1, 2);
        tally.count(100, 200, 50, 50);
        let measured = tally.measured();
        assert_eq!((measured.per_s, measured.failed), (1.5, 2));
        assert!((measured.p50_s - 2.0).abs() < 0.01, "{measured:?}");
    }

    #[test]
    fn merging_adds_everything() {
        let (mut a, mut b) = (Tally::new(WINDOW).unwrap(), Tally::new(WINDOW).unwrap());
        a.count(1_000_000_000, 1_000_001_000, 1, 0);
        b.count(1_000_000_000, 2_000_000_000, 1, 4);
        a.merge(&b);
        let measured = a.measured();
        assert_eq!((measured.per_s, measured.failed), (1.0, 4));
        assert!((measured.max_s - 1.0).abs() < 0.01 && measured.p50_s < 0.001, "{measured:?}");
    }

    #[test]
    fn a_window_begins_after_the_warm_up() {
        let spans = Spans { warmup: std::time::Duration::from_secs(1), duration: std::time::Duration::from_secs(2) };
        assert_eq!(Window::from_now(0, spans), WINDOW);
    }
}
