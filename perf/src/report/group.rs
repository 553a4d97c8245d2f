//! Which panels of several runs belong together, and how their series are told apart.

use crate::run::{Axis, Panel, Run, Unit};

/// A run on the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labelled<'a> {
    /// What it is called there.
    pub(super) label: &'a str,
    pub(super) run: &'a Run,
}

/// Panels that show the same of several runs.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) experiment: &'a str,
    pub(super) title: &'a str,
    /// The runs' labels and their panels, which are of one form.
    pub(super) members: Vec<(&'a str, &'a Panel)>,
}

/// Panels in the order of the first run that has them. What has the same experiment, form, title and axes is one group.
pub(super) fn groups<'a>(runs: &[Labelled<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for Labelled { label, run } in runs {
        // Two panels of one run are two pictures, even where their titles are the same.
        let mut taken = vec![false; groups.len()];
        for panel in &run.panels {
            let is_alike =
                |group: &Group<'_>| group.experiment == run.experiment && are_alike(group.members[0].1, panel);
            let found = (0..taken.len()).find(|at| !taken[*at] && is_alike(&groups[*at]));
            match found {
                Some(at) => {
                    taken[at] = true;
                    groups[at].members.push((label, panel));
                }
                None => {
                    groups.push(Group {
                        experiment: &run.experiment,
                        title: title(panel),
                        members: vec![(label, panel)],
                    });
                }
            }
        }
    }
    groups
}

/// What a panel shows.
pub(super) fn title(panel: &Panel) -> &str {
    match panel {
        Panel::Percentiles(panel) => &panel.title,
        Panel::Timeline(panel) => &panel.title,
        Panel::Curve(panel) => &panel.title,
        Panel::Stack(panel) => &panel.title,
        Panel::Table(panel) => &panel.title,
    }
}

fn are_alike(a: &Panel, b: &Panel) -> bool {
    let counts = |axis: &Axis| (axis.label.clone(), axis.unit);
    title(a) == title(b)
        && match (a, b) {
            (Panel::Percentiles(_), Panel::Percentiles(_)) | (Panel::Table(_), Panel::Table(_)) => true,
            (Panel::Timeline(a), Panel::Timeline(b)) => {
                let axes = |tracks: &[crate::run::Track]| -> Vec<(String, Unit)> {
                    tracks.iter().map(|track| counts(&track.axis)).collect()
                };
                axes(&a.tracks) == axes(&b.tracks)
            }
            (Panel::Curve(a), Panel::Curve(b)) => {
                counts(&a.x) == counts(&b.x) && counts(&a.y) == counts(&b.y) && a.is_scatter == b.is_scatter
            }
            (Panel::Stack(a), Panel::Stack(b)) => counts(&a.axis) == counts(&b.axis) && a.parts == b.parts,
            _ => false,
        }
}

/// How a series is drawn. Any one of the three is enough to know it from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) hue: usize,
    pub(super) dash: usize,
    pub(super) shape: usize,
}

impl Style {
    /// The style of the series of that number.
    pub(super) fn numbered(number: usize) -> Self {
        // From the ninth on the hues begin anew, and the other two must not do so in the same step.
        Self { hue: number, dash: number, shape: number + number / 8 }
    }
}

/// A series of a picture.
#[derive(Debug, Clone)]
pub(super) struct Series<'a, T> {
    pub(super) name: &'a str,
    /// The run it is of, on a picture of several.
    pub(super) run: Option<&'a str>,
    pub(super) style: Style,
    pub(super) data: &'a T,
}

impl<T> Series<'_, T> {
    /// Its name on a picture of its own.
    pub(super) fn full_name(&self) -> String {
        match self.run {
            Some(run) => format!("{} · {run}", self.name),
            None => self.name.into(),
        }
    }
}

