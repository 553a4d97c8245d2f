//! Names of series, to the right of a plot and each joined to the end of its line, so that nobody has to match colours.

use super::font;
use super::group::Style;
use super::scene::{Anchor, Ink, LEADING, Point, SIZE, SMALL, Scene, Shape, Stroke};

/// Between the plot and the samples of lines: room for what joins them.
const JOIN: f64 = 26.0;
/// A sample of a line.
const SAMPLE: f64 = 30.0;
/// Between it and the name.
const SPACE: f64 = 7.0;
/// Room for names.
const TEXT_MAX: f64 = 172.0;
/// Lines of a name.
const NAME_LINES: usize = 3;
/// Between two entries.
const GAP: f64 = 5.0;
/// More series than this are not named; their table names them all.
pub(super) const ENTRIES_MAX: usize = 24;

/// A series to be named.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// What is said beneath its name.
    pub(super) details: Vec<String>,
    pub(super) style: Style,
    /// Whether its points are joined.
    pub(super) is_line: bool,
    /// Where its line ends.
    pub(super) end: Option<Point>,
}

/// The column of names.
#[derive(Debug)]
pub(super) struct Legend {
    rows: Vec<Row>,
    /// Room that it needs to the right of a plot.
    pub(super) width: f64,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    names: Vec<String>,
    details: Vec<String>,
}

impl Row {
    fn height(&self) -> f64 {
        LEADING * (self.names.len() + self.details.len()) as f64
    }
}

impl Legend {
    /// Breaks names into lines.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let more = entries.len().saturating_sub(ENTRIES_MAX);
        let mut rows: Vec<Row> = entries.into_iter().take(ENTRIES_MAX).map(Row::new).collect();
        if more > 0
            && let Some(last) = rows.last_mut()
        {
            last.details.push(format!("… and {more} more, see the table"));
        }
        let widths = rows.iter().flat_map(|row| {
            let names = row.names.iter().map(|line| font::width(line, SIZE));
            names.chain(row.details.iter().map(|line| font::width(line, SMALL)))
        });
        let text = widths.fold(0.0, f64::max);
        let width = if rows.is_empty() { 0.0 } else { JOIN + SAMPLE + SPACE + text };
        Self { rows, width }
    }

    /// Height that it needs at least.
    pub(super) fn height(&self) -> f64 {
        self.rows.iter().map(|row| row.height() + GAP).sum()
    }

    /// Draws it to the right of `left`, each name as near to its line's end as the others let it.
    pub(super) fn draw(&mut self, scene: &mut Scene, left: f64, (top, bottom): (f64, f64)) {
        let height = |row: &Row| row.entry.end.map_or(f64::MAX, |(_, y)| y);
        self.rows.sort_by(|a, b| height(a).total_cmp(&height(b)));
        let wanted: Vec<(f64, f64)> = self
            .rows
            .iter()
            .map(|row| (row.entry.end.map_or(top, |(_, y)| y - LEADING / 2.0), row.height() + GAP))
            .collect();
        for (row, y) in self.rows.iter().zip(spread(&wanted, top, bottom)) {
            row.draw(scene, left, y);
        }
    }
}

impl Row {
    fn new(entry: Entry) -> Self {
        let names = font::wrap(&entry.name, SIZE, TEXT_MAX, NAME_LINES);
        let details = entry.details.iter().map(|detail| font::cut(detail, SMALL, TEXT_MAX)).collect();
        Self { names, details, entry }
    }

    fn draw(&self, scene: &mut Scene, left: f64, top: f64) {
        let Entry { style, is_line, end, .. } = &self.entry;
        let middle = top + LEADING / 2.0;
        let (from, to) = (left + JOIN, left + JOIN + SAMPLE);
        let ink = Ink::Hue(style.hue);
        if let Some(end) = end {
            scene.path(vec![*end, (left + 4.0, end.1), (from - 5.0, middle)], Stroke::dashed(ink, 0.8, 2));
        }
        if *is_line {
            scene.line((from, middle), (to, middle), Stroke::dashed(ink, 2.0, style.dash));
        }
        let at = ((from + to) / 2.0, middle);
        scene.items.push(super::scene::Item::Dot {
            at,
            radius: 3.6,
            shape: Shape(style.shape),
            ink,
            words: self.entry.name.clone(),
        });
        let mut y = top + LEADING * 0.78;
        for name in &self.names {
            scene.text((to + SPACE, y), name.clone(), Ink::Text, Anchor::Start);
            y += LEADING;
        }
        for detail in &self.details {
            scene.sized((to + SPACE, y), detail.clone(), SMALL, Ink::Muted, Anchor::Start);
            y += LEADING;
        }
    }
}

/// Places things of given heights beneath each other, each as near to where it is wanted as those above it let it, and
/// none beyond the bottom, as far as they have room at all.
fn spread(wanted: &[(f64, f64)], top: f64, bottom: f64) -> Vec<f64> {
    let mut free = top;
    let mut places: Vec<f64> = Vec::with_capacity(wanted.len());
    for (y, height) in wanted {
        let place = y.max(free);
        places.push(place);
        free = place + height;
    }
    let mut end = bottom.max(top + wanted.iter().map(|(_, height)| height).sum::<f64>());
    for (place, (_, height)) in places.iter_mut().zip(wanted).rev() {
        *place = place.min(end - height);
        end = *place;
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stand_where_they_are_wanted_if_they_can() {
        assert_eq!(spread(&[(10.0, 5.0), (50.0, 5.0)], 0.0, 100.0), [10.0, 50.0]);
        assert_eq!(spread(&[(10.0, 5.0), (10.0, 5.0), (98.0, 5.0)], 0.0, 100.0), [10.0, 15.0, 95.0]);
        assert_eq!(spread(&[(99.0, 5.0), (99.0, 5.0)], 0.0, 100.0), [90.0, 95.0]);
    }

    proptest! {
        #[test]
        fn names_never_overlap(mut ys in prop::collection::vec(0.0..300.0, 0..12), height in 1.0..20.0_f64) {
            ys.sort_by(f64::total_cmp);
            let wanted: Vec<(f64, f64)> = ys.iter().map(|y| (*y, height)).collect();
            let places = spread(&wanted, 0.0, 300.0);
            prop_assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= height - 1e-6), "{places:?}");
            prop_assert!(places.iter().all(|place| *place > -1e-6 && place + height <= 300.0 + 1e-6), "{places:?}");
        }
    }
}
