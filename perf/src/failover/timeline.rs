//! What happened when: answers and their latencies in steps of time, with what was done to whom. No I/O.

use hdrhistogram::Histogram;

use crate::run::{Axis, Distribution, Line, Mark, Panel, Percentiles, Timeline, Track, Unit};

/// A step.
const STEP_NS: u64 = 50_000_000;
/// Steps of one picture; a longer one has longer steps.
const STEPS_MAX: u64 = 1_200;
/// Shown before a fault.
const LEAD_NS: u64 = 1_000_000_000;
/// Digits of a figure that are kept.
const DIGITS: u8 = 3;

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was to be asked.
    pub(super) due_ns: u64,
    /// When it ended.
    pub(super) end_ns: u64,
    /// Whether it got what it asked for.
    pub(super) is_ok: bool,
}

/// All requests of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Samples {
    /// What was asked.
    pub(super) name: &'static str,
    /// In any order.
    pub(super) all: Vec<Sample>,
}

/// A fault, or a return, and the time around it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Episode {
    /// Such as `kill catalog-2`.
    pub(super) what: String,
    /// When it was done.
    pub(super) at_ns: u64,
    /// Until when it was watched.
    pub(super) until_ns: u64,
    /// Longest time without a commit, in milliseconds.
    pub(super) gap_ms: f64,
    /// What happened meanwhile.
    pub(super) marks: Vec<Mark>,
}

/// A mark at a moment, or one that held.
pub(super) fn mark(label: impl Into<String>, at_ns: u64, until_ns: Option<u64>) -> Mark {
    Mark { at_s: seconds(at_ns), until_s: until_ns.map(seconds), label: label.into() }
}

/// The end of the longest time without a commit behind a fault, and where it began.
pub(super) fn longest_stop(commits_ns: &[u64], at_ns: u64, until_ns: u64) -> Option<(u64, u64)> {
    let pairs = commits_ns.windows(2).map(|pair| (pair[0], pair[1]));
    pairs.filter(|(_, end)| (at_ns..until_ns).contains(end)).max_by_key(|(begin, end)| end - begin)
}

/// Timelines of the whole, of the worst episode, and of the one in the middle; and how long the gaps were.
pub(super) fn panels(episodes: &[Episode], kinds: &[Samples]) -> Vec<Panel> {
    let mut sorted: Vec<&Episode> = episodes.iter().collect();
    sorted.sort_by(|a, b| a.gap_ms.total_cmp(&b.gap_ms));
    let (Some(worst), Some(first), Some(last)) = (sorted.last(), episodes.first(), episodes.last()) else {
        return Vec::new();
    };
    let mut panels = Vec::new();
    if episodes.len() > 1 {
        let marks = episodes.iter().map(|episode| mark(&episode.what, episode.at_ns, None)).collect();
        let span = (first.at_ns.saturating_sub(LEAD_NS), last.until_ns);
        panels.push(timeline("The whole run".into(), span, kinds, marks));
        let median = sorted[sorted.len() / 2];
        if median.at_ns != worst.at_ns {
            panels.push(of_episode("The median gap", median, kinds));
        }
    }
    panels.push(of_episode("The longest gap", worst, kinds));
    panels
}

/// How long nothing was heard around each fault, as a distribution over all of them.
pub(super) fn distribution(title: &str, lines: &[(&str, Vec<f64>)]) -> Panel {
    let lines = lines.iter().filter(|(_, figures)| !figures.is_empty()).filter_map(|(name, figures)| {
        let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
        // Histograms that resize themselves count whatever they are given.
        figures.iter().try_for_each(|ms| histogram.record((ms * 1e6) as u64)).ok()?;
        Some(Distribution::of(*name, &histogram))
    });
    Panel::Percentiles(Percentiles { title: title.into(), lines: lines.collect() })
}

