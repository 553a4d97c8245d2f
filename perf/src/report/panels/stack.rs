//! Bars that are sums of parts: lying, so that names have room, and every part with its name, value and share.

use super::{Figure, Grid, number, say_empty, word};
use crate::report::axes::{self, FOOT, Frame, HEAD};
use crate::report::font;
use crate::report::html::plain;
use crate::report::quantity::{full, short};
use crate::report::rows::Rows;
use crate::report::scale::Scale;
use crate::report::scene::{Anchor, EDGE, Ink, LEADING, SIZE, SMALL, Scene, Stroke, WIDTH};
use crate::run::{Axis, Stack, Unit};

/// Height of a bar.
const BAR: f64 = 36.0;
/// Between what belongs to two bars.
const BETWEEN: f64 = 18.0;
/// Room for the names of bars.
const NAME_MAX: f64 = 170.0;
/// Room for sums.
const SUM: f64 = 86.0;
/// Room for the name of a part beneath its bar.
const PART_MAX: f64 = 160.0;
/// Bars on a picture; the table has them all.
const BARS_MAX: usize = 40;

/// A bar on the picture.
struct Bar {
    name: String,
    run: Option<String>,
    values: Vec<f64>,
}

impl Bar {
    fn sum(&self) -> f64 {
        self.values.iter().sum()
    }

    fn full_name(&self) -> String {
        self.run.as_ref().map_or_else(|| self.name.clone(), |run| format!("{} · {run}", self.name))
    }
}

pub(super) fn fill(figure: &mut Figure, members: &[(&str, &Stack)]) {
    let Some((_, first)) = members.first() else { return };
    let bars = bars(members);
    figure.grids.push(grid(first, &bars));
    figure.reading = "Each bar is the sum of its parts; a part's share is of its own bar.".into();
    if bars.len() > BARS_MAX {
        figure.reading += &format!(" The first {BARS_MAX} of {} bars are drawn.", bars.len());
    }
    figure.scenes.push(draw(&figure.title, first, &bars[..bars.len().min(BARS_MAX)]));
}

/// The bars of all runs, those of one name beneath each other.
fn bars(members: &[(&str, &Stack)]) -> Vec<Bar> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in members.iter().flat_map(|(_, panel)| &panel.bars) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut bars = Vec::new();
    for wanted in names {
        for (label, panel) in members {
            for (_, values) in panel.bars.iter().filter(|(name, _)| name == wanted) {
                let run = (members.len() > 1).then(|| plain(label));
                // A part less than nothing has no length.
                let values = values.iter().map(|value| value.max(0.0)).collect();
                bars.push(Bar { name: plain(wanted), run, values });
            }
        }
    }
    bars
}

fn draw(title: &str, panel: &Stack, bars: &[Bar]) -> Scene {
    let mut scene = Scene::new(title, describe(panel, bars));
    let unit = panel.axis.unit;
    let highest = bars.iter().map(Bar::sum).fold(0.0, f64::max);
    let names = bars.iter().flat_map(|bar| std::iter::once(&bar.name).chain(&bar.run));
    let left = EDGE + names.map(|name| font::width(name, SIZE).min(NAME_MAX)).fold(24.0, f64::max) + 10.0;
    // The axis is upright in no picture of this form: a scale of round values lies.
    let x = Scale::linear(0.0, highest, unit);
    let mut frame = Frame { left, top: 8.0, width: WIDTH - EDGE - SUM - left, height: 0.0, x, y: x };
    let layouts: Vec<Layout> = bars.iter().map(|bar| Layout::of(bar, panel, &frame)).collect();
    let height: f64 = layouts.iter().map(|layout| layout.height() + BETWEEN).sum();
    frame.height = if bars.is_empty() { HEAD + BAR } else { height + 6.0 };
    let axis = Axis { is_log: false, ..panel.axis.clone() };
    frame.draw_lower(&mut scene, unit, Some(&axes::caption(&axis, x)));
    if bars.is_empty() {
        say_empty(&mut scene, &frame);
    }
    let mut top = frame.top + BETWEEN / 2.0;
    for (bar, layout) in bars.iter().zip(&layouts) {
        draw_name(&mut scene, bar, left - 10.0, top);
        layout.draw(&mut scene, top);
        let end = frame.across(bar.sum());
        let sum = format!("{} in all", short(bar.sum(), unit));
        scene.bold((end + 7.0, top + BAR / 2.0 + SMALL * 0.36), sum, SMALL, Anchor::Start);
        top += layout.height() + BETWEEN;
    }
    scene.height = frame.bottom() + FOOT;
    scene
}

fn draw_name(scene: &mut Scene, bar: &Bar, right: f64, top: f64) {
    let lines = font::wrap(&bar.name, SIZE, NAME_MAX, if bar.run.is_some() { 1 } else { 2 });
    let run = bar.run.as_ref().map(|run| font::cut(run, SMALL, NAME_MAX));
    let count = lines.len() + usize::from(run.is_some());
    let mut y = top + BAR / 2.0 + SIZE * 0.36 - LEADING * (count as f64 - 1.0) / 2.0;
    for line in lines {
        scene.text((right, y), line, Ink::Text, Anchor::End);
        y += LEADING;
    }
    if let Some(run) = run {
        scene.sized((right, y), run, SMALL, Ink::Muted, Anchor::End);
    }
}

