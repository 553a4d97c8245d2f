//! Distributions of times over a logarithmic axis of percentiles.

use super::{Figure, Grid, draw_legend, frame, legend, number, pictures, say_empty, telling, titled, word};
use crate::report::axes::{FOOT, HEAD};
use crate::report::group::{Series, series};
use crate::report::html::plain;
use crate::report::legend::Legend;
use crate::report::lines::{self, Joining};
use crate::report::quantity::{full, short};
use crate::report::scale::{Scale, nines};
use crate::report::scene::Scene;
use crate::run::{Axis, Distribution, Percentiles, Unit};

/// Height of a plot, at least.
const HEIGHT: f64 = 320.0;
/// From so much between the least and the highest on, times are drawn over a logarithmic axis.
const LOG_FROM: f64 = 8.0;

pub(super) fn fill(figure: &mut Figure, members: &[(&str, &Percentiles)]) {
    let lines: Vec<(&str, &[Distribution])> =
        members.iter().map(|(label, panel)| (*label, panel.lines.as_slice())).collect();
    let all = series(&lines, |line| &line.name);
    figure.grids.push(grid(&all));
    figure.reading = format!(
        "At a percentile, that share of the requests took no longer than the line is high. Each step to the right is \
         ten times rarer, and a line ends with its slowest request.{}",
        telling(&all)
    );
    for (part, series) in pictures(all) {
        figure.scenes.push(draw(&titled(&figure.title, part), &series));
    }
}

fn draw(title: &str, series: &[Series<'_, Distribution>]) -> Scene {
    let mut scene = Scene::new(title, describe(series));
    let times = || series.iter().flat_map(|series| series.data.points.iter().map(|(_, seconds)| *seconds));
    let entries = legend(series, true, |line| {
        let count = short(line.count as f64, Unit::Count);
        let slowest = line.points.last().map(|(_, seconds)| short(*seconds, Unit::Seconds));
        vec![slowest.map_or("no requests".into(), |slowest| format!("max {slowest} of {count}"))]
    });
    let names = Legend::new(entries.clone());
    let axis = Axis { label: "time".into(), unit: Unit::Seconds, is_log: is_spread(times()) };
    let highest = times().fold(0.0, f64::max);
    let y = if axis.is_log { Scale::log(times()) } else { Scale::linear(0.0, highest, Unit::Seconds) };
    let count = series.iter().map(|series| series.data.count).max().unwrap_or(0);
    let frame = frame((Scale::nines(count), y), &axis, HEAD, HEIGHT.max(names.height()), names.width);
    frame.draw_upright(&mut scene, &axis);
    frame.draw_lower(&mut scene, Unit::Ratio, Some("percentile"));
    if times().next().is_none() {
        say_empty(&mut scene, &frame);
    }
    let mut ends = Vec::new();
    for one in series {
        let points: Vec<(f64, f64)> =
            one.data.points.iter().map(|(quantile, seconds)| (nines(*quantile, one.data.count), *seconds)).collect();
        let words = |(nines, seconds): (f64, f64)| {
            let share = 100.0 * (1.0 - 10.0_f64.powf(-nines));
            format!("{}: {share:.4} % within {}", plain(&one.full_name()), short(seconds, Unit::Seconds))
        };
        lines::draw(&mut scene, &frame, &points, one.style, Joining::All, words);
        ends.push(points.last().map(|point| frame.at(*point)));
    }
    draw_legend(&mut scene, &frame, entries, ends);
    scene.height = frame.bottom() + FOOT;
    scene
}

/// Whether the least time above 0 and the highest are far apart.
fn is_spread(times: impl Iterator<Item = f64>) -> bool {
    let positive = times.filter(|seconds| *seconds > 0.0);
    let (low, high) = positive.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    high >= low * LOG_FROM
}

/// The time within which a share of the requests ended; `None` when there were too few to say.
fn within(line: &Distribution, quantile: f64) -> Option<f64> {
    let is_known = (line.count as f64) * (1.0 - quantile) >= 1.0 - 1e-9;
    let at = line.points.iter().find(|(found, _)| *found >= quantile - 1e-12);
    at.filter(|_| is_known).map(|(_, seconds)| *seconds)
}

fn describe(series: &[Series<'_, Distribution>]) -> String {
    let one = |series: &Series<'_, Distribution>| {
        let line = series.data;
        let Some((_, slowest)) = line.points.last() else {
            return format!("{}: nothing was measured.", plain(&series.full_name()));
        };
        let shares = [(0.5, "half"), (0.99, "99 %"), (0.999, "99.9 %")];
        let known = shares.iter().filter_map(|(quantile, share)| {
            Some(format!("{share} within {}", short(within(line, *quantile)?, Unit::Seconds)))
        });
        let parts: Vec<String> = known.chain([format!("the slowest {}", short(*slowest, Unit::Seconds))]).collect();
        format!(
            "{}: {} requests; {}.",
            plain(&series.full_name()),
            short(line.count as f64, Unit::Count),
            parts.join(", ")
        )
    };
    let lines: Vec<String> = series.iter().map(one).collect();
    format!("Percentile curves of times. {}", lines.join(" "))
}

fn grid(series: &[Series<'_, Distribution>]) -> Grid {
    const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    let columns = ["series", "requests", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "slowest"];
    let mut grid = Grid::new("Time within which a share of the requests ended", &columns);
    for one in series {
        let time = |seconds: Option<f64>| number(seconds.map_or("–".into(), |seconds| full(seconds, Unit::Seconds)));
        let head = [word(plain(&one.full_name())), number(full(one.data.count as f64, Unit::Count))];
        let shares = QUANTILES.iter().map(|quantile| time(within(one.data, *quantile)));
        let slowest = one.data.points.last().map(|(_, seconds)| *seconds);
        grid.rows.push(head.into_iter().chain(shares).chain([time(slowest)]).collect());
    }
    grid
}
