//! The only place of a node that reads a clock.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::machine::Now;

/// The time now. The monotonic part goes on while the machine sleeps, so that a laptop's lid does not stretch a bound
/// on staleness.
pub fn now() -> Now {
    let mono_ns = nanoseconds(clock_gettime(ClockId::Boottime));
    let wall_us = nanoseconds(clock_gettime(ClockId::Realtime)) / 1_000;
    Now { mono_ns, wall_us }
}

/// A time before the clock's zero counts as the zero.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
