//! Panels as figures: pictures, their numbers as tables, and how to read them.

mod curve;
mod percentiles;
mod stack;
mod table;
mod timeline;

use super::axes::{self, Frame};
use super::group::{Group, Series, Style};
use super::html::plain;
use super::legend::{Entry, Legend};
use super::scale::Scale;
use super::scene::{Anchor, EDGE, Ink, Point, Scene, WIDTH};
use crate::run::{Axis, Panel};

/// Series on one picture of several runs; more are drawn on a picture for each of their names.
const SERIES_MAX: usize = 10;

/// A figure of the page.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) experiment: String,
    pub(super) title: String,
    /// How the pictures are read, in a few sentences.
    pub(super) reading: String,
    pub(super) scenes: Vec<Scene>,
    pub(super) grids: Vec<Grid>,
}

/// Words and numbers in rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) caption: String,
    pub(super) columns: Vec<String>,
    /// Texts, and whether they are numbers.
    pub(super) rows: Vec<Vec<(String, bool)>>,
}

impl Grid {
    fn new(caption: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { caption: caption.into(), columns, rows: Vec::new() }
    }
}

fn word(text: impl Into<String>) -> (String, bool) {
    (text.into(), false)
}

fn number(text: impl Into<String>) -> (String, bool) {
    (text.into(), true)
}

/// Draws panels that belong together.
pub(super) fn figure(group: &Group<'_>) -> Figure {
    let mut figure = Figure {
        experiment: plain(group.experiment),
        title: plain(group.title),
        reading: String::new(),
        scenes: Vec::new(),
        grids: Vec::new(),
    };
    match group.members[0].1 {
        Panel::Percentiles(_) => percentiles::fill(&mut figure, &members(group, as_percentiles)),
        Panel::Timeline(_) => timeline::fill(&mut figure, &members(group, as_timeline)),
        Panel::Curve(_) => curve::fill(&mut figure, &members(group, as_curve)),
        Panel::Stack(_) => stack::fill(&mut figure, &members(group, as_stack)),
        Panel::Table(_) => table::fill(&mut figure, &members(group, as_table)),
    }
    figure
}

/// The panels of a group, which are all of one form.
fn members<'a, T>(group: &Group<'a>, form: impl Fn(&'a Panel) -> Option<&'a T>) -> Vec<(&'a str, &'a T)> {
    group.members.iter().filter_map(|(label, panel)| Some((*label, form(panel)?))).collect()
}

macro_rules! forms {
    ($($name:ident: $form:ident),*) => {
        $(fn $name(panel: &Panel) -> Option<&crate::run::$form> {
            if let Panel::$form(panel) = panel { Some(panel) } else { None }
        })*
    };
}
forms!(as_percentiles: Percentiles, as_timeline: Timeline, as_curve: Curve, as_stack: Stack, as_table: Table);

/// Series for one picture, or for one for each name where they are too many for one.
fn pictures<'a, T: Clone>(series: Vec<Series<'a, T>>) -> Vec<(Option<&'a str>, Vec<Series<'a, T>>)> {
    let is_of_several = series.iter().any(|one| one.run.is_some());
    let are_alike = series.windows(2).all(|pair| pair[0].name == pair[1].name);
    if !is_of_several || (series.len() <= SERIES_MAX && !are_alike) {
        return vec![(None, series)];
    }
    let mut pictures: Vec<(Option<&str>, Vec<Series<'a, T>>)> = Vec::new();
    for mut one in series {
        let at = pictures.iter().position(|(name, _)| *name == Some(one.name)).unwrap_or_else(|| {
            pictures.push((Some(one.name), Vec::new()));
            pictures.len() - 1
        });
        one.style = Style::numbered(pictures[at].1.len());
        pictures[at].1.push(one);
    }
    pictures
}

/// How pictures of several runs tell them apart.
fn telling<T>(series: &[Series<'_, T>]) -> &'static str {
    let is_mixed = series.iter().any(|one| one.run.is_some() && one.style.dash != one.style.hue);
    if is_mixed { " Colours and points tell what is shown, dashes tell the runs apart." } else { "" }
}

/// A figure's title and what part of it a picture shows.
fn titled(title: &str, part: Option<&str>) -> String {
    part.map_or_else(|| title.into(), |part| format!("{title} · {}", plain(part)))
}

/// A frame with room for what the upright axis names and for names to its right.
fn frame(scales: (Scale, Scale), axis: &Axis, top: f64, height: f64, legend_width: f64) -> Frame {
    let (x, y) = scales;
    let left = EDGE + axes::upright_room(y, axis.unit);
    Frame { left, top, width: WIDTH - EDGE - legend_width - left, height, x, y }
}

/// The names of series, as a legend has them before it is known where their lines end.
fn legend<T>(series: &[Series<'_, T>], is_line: bool, details: impl Fn(&T) -> Vec<String>) -> Vec<Entry> {
    let are_alike = series.windows(2).all(|pair| pair[0].name == pair[1].name);
    let entry = |one: &Series<'_, T>| {
        // Where all lines show the same, the picture's title says what, and only the run is left to tell.
        let (name, run) = match one.run {
            Some(run) if are_alike => (run, None),
            run => (one.name, run),
        };
        let details = run.map(plain).into_iter().chain(details(one.data)).collect();
        Entry { name: plain(name), details, style: one.style, is_line, end: None }
    };
    series.iter().map(entry).collect()
}

/// Draws the names to the right of a frame, each at its line's end.
fn draw_legend(scene: &mut Scene, frame: &Frame, mut entries: Vec<Entry>, ends: Vec<Option<Point>>) {
    for (entry, end) in entries.iter_mut().zip(ends) {
        entry.end = end;
    }
    Legend::new(entries).draw(scene, frame.right(), (frame.top, frame.bottom()));
}

/// Says within a frame that there is nothing in it.
fn say_empty(scene: &mut Scene, frame: &Frame) {
    let middle = (frame.left + frame.width / 2.0, frame.top + frame.height / 2.0);
    scene.text(middle, "nothing was measured", Ink::Muted, Anchor::Middle);
}
