//! What happened when: strips beneath each other over one axis of seconds, and what was done to the cluster.

use super::curve::{ZERO_READING, bounds, marks_grid, points_grid, upright};
use super::{Figure, draw_legend, legend, say_empty};
use crate::report::axes::{self, FOOT, Frame, HEAD};
use crate::report::group::{Series, series};
use crate::report::html::plain;
use crate::report::legend::{Entry, Legend};
use crate::report::lines::{self, Joining};
use crate::report::marks::Marks;
use crate::report::quantity::short;
use crate::report::scale::Scale;
use crate::report::scene::{EDGE, Scene, WIDTH};
use crate::run::{Axis, Line, Mark, Timeline, Unit};

/// Height of a strip, at least.
const HEIGHT: f64 = 140.0;
/// Between two strips, with room for what the lower counts.
const BETWEEN: f64 = HEAD + 12.0;

pub(super) fn fill(figure: &mut Figure, members: &[(&str, &Timeline)]) {
    figure.reading = "Strips share one axis of time. Upright lines and bands mark what was done to the cluster, named \
                      above; where a line breaks, nothing was measured."
        .into();
    if members.len() > 1 {
        figure.reading += " The runs' pictures have the same axes.";
    }
    let log_tracks = members.iter().flat_map(|(_, panel)| &panel.tracks).filter(|track| track.axis.is_log);
    if log_tracks.flat_map(|track| &track.lines).flat_map(|line| &line.points).any(|(_, y)| *y <= 0.0) {
        figure.reading += ZERO_READING;
    }
    let shared = Shared::of(members);
    for (label, panel) in members {
        let title =
            if members.len() > 1 { format!("{} · {}", figure.title, plain(label)) } else { figure.title.clone() };
        for track in &panel.tracks {
            let lines = [("", track.lines.as_slice())];
            let grid = points_grid(&series(&lines, |line| &line.name), &seconds(), &track.axis);
            figure.grids.extend(grid.map(|mut grid| {
                grid.caption =
                    if members.len() > 1 { format!("{} · {}", grid.caption, plain(label)) } else { grid.caption };
                grid
            }));
        }
        figure.grids.extend(marks_grid(&panel.marks, "at", Unit::Seconds));
        figure.scenes.push(draw(&title, panel, &shared));
    }
}

/// The axes that the timelines of several runs have in common.
struct Shared {
    time: Scale,
    uprights: Vec<Scale>,
}

impl Shared {
    fn of(members: &[(&str, &Timeline)]) -> Self {
        let lines = members.iter().flat_map(|(_, panel)| panel.tracks.iter().flat_map(|track| &track.lines));
        let times = lines.flat_map(|line| line.points.iter().map(|(at, _)| *at));
        let marks = members.iter().flat_map(|(_, panel)| &panel.marks);
        let marked = marks.flat_map(|mark| [Some(mark.at_s), mark.until_s]).flatten();
        let (low, high) = bounds(times.chain(marked));
        let strips = members.iter().map(|(_, panel)| panel.tracks.len()).max().unwrap_or(0);
        let scale = |strip: usize| {
            let tracks: Vec<_> = members.iter().filter_map(|(_, panel)| panel.tracks.get(strip)).collect();
            let lines = tracks.iter().flat_map(|track| &track.lines);
            let values = lines.flat_map(|line| line.points.iter().map(|(_, y)| *y));
            let axis = tracks.first().map_or_else(seconds, |track| track.axis.clone());
            upright(values, &axis)
        };
        Self { time: Scale::span(low.min(0.0), high), uprights: (0..strips).map(scale).collect() }
    }
}

fn seconds() -> Axis {
    Axis { label: "time since the start".into(), unit: Unit::Seconds, is_log: false }
}

fn draw(title: &str, panel: &Timeline, shared: &Shared) -> Scene {
    let mut scene = Scene::new(title, describe(panel));
    let strips: Vec<Vec<Series<'_, Line>>> =
        panel.tracks.iter().map(|track| series(&[("", track.lines.as_slice())], |line| &line.name)).collect();
    let entries: Vec<Vec<Entry>> = strips.iter().map(|strip| legend(strip, true, |_| Vec::new())).collect();
    let names: Vec<Legend> = entries.iter().map(|entries| Legend::new(entries.clone())).collect();
    let right = names.iter().map(|names| names.width).fold(0.0, f64::max);
    let upright = panel.tracks.iter().zip(&shared.uprights);
    let left = EDGE + upright.map(|(track, y)| axes::upright_room(*y, track.axis.unit)).fold(24.0, f64::max);
    let width = WIDTH - EDGE - right - left;
    let frame_at = |top, height, y| Frame { left, top, width, height, x: shared.time, y };
    let labels: Vec<Mark> = panel.marks.iter().map(|mark| Mark { label: plain(&mark.label), ..mark.clone() }).collect();
    let marks = Marks::new(&labels, &frame_at(0.0, HEIGHT, shared.time));
    let mut top = marks.head() + HEAD;
    let names_foot = top - HEAD + 2.0;
    let last = panel.tracks.len().saturating_sub(1);
    for (at, (track, strip)) in panel.tracks.iter().zip(&strips).enumerate() {
        let frame = frame_at(top, HEIGHT.max(names[at].height()), shared.uprights[at]);
        let caption = (at == last).then(|| axes::caption(&seconds(), shared.time));
        marks.draw_bands(&mut scene, &frame);
        if at == 0 {
            marks.draw_names(&mut scene, names_foot, frame.top);
        }
        frame.draw_upright(&mut scene, &track.axis);
        frame.draw_lower(&mut scene, Unit::Seconds, caption.as_deref());
        marks.draw_lines(&mut scene, &frame);
        draw_strip(&mut scene, &frame, strip, &track.axis, entries[at].clone());
        top = frame.bottom() + BETWEEN;
    }
    let bottom = top - BETWEEN + FOOT;
    marks.draw_key(&mut scene, left, bottom - 4.0);
    scene.height = bottom + marks.foot();
    scene
}

fn draw_strip(scene: &mut Scene, frame: &Frame, strip: &[Series<'_, Line>], axis: &Axis, entries: Vec<Entry>) {
    if strip.iter().all(|one| one.data.points.is_empty()) {
        say_empty(scene, frame);
    }
    let mut ends = Vec::new();
    for one in strip {
        let name = plain(one.name);
        let words = |(at, y)| format!("{name}: {} at {}", short(y, axis.unit), short(at, Unit::Seconds));
        lines::draw(scene, frame, &one.data.points, one.style, Joining::Near, words);
        ends.push(one.data.points.last().map(|point| frame.at(*point)));
    }
    draw_legend(scene, frame, entries, ends);
}

fn describe(panel: &Timeline) -> String {
    let mut text = String::from("Timeline.");
    for track in &panel.tracks {
        for line in &track.lines {
            let (low, high) = bounds(line.points.iter().map(|(_, y)| *y));
            let [low, high] = [low, high].map(|y| short(y, track.axis.unit));
            text += &format!(" {}, {}: between {low} and {high}.", plain(&track.axis.label), plain(&line.name));
        }
    }
    for mark in &panel.marks {
        text += &format!(" At {}: {}.", short(mark.at_s, Unit::Seconds), plain(&mark.label));
    }
    text
}
