//! When the requests of an open loop are due: a function of the seed and the request's number, whatever becomes of
//! the requests before.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the requests of an open loop spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Arrivals {
    /// At even distances, as no crowd does: what a rate costs at the least.
    #[default]
    Fixed,
    /// Each independent of the others, as many clients that do not know of each other ask: with bursts.
    Poisson,
}

impl Arrivals {
    /// The name, as in `--arrivals` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Poisson => "poisson",
        }
    }
}

/// The moments at which one thread's requests are due, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Between two requests, in the mean.
    interval_ns: f64,
    /// For independent arrivals: what the gaps are drawn from.
    gaps: Option<ChaCha8Rng>,
    /// When the next one is due, after the start.
    next_ns: f64,
    /// Its number.
    index: u64,
    /// When number 0 is due, after the start.
    first_ns: f64,
}

impl Schedule {
    /// That of thread `thread` of `threads` which send `rate` requests a second together. Evenly spaced, the threads take
    /// turns; else each has arrivals of its own, and those of all are independent again.
    pub fn new(arrivals: Arrivals, rate: f64, thread: usize, threads: usize, seed: u64) -> Self {
        let between_ns = 1e9 / rate;
        let interval_ns = between_ns * threads as f64;
        let mut gaps = (arrivals == Arrivals::Poisson).then(|| ChaCha8Rng::seed_from_u64(seed));
        let first_ns = match &mut gaps {
            None => between_ns * thread as f64,
            Some(gaps) => gap(gaps) * interval_ns,
        };
        Self { interval_ns, gaps, next_ns: first_ns, index: 0, first_ns }
    }

    /// Nanoseconds between two requests, in the mean.
    pub fn interval_ns(&self) -> f64 {
        self.interval_ns
    }

    /// When the next request is due, in nanoseconds after the start.
    pub fn due_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Its number.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Goes on to the request behind it.
    pub fn advance(&mut self) {
        self.index += 1;
        self.next_ns = match &mut self.gaps {
            // Not a sum of distances, whose rounding would add up.
            None => self.first_ns + self.index as f64 * self.interval_ns,
            Some(gaps) => self.next_ns + gap(gaps) * self.interval_ns,
        };
    }

    /// Goes on to the first that is due at `to_ns` or later; how many are passed over that are due at `from_ns` or later.
    pub fn skip_to(&mut self, from_ns: u64, to_ns: u64) -> u64 {
        let mut passed = 0;
        while self.due_ns() < to_ns {
            passed += u64::from(self.due_ns() >= from_ns);
            self.advance();
        }
        passed
    }
}

/// The time between two independent events of which there is one in a unit of time: exponentially distributed.
fn gap(rng: &mut ChaCha8Rng) -> f64 {
    // The draw lies in [0, 1), so that the logarithm is of something above 0.
    -(1.0 - rng.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn moments(mut schedule: Schedule, count: usize) -> Vec<u64> {
        let next = || {
            let due_ns = schedule.due_ns();
            schedule.advance();
            due_ns
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn threads_take_turns_at_even_distances() {
        let of = |thread| moments(Schedule::new(Arrivals::Fixed, 1_000.0, thread, 4, 9), 3);
        assert_eq!(of(0), [0, 4_000_000, 8_000_000]);
        assert_eq!(of(3), [3_000_000, 7_000_000, 11_000_000]);
    }

    #[test]
    fn even_distances_do_not_drift() {
        let mut schedule = Schedule::new(Arrivals::Fixed, 3.0, 0, 1, 0);
        assert_eq!(schedule.skip_to(0, 100_000 * SECOND), 300_000);
    }

    #[test]
    fn independent_arrivals_depend_on_nothing_but_the_seed() {
        let of = |seed| moments(Schedule::new(Arrivals::Poisson, 1_000.0, 0, 1, seed), 100);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    /// Of a Poisson process the counts in equal spans have a variance equal to their mean, the rate.
    #[test]
    fn independent_arrivals_have_the_rate_and_the_bursts_of_a_poisson_process() {
        let mut schedules = [0, 1].map(|thread| Schedule::new(Arrivals::Poisson, 100.0, thread, 2, thread as u64));
        let spans = 10_000;
        let mut count = |span: u64| -> u64 {
            schedules.iter_mut().map(|schedule| schedule.skip_to(span * SECOND, (span + 1) * SECOND)).sum()
        };
        let counts: Vec<f64> = (0..spans).map(|span| count(span) as f64).collect();
        let mean = counts.iter().sum::<f64>() / spans as f64;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / spans as f64;
        assert!((mean - 100.0).abs() < 0.5, "{mean}");
        assert!((variance - 100.0).abs() < 6.0, "{variance}");
    }

    #[test]
    fn what_is_skipped_is_counted_from_a_moment_on() {
        let mut schedule = Schedule::new(Arrivals::Fixed, 10.0, 0, 1, 0);
        schedule.advance();
        assert_eq!(schedule.skip_to(SECOND, 2 * SECOND), 10);
        assert_eq!((schedule.index(), schedule.due_ns()), (20, 2 * SECOND));
        assert_eq!(schedule.skip_to(0, 2 * SECOND), 0);
    }
}