/// Series of several runs as they share a picture: what they show decides the colour and the form of points, the run
/// decides the pattern of the line; where all show the same, or there is one run, each series has all of its own.
pub(super) fn series<'a, T>(members: &[(&'a str, &'a [T])], name: impl Fn(&'a T) -> &'a str) -> Vec<Series<'a, T>> {
    let mut names: Vec<&str> = Vec::new();
    for item in members.iter().flat_map(|(_, items)| *items) {
        if !names.contains(&name(item)) {
            names.push(name(item));
        }
    }
    let mut all = Vec::new();
    for (number, (label, items)) in members.iter().enumerate() {
        for (place, data) in items.iter().enumerate() {
            let name = name(data);
            let known = names.iter().position(|known| *known == name).unwrap_or(0);
            let style = match (members.len(), names.len()) {
                (1, _) => Style::numbered(place),
                (_, 1) => Style::numbered(number),
                _ => Style { dash: number, ..Style::numbered(known) },
            };
            all.push(Series { name, run: (members.len() > 1).then_some(*label), style, data });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Distribution, Percentiles, Table};

    fn run(titles: &[&str]) -> Run {
        let mut run = Run::begin("load", "x");
        let panel = |title: &&str| Panel::Percentiles(Percentiles { title: (*title).into(), lines: Vec::new() });
        run.panels = titles.iter().map(panel).collect();
        run
    }

    #[test]
    fn panels_of_one_title_and_form_share_a_picture() {
        let (a, mut b) = (run(&["lookups", "buys", "buys"]), run(&["buys", "buys", "buys", "carts"]));
        b.panels.push(Panel::Table(Table { title: "lookups".into(), columns: Vec::new(), rows: Vec::new() }));
        let runs = [Labelled { label: "a", run: &a }, Labelled { label: "b", run: &b }];
        let groups = groups(&runs);
        let found: Vec<(&str, Vec<&str>)> =
            groups.iter().map(|group| (group.title, group.members.iter().map(|(label, _)| *label).collect())).collect();
        let expected = [
            ("lookups", vec!["a"]),
            ("buys", vec!["a", "b"]),
            ("buys", vec!["a", "b"]),
            ("buys", vec!["b"]),
            ("carts", vec!["b"]),
            ("lookups", vec!["b"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn another_experiment_s_panel_is_another_picture() {
        let (a, mut b) = (run(&["latency"]), run(&["latency"]));
        b.experiment = "cache".into();
        let runs = [Labelled { label: "a", run: &a }, Labelled { label: "b", run: &b }];
        assert_eq!(groups(&runs).len(), 2);
    }

    #[test]
    fn series_differ_in_colour_by_what_they_show_and_in_dashes_by_run() {
        let line = |name: &str| Distribution { name: name.into(), count: 0, points: Vec::new() };
        let (a, b) = ([line("buy"), line("cart")], [line("cart"), line("buy")]);
        let all = series(&[("a", &a[..]), ("b", &b[..])], |line| &line.name);
        let told: Vec<(String, usize, usize)> =
            all.iter().map(|series| (series.full_name(), series.style.hue, series.style.dash)).collect();
        let expected = [("buy · a", 0, 0), ("cart · a", 1, 0), ("cart · b", 1, 1), ("buy · b", 0, 1)];
        assert_eq!(told, expected.map(|(name, hue, dash)| (name.to_owned(), hue, dash)));
        let alone = series(&[("a", &a[..])], |line| &line.name);
        assert_eq!((alone[1].full_name(), alone[1].style), ("cart".into(), Style::numbered(1)));
        let same = series(&[("a", &a[..1]), ("b", &b[1..])], |line| &line.name);
        assert_eq!(same[1].style, Style::numbered(1), "runs of one line each");
    }

    #[test]
    fn no_two_of_the_first_24_styles_are_alike() {
        let drawn = |style: Style| (style.hue % 8, style.dash % 6, style.shape % 8);
        for a in 0..24 {
            for b in 0..a {
                let (a, b) = (drawn(Style::numbered(a)), drawn(Style::numbered(b)));
                assert!(a.0 != b.0 || (a.1 != b.1 && a.2 != b.2), "{a:?} {b:?}");
            }
        }
    }
}