/// Where a bar's parts and their names stand.
struct Layout {
    segments: Vec<Segment>,
    rows: usize,
}

struct Segment {
    part: usize,
    from: f64,
    to: f64,
    /// Its name and its value with its share.
    words: [String; 2],
    /// Beneath the bar, in which row and where its words begin; `None` for those whose words fit into them.
    beneath: Option<(usize, f64)>,
}

impl Segment {
    fn middle(&self) -> f64 {
        (self.from + self.to) / 2.0
    }
}

impl Layout {
    fn of(bar: &Bar, panel: &Stack, frame: &Frame) -> Self {
        let sum = bar.sum();
        let mut from = 0.0;
        let mut segments = Vec::new();
        for (part, value) in bar.values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let name = panel.parts.get(part).map(|name| font::cut(&plain(name), SMALL, PART_MAX)).unwrap_or_default();
            let amount = format!("{} · {}", short(*value, panel.axis.unit), share(*value, sum));
            let (left, right) = (frame.across(from), frame.across(from + value));
            segments.push(Segment { part, from: left, to: right, words: [name, amount], beneath: None });
            from += value;
        }
        let rows = place_beneath(&mut segments);
        Self { segments, rows }
    }

    fn height(&self) -> f64 {
        BAR + if self.rows == 0 { 0.0 } else { 4.0 + LEADING * self.rows as f64 }
    }

    fn draw(&self, scene: &mut Scene, top: f64) {
        for segment in &self.segments {
            let Segment { part, from, to, words, beneath } = segment;
            // A seam of paper keeps parts apart without colours; those too thin for one stay seen.
            let seam = if to - from > 3.0 { 1.0 } else { 0.0 };
            scene.rect((*from, top), (to - from - seam).max(0.6), BAR, Ink::Hue(*part));
            let middle = segment.middle();
            match beneath {
                None => {
                    let [name, amount] = words.clone();
                    scene.sized((middle, top + BAR / 2.0 - 3.0), name, SMALL, Ink::Paper, Anchor::Middle);
                    scene.sized((middle, top + BAR / 2.0 + 11.0), amount, SMALL, Ink::Paper, Anchor::Middle);
                }
                Some((row, start)) => {
                    let y = top + BAR + 3.0 + LEADING * (*row as f64 + 1.0) - 3.0;
                    let stroke = Stroke::full(Ink::Hue(*part), 1.0);
                    let mut line = vec![(middle, top + BAR), (middle, y - 4.0)];
                    // Words at the picture's edge may begin to the left of their line.
                    line.extend((start - 2.0 > middle).then_some((start - 2.0, y - 4.0)));
                    if start - 2.0 <= middle {
                        line[1].1 = y - SMALL;
                    }
                    scene.path(line, stroke);
                    scene.sized((*start, y), words.join(": "), SMALL, Ink::Text, Anchor::Start);
                }
            }
        }
    }
}

/// Finds places beneath the bar for the words that do not fit into their part, and says how many rows these take.
fn place_beneath(segments: &mut [Segment]) -> usize {
    let mut rows = Rows::new(usize::MAX, 3.0);
    for segment in segments.iter_mut().rev() {
        let room = segment.to - segment.from - 8.0;
        if segment.words.iter().all(|words| font::width(words, SMALL) <= room) {
            continue;
        }
        let width = font::width(&segment.words.join(": "), SMALL);
        let start = (segment.middle() + 8.0).min(WIDTH - EDGE - width);
        let row = rows.take(segment.middle(), (start, start + width + 8.0));
        segment.beneath = row.map(|row| (row, start));
    }
    rows.used()
}

fn share(value: f64, sum: f64) -> String {
    let percent = 100.0 * value / sum;
    match percent {
        10.0.. => format!("{percent:.0} %"),
        0.05.. => format!("{percent:.1} %"),
        _ if value > 0.0 => "<0.1 %".into(),
        _ => "0 %".into(),
    }
}

fn describe(panel: &Stack, bars: &[Bar]) -> String {
    let mut text = format!("Bars of {}.", plain(&panel.axis.label));
    for bar in bars {
        let parts: Vec<String> = (panel.parts.iter().zip(&bar.values).filter(|(_, value)| **value > 0.0))
            .map(|(part, value)| {
                let share = share(*value, bar.sum());
                format!("{} {} ({share})", plain(part), short(*value, panel.axis.unit))
            })
            .collect();
        text += &format!(" {}: {} = {}.", bar.full_name(), parts.join(" + "), short(bar.sum(), panel.axis.unit));
    }
    text
}

fn grid(panel: &Stack, bars: &[Bar]) -> Grid {
    let parts: Vec<String> = panel.parts.iter().map(|part| plain(part)).collect();
    let columns: Vec<&str> = std::iter::once("bar").chain(parts.iter().map(String::as_str)).chain(["in all"]).collect();
    let mut grid = Grid::new(plain(&panel.axis.label), &columns);
    let amount = |value: f64, unit: Unit| full(value, unit);
    for bar in bars {
        let cells = bar.values.iter().map(|value| {
            let share = if bar.sum() > 0.0 { format!(" ({})", share(*value, bar.sum())) } else { String::new() };
            number(format!("{}{share}", amount(*value, panel.axis.unit)))
        });
        let sum = number(amount(bar.sum(), panel.axis.unit));
        grid.rows.push(std::iter::once(word(bar.full_name())).chain(cells).chain([sum]).collect());
    }
    grid
}
