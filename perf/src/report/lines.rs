//! Lines and points of series within a frame.

use super::axes::Frame;
use super::group::Style;
use super::scene::{Ink, Item, Point, Scene, Shape, Stroke};

/// Lines with no more points than this show every one of them.
const DOTS_MAX: usize = 30;
/// Series with more points than this do not tell what each of them says.
const WORDS_MAX: usize = 300;
/// Between two dots of a line with more points.
const DOTS_APART: f64 = 110.0;
/// A line breaks where two points are so many times further apart than two usually are: there, nothing was measured.
const GAP_FACTOR: f64 = 3.5;

/// How the points of a series become a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joining {
    /// By straight lines.
    All,
    /// By straight lines, but for gaps.
    Near,
    /// Not at all.
    None,
}

/// Draws a series; `words` tells what a point says when it is pointed at.
pub(super) fn draw(
    scene: &mut Scene,
    frame: &Frame,
    points: &[(f64, f64)],
    style: Style,
    joining: Joining,
    words: impl Fn((f64, f64)) -> String,
) {
    let ink = Ink::Hue(style.hue);
    let dot = |point: (f64, f64), radius: f64| Item::Dot {
        at: frame.at(point),
        radius,
        shape: Shape(style.shape),
        ink,
        words: if points.len() <= WORDS_MAX { words(point) } else { String::new() },
    };
    if joining == Joining::None {
        let radius = if points.len() <= WORDS_MAX { 3.0 } else { 1.8 };
        scene.items.extend(apart(frame, points).map(|point| dot(point, radius)));
        return;
    }
    let gap = if joining == Joining::Near { longest_step(points) } else { f64::INFINITY };
    let mut lonely = Vec::new();
    for piece in points.chunk_by(|a, b| b.0 - a.0 <= gap) {
        match piece {
            [point] => lonely.push(*point),
            piece => scene.path(thinned(frame, piece), Stroke::dashed(ink, 2.0, style.dash)),
        }
    }
    let dots: Vec<(f64, f64)> =
        if points.len() <= DOTS_MAX { points.to_vec() } else { some(frame, points, style.shape).collect() };
    lonely.retain(|point| !dots.contains(point));
    scene.items.extend(dots.into_iter().map(|point| dot(point, 3.4)));
    scene.items.extend(lonely.into_iter().map(|point| dot(point, 2.2)));
}

/// How far apart two neighbours may be to be joined.
fn longest_step(points: &[(f64, f64)]) -> f64 {
    let mut steps: Vec<f64> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).map_or(f64::INFINITY, |median| median * GAP_FACTOR)
}

/// A line's points on the page; of those that share half a pixel across, the first, the lowest, the highest and the last.
fn thinned(frame: &Frame, points: &[(f64, f64)]) -> Vec<Point> {
    let places: Vec<Point> = points.iter().map(|point| frame.at(*point)).collect();
    let column = |place: &Point| (place.0 * 2.0) as i64;
    let mut kept = Vec::new();
    for piece in places.chunk_by(|a, b| column(a) == column(b)) {
        if piece.len() <= 4 {
            kept.extend_from_slice(piece);
            continue;
        }
        let by_height = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let extremes = [piece.first(), piece.iter().min_by(by_height), piece.iter().max_by(by_height), piece.last()];
        kept.extend(extremes.into_iter().flatten());
    }
    kept
}

/// Some of a line's points, evenly; different ones for different series, whose dots else hid each other.
fn some<'a>(frame: &Frame, points: &'a [(f64, f64)], series: usize) -> impl Iterator<Item = (f64, f64)> + 'a {
    let mut next = frame.left + DOTS_APART * (0.25 + 0.125 * (series % 8) as f64);
    let frame = *frame;
    points.iter().copied().filter(move |point| {
        let is_due = frame.across(point.0) >= next;
        if is_due {
            next = frame.across(point.0) + DOTS_APART;
        }
        is_due
    })
}

/// Points without those that would hide behind another of theirs.
fn apart(frame: &Frame, points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let mut seen = std::collections::BTreeSet::new();
    let cell = |point: (f64, f64)| {
        let (x, y) = frame.at(point);
        ((x * 2.0) as i64, (y * 2.0) as i64)
    };
    let kept: Vec<(f64, f64)> = points.iter().copied().filter(|point| seen.insert(cell(*point))).collect();
    kept.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scale::Scale;

    fn frame() -> Frame {
        Frame {
            left: 0.0,
            top: 0.0,
            width: 100.0,
            height: 100.0,
            x: Scale::linear(0.0, 100.0, crate::run::Unit::Count),
            y: Scale::linear(0.0, 100.0, crate::run::Unit::Count),
        }
    }

    fn pieces(points: &[(f64, f64)], joining: Joining) -> (usize, usize) {
        let mut scene = Scene::new("", "");
        draw(&mut scene, &frame(), points, Style::numbered(0), joining, |_| String::new());
        let paths = scene.items.iter().filter(|item| matches!(item, Item::Path { .. })).count();
        (paths, scene.items.len() - paths)
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let points: Vec<(f64, f64)> = [0, 1, 2, 3, 20, 21, 22, 50].map(|x| (f64::from(x), 1.0)).to_vec();
        assert_eq!(pieces(&points, Joining::Near), (2, 8));
        assert_eq!(pieces(&points, Joining::All), (1, 8));
        assert_eq!(pieces(&points, Joining::None), (0, 8));
        assert_eq!(pieces(&points[..1], Joining::Near), (0, 1));
        assert_eq!(pieces(&[], Joining::All), (0, 0));
    }

    #[test]
    fn a_long_line_keeps_its_peaks() {
        let value = |x| match x {
            12_345 => 0.0,
            54_321 => 99.0,
            _ => 50.0,
        };
        let points: Vec<(f64, f64)> = (0..100_000).map(|x| (f64::from(x) / 1_000.0, value(x))).collect();
        let kept = thinned(&frame(), &points);
        assert!(kept.len() < 1_000, "{}", kept.len());
        let has = |height: f64| kept.iter().any(|(_, y)| (y - height).abs() < 1e-9);
        assert!(has(1.0) && has(100.0), "the highest and the lowest");
        assert!(apart(&frame(), &points).count() <= 202);
    }
}
