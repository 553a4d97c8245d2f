//! What was done to the cluster, or is worth a name, on the lower axis: upright lines and bands through a plot, named above.

use super::axes::Frame;
use super::font;
use super::rows::Rows;
use super::scene::{Anchor, Ink, LEADING, SMALL, Scene, Stroke, WIDTH};
use crate::run::Mark;

/// Rows of names above a plot; with more than these hold, marks get numbers, and what these stand for is said beneath.
const ROWS_MAX: usize = 4;
/// Between two names in a row.
const GAP: f64 = 9.0;
/// Longest name.
const NAME_MAX: f64 = 220.0;

/// The marks of a plot, with room for their names.
#[derive(Debug)]
pub(super) struct Marks {
    tags: Vec<Tag>,
    rows: usize,
    /// What numbers stand for.
    key: Vec<String>,
}

#[derive(Debug)]
struct Tag {
    from: f64,
    to: Option<f64>,
    text: String,
    /// In which row, counted upwards, and where its name begins; `None` when there is no room for it.
    place: Option<(usize, f64)>,
}

impl Marks {
    /// Finds room for names above a frame, of which only its sides and its lower axis matter.
    pub(super) fn new(marks: &[Mark], frame: &Frame) -> Self {
        let named = Self::with(marks, frame, false, |mark| font::cut(&mark.label, SMALL, NAME_MAX));
        if named.tags.iter().all(|tag| tag.place.is_some()) {
            return named;
        }
        let mut labels: Vec<&str> = Vec::new();
        for mark in marks {
            if !labels.contains(&mark.label.as_str()) {
                labels.push(&mark.label);
            }
        }
        let number = |label: &str| labels.iter().position(|known| *known == label).map_or(0, |at| at + 1);
        let mut numbered = Self::with(marks, frame, true, |mark| number(&mark.label).to_string());
        // Spaces within an entry do not break, so that a number stays with its name.
        let entry = |(at, label): (usize, &&str)| format!("{} {label}   ", at + 1).replace(' ', "\u{a0}");
        let key: Vec<String> = labels.iter().enumerate().map(entry).collect();
        numbered.key = font::wrap(&key.join(" "), SMALL, frame.width, 6);
        numbered
    }

    /// Names beside their lines, or numbers on top of them: where marks are many, these need less room.
    fn with(marks: &[Mark], frame: &Frame, is_on_top: bool, text: impl Fn(&Mark) -> String) -> Self {
        let mut tags: Vec<Tag> = marks
            .iter()
            .map(|mark| Tag {
                from: frame.across(mark.at_s),
                to: mark.until_s.map(|until| frame.across(until)),
                text: text(mark),
                place: None,
            })
            .collect();
        tags.sort_by(|a, b| b.from.total_cmp(&a.from));
        let mut taken = Rows::new(ROWS_MAX, if is_on_top { 1.0 } else { 3.0 });
        for tag in &mut tags {
            let width = font::width(&tag.text, SMALL);
            let (start, gap) = if is_on_top { (tag.from - width / 2.0, 1.0) } else { (tag.from + 4.0, GAP) };
            let start = start.min(WIDTH - width - 4.0);
            tag.place = taken.take(tag.from, (start, start + width + gap)).map(|row| (row, start));
        }
        let rows = taken.used();
        Self { tags, rows, key: Vec::new() }
    }

    /// Room for names above the plot.
    pub(super) fn head(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { LEADING * self.rows as f64 + 6.0 }
    }

    /// Room for what numbers stand for, beneath the plot.
    pub(super) fn foot(&self) -> f64 {
        if self.key.is_empty() { 0.0 } else { LEADING * self.key.len() as f64 + 8.0 }
    }

    /// Draws what lies behind the lines of a plot.
    pub(super) fn draw_bands(&self, scene: &mut Scene, frame: &Frame) {
        for tag in &self.tags {
            if let Some(to) = tag.to {
                scene.rect((tag.from, frame.top), (to - tag.from).max(1.0), frame.height, Ink::Band);
            }
        }
    }

    /// Draws the upright lines of a plot.
    pub(super) fn draw_lines(&self, scene: &mut Scene, frame: &Frame) {
        for tag in &self.tags {
            let stroke = Stroke::dashed(Ink::Mark, 1.2, 1);
            scene.line((tag.from, frame.top), (tag.from, frame.bottom()), stroke);
        }
    }

    /// Draws names, the lowest row right above `bottom`, and a line from each down to `plot`.
    pub(super) fn draw_names(&self, scene: &mut Scene, bottom: f64, plot: f64) {
        for tag in &self.tags {
            let Some((row, start)) = tag.place else { continue };
            let y = bottom - 4.0 - LEADING * row as f64;
            let top = if self.key.is_empty() { y - SMALL * 0.75 } else { y + 3.0 };
            scene.line((tag.from, top), (tag.from, plot), Stroke::full(Ink::Mark, 0.6));
            scene.sized((start, y), tag.text.clone(), SMALL, Ink::Mark, Anchor::Start);
        }
    }

    /// Draws what numbers stand for.
    pub(super) fn draw_key(&self, scene: &mut Scene, left: f64, top: f64) {
        for (row, line) in self.key.iter().enumerate() {
            let at = (left, top + LEADING * (row + 1) as f64);
            scene.sized(at, line.clone(), SMALL, Ink::Mark, Anchor::Start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scale::Scale;

    fn marks(count: u32, label: impl Fn(u32) -> String) -> Marks {
        let mark = |at: u32| Mark { at_s: f64::from(at), until_s: None, label: label(at) };
        let all: Vec<Mark> = (0..count).map(mark).collect();
        let x = Scale::linear(0.0, 100.0, crate::run::Unit::Seconds);
        Marks::new(&all, &Frame { left: 50.0, top: 0.0, width: 600.0, height: 100.0, x, y: x })
    }

    #[test]
    fn names_do_not_overlap_and_become_numbers_where_they_are_too_many() {
        let few = marks(4, |at| format!("kill catalog-{at}"));
        assert_eq!((few.rows, few.key.len()), (4, 0));
        let many = marks(60, |at| format!("kill catalog-{}", at % 3));
        assert!(many.key.concat().contains("3\u{a0}kill\u{a0}catalog-2"), "{:?}", many.key);
        for marks in [&few, &many] {
            for row in 0..ROWS_MAX {
                let spans: Vec<(f64, f64)> = marks
                    .tags
                    .iter()
                    .filter_map(|tag| {
                        let (_, start) = tag.place.filter(|(found, _)| *found == row)?;
                        Some((start, start + font::width(&tag.text, SMALL)))
                    })
                    .collect();
                assert!(spans.windows(2).all(|pair| pair[1].1 < pair[0].0), "{spans:?}");
            }
        }
        assert_eq!(many.tags.iter().filter(|tag| tag.place.is_none()).count(), 0);
    }
}