fn of_episode(which: &str, episode: &Episode, kinds: &[Samples]) -> Panel {
    let span = (episode.at_ns.saturating_sub(LEAD_NS), episode.until_ns);
    let title = format!("{which}: {}, {:.0} ms without a commit", episode.what, episode.gap_ms);
    timeline(title, span, kinds, episode.marks.clone())
}

fn timeline(title: String, (from_ns, until_ns): (u64, u64), kinds: &[Samples], marks: Vec<Mark>) -> Panel {
    let length_ns = until_ns.saturating_sub(from_ns);
    let step_ns = length_ns.div_ceil(STEP_NS * STEPS_MAX).max(1) * STEP_NS;
    // An unfinished step would look like a lull.
    let steps = usize::try_from(length_ns / step_ns).unwrap_or(0);
    let kinds = kinds.iter().filter(|samples| !samples.all.is_empty());
    let (mut answers, mut tracks) = (Vec::new(), Vec::new());
    for Samples { name, all } in kinds {
        let grid = Grid { from_ns, step_ns, steps };
        answers.extend(grid.answers(name, all));
        tracks.push(Track {
            axis: Axis {
                label: format!("latency of {name} due in {} ms", step_ns / 1_000_000),
                unit: Unit::Seconds,
                is_log: true,
            },
            lines: grid.latencies(all),
        });
    }
    let axis = Axis { label: "answers".into(), unit: Unit::PerSecond, is_log: false };
    tracks.insert(0, Track { axis, lines: answers });
    Panel::Timeline(Timeline { title, tracks, marks })
}

/// Equal steps of time.
#[derive(Debug, Clone, Copy)]
struct Grid {
    from_ns: u64,
    step_ns: u64,
    steps: usize,
}

impl Grid {
    fn step(&self, at_ns: u64) -> Option<usize> {
        let step = usize::try_from(at_ns.checked_sub(self.from_ns)? / self.step_ns).ok()?;
        (step < self.steps).then_some(step)
    }

    /// Where a step's point stands: in its middle.
    fn at_s(&self, step: usize) -> f64 {
        seconds(self.from_ns) + (step as f64 + 0.5) * seconds(self.step_ns)
    }

    /// Requests that ended well in each step, and those that did not, if there are any.
    fn answers(&self, name: &str, all: &[Sample]) -> Vec<Line> {
        let line = |name: String, is_ok: bool| {
            let mut counts = vec![0_u64; self.steps];
            for sample in all.iter().filter(|sample| sample.is_ok == is_ok) {
                if let Some(step) = self.step(sample.end_ns) {
                    counts[step] += 1;
                }
            }
            let per_s = |count: u64| count as f64 / seconds(self.step_ns);
            let points = counts.iter().enumerate().map(|(step, count)| (self.at_s(step), per_s(*count))).collect();
            (Line { name, points }, counts.iter().sum::<u64>())
        };
        let (ok, _) = line(name.into(), true);
        let (failed, count) = line(format!("{name} that failed"), false);
        if count == 0 { vec![ok] } else { vec![ok, failed] }
    }

