//! One quantity over another: curves with named places, and scattered points.

use super::{Figure, Grid, draw_legend, frame, legend, number, pictures, say_empty, telling, titled, word};
use crate::report::axes::{self, FOOT, HEAD};
use crate::report::group::{Series, series};
use crate::report::html::plain;
use crate::report::legend::Legend;
use crate::report::lines::{self, Joining};
use crate::report::marks::Marks;
use crate::report::quantity::{full, short};
use crate::report::scale::Scale;
use crate::report::scene::Scene;
use crate::run::{Axis, Curve, Line, Mark, Unit};

/// Height of a plot, at least.
const HEIGHT: f64 = 320.0;
/// Where zeros are on a logarithmic axis.
pub(super) const ZERO_READING: &str = " A value of 0, which a logarithmic axis cannot show, stands on its foot.";
/// Rows of a table of points; of more, a summary is shown.
const ROWS_MAX: usize = 120;

pub(super) fn fill(figure: &mut Figure, members: &[(&str, &Curve)]) {
    let Some((_, first)) = members.first() else { return };
    let lines: Vec<(&str, &[Line])> = members.iter().map(|(label, panel)| (*label, panel.lines.as_slice())).collect();
    let all = series(&lines, |line| &line.name);
    let marks = marks(members);
    figure.grids.extend(points_grid(&all, &first.x, &first.y));
    figure.grids.extend(marks_grid(&marks, &first.x.label, first.x.unit));
    figure.reading = format!("Upwards: {}; to the right: {}.", plain(&first.y.label), plain(&first.x.label));
    figure.reading += telling(&all);
    let has_zero = |is_log: bool, pick: fn(&(f64, f64)) -> f64| {
        is_log
            && lines.iter().flat_map(|(_, lines)| *lines).flat_map(|line| &line.points).any(|point| pick(point) <= 0.0)
    };
    if has_zero(first.x.is_log, |(x, _)| *x) || has_zero(first.y.is_log, |(_, y)| *y) {
        figure.reading += ZERO_READING;
    }
    for (part, series) in pictures(all) {
        figure.scenes.push(draw(&titled(&figure.title, part), first, &series, &marks));
    }
}

/// What is named on the lower axis, and of which run where there are several.
fn marks(members: &[(&str, &Curve)]) -> Vec<Mark> {
    let of_run = |label: &str, mark: &Mark| {
        let run = if members.len() > 1 { format!(" · {}", plain(label)) } else { String::new() };
        Mark { label: format!("{}{run}", plain(&mark.label)), ..mark.clone() }
    };
    members.iter().flat_map(|(label, panel)| panel.marks.iter().map(|mark| of_run(label, mark))).collect()
}

