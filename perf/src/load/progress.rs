//! How a load goes, in one line of the terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::record::Outcome;
use super::report::micros;
use super::series::{INTERVAL_NS, Series};
use super::watch::{View, Watch};

/// What the line tells of: the latest second.
const BACK: usize = (1_000_000_000 / INTERVAL_NS) as usize;
const STEPS: u64 = 1_000;

/// The line. Where standard error is no terminal, there is none.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new(STEPS);
        // The template is a constant, and the fallback merely looks otherwise.
        let style = ProgressStyle::with_template("{prefix} [{bar:10}] {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress {
    fn look(&mut self, view: &View<'_>) {
        if self.bar.is_hidden() {
            return;
        }
        let View { now_ns, window, series } = *view;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let (begin, end, phase) = if now_ns < window.from_ns {
            (window.start_ns, window.from_ns, "warm-up")
        } else if now_ns < window.to_ns {
            (window.from_ns, window.to_ns, "load")
        } else {
            (window.to_ns, window.drain_ns, "last answers")
        };
        let (gone, whole) = (now_ns.saturating_sub(begin), (end - begin).max(1));
        self.bar.set_prefix(format!("{phase} {:.1}/{:.1} s", seconds(gone.min(whole)), seconds(whole)));
        self.bar.set_position((gone as f64 / whole as f64 * STEPS as f64) as u64);
        self.bar.set_message(latest(series));
    }
}

/// Rate and latencies of the latest second. The last interval is not complete: threads hand theirs on one by one.
fn latest(series: &Series) -> String {
    let end = series.intervals().len().saturating_sub(1);
    let begin = end.saturating_sub(BACK);
    let span_s = (end - begin) as f64 * INTERVAL_NS as f64 / 1e9;
    let parts = series.sum(begin..end).into_iter().map(|((kind, outcome), times)| {
        let rate = format!("{} {:.0}/s", kind.name(), times.count() as f64 / span_s);
        if outcome != Outcome::Ok {
            return format!("{rate} {}", outcome.name());
        }
        let at = |quantile| micros(times.at_quantile(quantile) as f64 / 1e3);
        format!("{rate} {} · {} · {}", at(0.5), at(0.99), at(1.0))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { String::new() } else { format!("{} (p50 · p99 · max)", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::mix::RequestKind;
    use crate::load::series::{Latencies, Slice};

    #[test]
    fn the_line_tells_of_the_latest_second_of_whole_intervals() {
        let mut series = Series::default();
        for number in 0..=30 {
            let mut latencies = Latencies::new().unwrap();
            let ns = if number < 20 { 9_000_000 } else { 1_000 * (number as u64 - 19) };
            (0..10).for_each(|_| latencies.add((RequestKind::Buy, Outcome::Ok), ns));
            latencies.add((RequestKind::Buy, Outcome::Busy), 1);
            series.add(&Slice { number, latencies });
        }
        assert_eq!(latest(&series), "buy 100/s 5 us · 10 us · 10 us, buy 10/s busy (p50 · p99 · max)");
        assert_eq!(latest(&Series::default()), "");
    }
}
