//! The frame of a plot: its axes with what they name, and lines for the eye.

use super::font;
use super::scale::{Scale, Tick};
use super::scene::{Anchor, EDGE, Ink, LEADING, Point, SIZE, SMALL, Scene, Stroke};
use crate::run::{Axis, Unit};

/// Between two labels on one axis.
const LABEL_GAP: f64 = 10.0;
/// Values that an upright linear axis names at most: as many steps as its ends are rounded to.
const UPRIGHT_COUNT: usize = 5;
/// Beneath a frame: the labels of its lower axis, and what that axis counts.
pub(super) const FOOT: f64 = 42.0;
/// Above a frame: what the upright axis counts.
pub(super) const HEAD: f64 = 24.0;

/// A plot's frame and its scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: Scale,
    pub(super) y: Scale,
}

impl Frame {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Where a value of the lower axis stands.
    pub(super) fn across(&self, x: f64) -> f64 {
        self.left + self.width * self.x.place(x)
    }

    /// Where a point stands.
    pub(super) fn at(&self, (x, y): (f64, f64)) -> Point {
        (self.across(x), self.bottom() - self.height * self.y.place(y))
    }

    /// Draws the upright axis, and above it what it counts.
    pub(super) fn draw_upright(&self, scene: &mut Scene, axis: &Axis) {
        let ticks = self.y.ticks(axis.unit, UPRIGHT_COUNT);
        let up = |tick: &Tick| self.bottom() - self.height * tick.place;
        for tick in &ticks {
            let y = up(tick);
            let is_fine = tick.label.is_empty();
            let stroke = Stroke::full(Ink::Grid, if is_fine { 0.5 } else { 1.0 });
            scene.line((self.left, y), (self.right(), y), stroke);
        }
        for tick in chosen(&ticks, |tick| (up(tick) - SIZE * 0.6, up(tick) + SIZE * 0.6), 1.0) {
            let at = (self.left - 7.0, up(tick) + SMALL * 0.36);
            scene.sized(at, tick.label.clone(), SMALL, Ink::Muted, Anchor::End);
        }
        // It begins where the numbers beneath it do: at the picture's left edge.
        let room = self.right() - EDGE;
        let caption = font::cut(&caption(axis, self.y), SIZE, room);
        let at = (EDGE, self.top - 10.0);
        // Lines from the names of marks end behind it.
        scene.rect((at.0 - 2.0, at.1 - SIZE), font::width(&caption, SIZE) + 4.0, SIZE + 4.0, Ink::Paper);
        scene.text(at, caption, Ink::Text, Anchor::Start);
    }

    /// Draws the lower axis' lines, and its names and what it counts if these are asked for.
    pub(super) fn draw_lower(&self, scene: &mut Scene, unit: Unit, caption: Option<&str>) {
        let ticks = self.lower_ticks(unit);
        for tick in &ticks {
            let x = self.left + self.width * tick.place;
            let stroke = Stroke::full(Ink::Grid, if tick.label.is_empty() { 0.5 } else { 1.0 });
            scene.line((x, self.top), (x, self.bottom()), stroke);
        }
        scene.line((self.left, self.bottom()), (self.right(), self.bottom()), Stroke::full(Ink::Muted, 1.0));
        let Some(caption) = caption else { return };
        for tick in chosen(&ticks, |tick| self.label_span(tick), LABEL_GAP) {
            let x = self.left + self.width * tick.place;
            scene.line((x, self.bottom()), (x, self.bottom() + 4.0), Stroke::full(Ink::Muted, 1.0));
            let at = (x, self.bottom() + LEADING + 2.0);
            scene.sized(at, tick.label.clone(), SMALL, Ink::Muted, Anchor::Middle);
        }
        let caption = font::cut(caption, SIZE, self.width);
        let middle = self.left + self.width / 2.0;
        scene.text((middle, self.bottom() + LEADING * 2.0 + 5.0), caption, Ink::Text, Anchor::Middle);
    }

    /// As many values as have room; of a linear axis' values none is left out between two others.
    fn lower_ticks(&self, unit: Unit) -> Vec<Tick> {
        let has_room = |ticks: &[Tick]| chosen(ticks, |tick| self.label_span(tick), LABEL_GAP).count() == ticks.len();
        let counts = (2..=10).rev();
        let mut found = counts.map(|count| self.x.ticks(unit, count)).skip_while(|ticks| !has_room(ticks));
        found.next().unwrap_or_else(|| self.x.ticks(unit, 2))
    }

    fn label_span(&self, tick: &Tick) -> (f64, f64) {
        let x = self.left + self.width * tick.place;
        let half = font::width(&tick.label, SMALL) / 2.0;
        (x - half, x + half)
    }
}

/// Room for the upright axis' labels.
pub(super) fn upright_room(scale: Scale, unit: Unit) -> f64 {
    let ticks = scale.ticks(unit, UPRIGHT_COUNT);
    ticks.iter().map(|tick| font::width(&tick.label, SMALL)).fold(24.0, f64::max) + 10.0
}

/// What an axis counts, and in what.
pub(super) fn caption(axis: &Axis, scale: Scale) -> String {
    let unit = scale.common_unit(axis.unit);
    match (unit, scale.is_log()) {
        (_, true) => format!("{} (logarithmic)", axis.label),
        ("", _) => axis.label.clone(),
        ("/s", _) => format!("{} (1/s)", axis.label),
        (unit, _) => format!("{} ({unit})", axis.label),
    }
}

/// The ticks whose labels do not overlap: those of a lower rank first, and from the foot on.
fn chosen(ticks: &[Tick], span: impl Fn(&Tick) -> (f64, f64), gap: f64) -> impl Iterator<Item = &Tick> {
    let mut taken: Vec<(f64, f64)> = Vec::new();
    let mut named: Vec<&Tick> = ticks.iter().filter(|tick| !tick.label.is_empty()).collect();
    named.sort_by_key(|tick| tick.rank);
    named.retain(|tick| {
        let (from, to) = span(tick);
        let is_free = taken.iter().all(|(start, end)| from >= end + gap || to + gap <= *start);
        if is_free {
            taken.push((from, to));
        }
        is_free
    });
    named.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_overlap_are_left_out_the_lesser_first() {
        let tick = |place, rank| Tick { place, label: "x".into(), rank };
        let ticks = [tick(0.0, 1), tick(0.05, 0), tick(0.5, 1), tick(0.55, 2), tick(1.0, 0)];
        let places: Vec<f64> =
            chosen(&ticks, |tick| (tick.place, tick.place + 0.1), 0.0).map(|tick| tick.place).collect();
        assert_eq!(places, [0.05, 1.0, 0.5]);
    }

    #[test]
    fn a_caption_says_in_what_is_counted() {
        let axis = |unit| Axis { label: "buys".into(), unit, is_log: false };
        let caption = |unit, high| caption(&axis(unit), Scale::linear(0.0, high, unit));
        assert_eq!(caption(Unit::PerSecond, 12.0), "buys (1/s)");
        assert_eq!(caption(Unit::PerSecond, 120_000.0), "buys (k/s)");
        assert_eq!(caption(Unit::Seconds, 0.01), "buys (ms)");
        assert_eq!(caption(Unit::Ratio, 1.0), "buys");
    }
}