fn draw(title: &str, panel: &Curve, series: &[Series<'_, Line>], marks: &[Mark]) -> Scene {
    let mut scene = Scene::new(title, describe(series, panel, marks));
    let points = || series.iter().flat_map(|series| series.data.points.iter().copied());
    let entries = legend(series, !panel.is_scatter, |_| Vec::new());
    let names = Legend::new(entries.clone());
    let named = marks.iter().flat_map(|mark| [Some(mark.at_s), mark.until_s]).flatten();
    let x = lower(points().map(|(x, _)| x).chain(named), &panel.x);
    let y = upright(points().map(|(_, y)| y), &panel.y);
    let mut frame = frame((x, y), &panel.y, HEAD, HEIGHT.max(names.height()), names.width);
    let marks = Marks::new(marks, &frame);
    frame.top += marks.head();
    marks.draw_bands(&mut scene, &frame);
    // Names of marks stand above the axis' caption.
    marks.draw_names(&mut scene, frame.top - HEAD + 2.0, frame.top);
    frame.draw_upright(&mut scene, &panel.y);
    frame.draw_lower(&mut scene, panel.x.unit, Some(&axes::caption(&panel.x, x)));
    marks.draw_lines(&mut scene, &frame);
    if points().next().is_none() {
        say_empty(&mut scene, &frame);
    }
    let joining = if panel.is_scatter { Joining::None } else { Joining::All };
    let mut ends = Vec::new();
    for one in series {
        let name = plain(&one.full_name());
        let words = |(x, y)| format!("{name}: {} at {}", short(y, panel.y.unit), short(x, panel.x.unit));
        lines::draw(&mut scene, &frame, &one.data.points, one.style, joining, words);
        ends.push(one.data.points.last().filter(|_| !panel.is_scatter).map(|point| frame.at(*point)));
    }
    draw_legend(&mut scene, &frame, entries, ends);
    marks.draw_key(&mut scene, frame.left, frame.bottom() + FOOT - 4.0);
    scene.height = frame.bottom() + FOOT + marks.foot();
    scene
}

/// A lower axis: from 0, unless that is far from everything.
fn lower(values: impl Iterator<Item = f64> + Clone, axis: &Axis) -> Scale {
    if axis.is_log {
        return Scale::log(values);
    }
    let (low, high) = bounds(values);
    if low >= 0.0 && low <= 0.5 * high { Scale::span(0.0, high) } else { Scale::span(low, high) }
}

/// An upright axis: from 0, so that heights compare.
pub(super) fn upright(values: impl Iterator<Item = f64> + Clone, axis: &Axis) -> Scale {
    if axis.is_log {
        return Scale::log(values);
    }
    let (low, high) = bounds(values);
    Scale::linear(low.min(0.0), high.max(0.0), axis.unit)
}

/// The least and the highest value; 0 and 0 where there is none.
pub(super) fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .fold(None, |found: Option<(f64, f64)>, value| {
            Some(found.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        })
        .unwrap_or((0.0, 0.0))
}

fn describe(series: &[Series<'_, Line>], panel: &Curve, marks: &[Mark]) -> String {
    let mut text = format!("{} over {}.", plain(&panel.y.label), plain(&panel.x.label));
    for one in series {
        let (low, high) = bounds(one.data.points.iter().map(|(_, y)| *y));
        let (from, to) = bounds(one.data.points.iter().map(|(x, _)| *x));
        let [low, high] = [low, high].map(|y| short(y, panel.y.unit));
        let [from, to] = [from, to].map(|x| short(x, panel.x.unit));
        let count = one.data.points.len();
        let name = plain(&one.full_name());
        text += &format!(" {name}: {count} points between {from} and {to}, from {low} to {high} high.");
    }
    for mark in marks {
        text += &format!(" {} at {}.", mark.label, short(mark.at_s, panel.x.unit));
    }
    text
}

/// Every point, where there are not too many, and else what each line amounts to.
pub(super) fn points_grid(series: &[Series<'_, Line>], x: &Axis, y: &Axis) -> Option<Grid> {
    let mut places: Vec<f64> = series.iter().flat_map(|one| one.data.points.iter().map(|(x, _)| *x)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let is_one_each = series.iter().all(|one| one.data.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    if places.is_empty() {
        return None;
    }
    if places.len() > ROWS_MAX || !is_one_each {
        return Some(summary(series, x, y));
    }
    let names: Vec<String> = series.iter().map(|one| plain(&one.full_name())).collect();
    let columns: Vec<&str> = std::iter::once(x.label.as_str()).chain(names.iter().map(String::as_str)).collect();
    let mut grid = Grid::new(plain(&y.label), &columns);
    for place in places {
        let cell = |one: &Series<'_, Line>| {
            let found = one.data.points.iter().find(|(x, _)| *x == place);
            number(found.map_or("–".into(), |(_, value)| full(*value, y.unit)))
        };
        let head = number(full(place, x.unit));
        grid.rows.push(std::iter::once(head).chain(series.iter().map(cell)).collect());
    }
    Some(grid)
}

fn summary(series: &[Series<'_, Line>], x: &Axis, y: &Axis) -> Grid {
    let (from, to) = (format!("{} from", plain(&x.label)), format!("{} to", plain(&x.label)));
    let columns = ["series", "points", from.as_str(), to.as_str(), "least", "median", "mean", "highest"];
    let mut grid = Grid::new(format!("{}, summed up", plain(&y.label)), &columns);
    for one in series {
        let mut ys: Vec<f64> = one.data.points.iter().map(|(_, y)| *y).collect();
        ys.sort_by(f64::total_cmp);
        let mean = ys.iter().sum::<f64>() / ys.len().max(1) as f64;
        let (from, to) = bounds(one.data.points.iter().map(|(x, _)| *x));
        let of = |value: Option<&f64>| number(value.map_or("–".into(), |value| full(*value, y.unit)));
        grid.rows.push(vec![
            word(plain(&one.full_name())),
            number(full(ys.len() as f64, Unit::Count)),
            number(full(from, x.unit)),
            number(full(to, x.unit)),
            of(ys.first()),
            of(ys.get(ys.len() / 2)),
            of((!ys.is_empty()).then_some(&mean)),
            of(ys.last()),
        ]);
    }
    grid
}

/// What is named on the lower axis.
pub(super) fn marks_grid(marks: &[Mark], axis: &str, unit: Unit) -> Option<Grid> {
    if marks.is_empty() {
        return None;
    }
    let has_ends = marks.iter().any(|mark| mark.until_s.is_some());
    let axis = plain(axis);
    let columns: &[&str] = if has_ends { &["what", &axis, "until"] } else { &["what", &axis] };
    let mut grid = Grid::new("Marks", columns);
    for mark in marks {
        let mut row = vec![word(plain(&mark.label)), number(full(mark.at_s, unit))];
        if has_ends {
            row.push(number(mark.until_s.map_or("–".into(), |until| full(until, unit))));
        }
        grid.rows.push(row);
    }
    Some(grid)
}