    /// What the requests took that were due in each step and were answered.
    fn latencies(&self, all: &[Sample]) -> Vec<Line> {
        let mut taken: Vec<Vec<u64>> = vec![Vec::new(); self.steps];
        for sample in all.iter().filter(|sample| sample.is_ok) {
            if let Some(step) = self.step(sample.due_ns) {
                taken[step].push(sample.end_ns.saturating_sub(sample.due_ns));
            }
        }
        taken.iter_mut().for_each(|times| times.sort_unstable());
        let line = |(name, quantile): (&str, f64)| {
            let at = |(step, times): (usize, &Vec<u64>)| {
                let place = (times.len() as f64 * quantile).ceil() as usize;
                Some((self.at_s(step), seconds(*times.get(place.saturating_sub(1))?)))
            };
            Line { name: name.into(), points: taken.iter().enumerate().filter_map(at).collect() }
        };
        [("p50", 0.5), ("p99", 0.99), ("max", 1.0)].map(line).into()
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn sample(due_ms: u64, end_ms: u64, is_ok: bool) -> Sample {
        Sample { due_ns: due_ms * MS, end_ns: end_ms * MS, is_ok }
    }

    fn grid(steps: usize) -> Grid {
        Grid { from_ns: 1_000 * MS, step_ns: STEP_NS, steps }
    }

    #[test]
    fn answers_count_where_they_came_and_latencies_where_they_were_due() {
        let all = [sample(1_010, 1_012, true), sample(1_020, 1_130, true), sample(1_060, 1_140, false)];
        let answers = grid(3).answers("buys", &all);
        let rates = |line: &Line| line.points.iter().map(|(_, rate)| *rate).collect::<Vec<_>>();
        assert_eq!(answers.iter().map(rates).collect::<Vec<_>>(), [[20.0, 0.0, 20.0], [0.0, 0.0, 20.0]]);
        assert_eq!(answers[1].name, "buys that failed");
        let latencies = grid(3).latencies(&all);
        assert_eq!(latencies[0].points, [(1.025, 0.002)]);
        assert_eq!(latencies[2].points, [(1.025, 0.11)], "what failed has no latency");
    }

    #[test]
    fn what_lies_outside_is_not_shown() {
        let all = [sample(10, 20, true), sample(1_149, 1_151, true)];
        assert_eq!(grid(3).answers("buys", &all).len(), 1);
        assert!(grid(3).answers("buys", &all)[0].points.iter().all(|(_, rate)| *rate == 0.0));
        assert_eq!(grid(3).latencies(&all)[0].points.len(), 1);
    }

    #[test]
    fn the_longest_stop_ends_behind_the_fault() {
        let commits: Vec<u64> = [0, 50, 60, 100, 105, 300].map(|at| at * MS).into();
        assert_eq!(longest_stop(&commits, 55 * MS, 200 * MS), Some((60 * MS, 100 * MS)));
        assert_eq!(longest_stop(&commits, 55 * MS, 400 * MS), Some((105 * MS, 300 * MS)));
        assert_eq!(longest_stop(&commits, 500 * MS, 600 * MS), None);
    }

    #[test]
    fn the_worst_and_the_middle_are_shown_beside_the_whole() {
        let episode = |number: u64, gap_ms: f64| Episode {
            what: format!("kill {number}"),
            at_ns: number * 5_000 * MS,
            until_ns: (number * 5_000 + 2_000) * MS,
            gap_ms,
            marks: vec![mark("killed", number * 5_000 * MS, None)],
        };
        let titles = |episodes: &[Episode]| -> Vec<String> {
            let kinds = [Samples { name: "buys", all: vec![sample(1, 2, true)] }];
            let title = |panel| match panel {
                Panel::Timeline(Timeline { title, tracks, marks }) => {
                    assert!(tracks.len() == 2 && !marks.is_empty());
                    title
                }
                other => panic!("{other:?}"),
            };
            panels(episodes, &kinds).into_iter().map(title).collect()
        };
        assert_eq!(
            titles(&[episode(1, 3.0), episode(2, 9.0), episode(3, 4.0)]),
            [
                "The whole run",
                "The median gap: kill 3, 4 ms without a commit",
                "The longest gap: kill 2, 9 ms without a commit"
            ]
        );
        assert_eq!(titles(&[episode(1, 3.0)]), ["The longest gap: kill 1, 3 ms without a commit"]);
        assert!(panels(&[], &[]).is_empty());
    }

    #[test]
    fn a_long_run_has_longer_steps() {
        let kinds = [Samples { name: "buys", all: vec![sample(1, 2, true)] }];
        let Panel::Timeline(long) = timeline(String::new(), (0, 3_600_000 * MS), &kinds, Vec::new()) else { panic!() };
        let points = long.tracks[0].lines[0].points.len();
        assert!(points as u64 <= STEPS_MAX && points > 1_000, "{points}");
    }
}
