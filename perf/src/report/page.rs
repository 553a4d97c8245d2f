//! The page: one file that needs no other and runs no script.

use std::fmt::Write;

use super::baseline::{Comparison, Row};
use super::group::Labelled;
use super::html::escape;
use super::panels::{Figure, Grid};
use super::{quantity, svg};
use crate::run::{Better, Run, Unit};

const STYLE: &str = include_str!("page.css");

/// What stands on the page.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Every run, the baseline first if there is one.
    pub(super) runs: &'a [Labelled<'a>],
    pub(super) comparison: &'a Comparison,
    pub(super) figures: &'a [Figure],
}

impl Page<'_> {
    /// The page's text.
    pub(super) fn html(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let title = escape(&self.title());
        let dark = svg::rules(|ink| ink.colours().1);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}@media screen and (prefers-color-scheme:dark){{{dark}}}\n</style>\n</head>\n<body>\n\
             <header>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n</header>\n",
            escape(&self.lead())
        );
        self.warnings(out);
        self.contents(out);
        out.push_str("<main>\n");
        self.overview(out);
        self.numbers(out);
        for (at, figure) in self.figures.iter().enumerate() {
            draw(out, figure, at + 1, self.is_mixed());
        }
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(
            out,
            "</main>\n<footer><p>Drawn by pygmy-perf {version}. Figures belong to the machine and the moment they were \
             taken on.</p></footer>\n</body>\n</html>\n"
        );
    }

    fn title(&self) -> String {
        match self.runs {
            [one] => format!("{}: {}", one.run.experiment, one.run.title),
            runs if self.is_mixed() => format!("{} runs of Pygmy", runs.len()),
            runs => format!("{}: {} runs", runs.first().map_or("", |one| one.run.experiment.as_str()), runs.len()),
        }
    }

    fn lead(&self) -> String {
        let moments = || self.runs.iter().map(|one| one.run.started_unix_ms);
        let first = quantity::moment(moments().min().unwrap_or(0));
        let last = quantity::moment(moments().max().unwrap_or(0));
        if first == last { format!("Measured {first}.") } else { format!("Measured from {first} to {last}.") }
    }

    fn is_mixed(&self) -> bool {
        self.runs.windows(2).any(|pair| pair[0].run.experiment != pair[1].run.experiment)
    }

    fn warnings(&self, out: &mut String) {
        for one in self.runs.iter().filter(|one| one.run.debug_build) {
            let label = escape(one.label);
            let _ = writeln!(
                out,
                "<p class=\"warning\"><strong>{label} was measured by a debug build:</strong> its figures measure the \
                 compiler's mood, not the store.</p>"
            );
        }
        let machine = |run: &Run| (run.machine.cpu.clone(), run.machine.cpus, run.machine.memory);
        if self.runs.windows(2).any(|pair| machine(pair[0].run) != machine(pair[1].run)) {
            out.push_str("<p class=\"warning\"><strong>These runs are of different machines.</strong></p>\n");
        }
    }

    fn contents(&self, out: &mut String) {
        if self.figures.len() < 3 {
            return;
        }
        out.push_str("<nav aria-label=\"Figures\">\n<ol>\n");
        for (at, figure) in self.figures.iter().enumerate() {
            let _ = writeln!(out, "<li><a href=\"#figure-{}\">{}</a></li>", at + 1, escape(&figure.title));
        }
        out.push_str("</ol>\n</nav>\n");
    }

    fn overview(&self, out: &mut String) {
        out.push_str("<h2>Runs</h2>\n<div class=\"wide\">\n<table>\n<thead><tr>");
        for head in ["run", "experiment", "what", "started", "machine"] {
            let _ = write!(out, "<th scope=\"col\">{head}</th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (at, Labelled { label, run }) in self.runs.iter().enumerate() {
            let is_baseline = at == 0 && self.comparison.baseline.is_some();
            let role = if is_baseline { " <span class=\"kind\">baseline</span>" } else { "" };
            let words = [&run.experiment, &run.title, &quantity::moment(run.started_unix_ms), &machine(run)];
            let cells: String = words.into_iter().map(|text| format!("<td>{}</td>", escape(text))).collect();
            let _ = writeln!(out, "<tr><th scope=\"row\">{}{role}</th>{cells}</tr>", escape(label));
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
        for Labelled { label, run } in self.runs {
            let (label, command) = (escape(label), escape(&command(run)));
            let _ = writeln!(out, "<p class=\"notes\">{label}: <code>{command}</code></p>");
            if !run.notes.is_empty() {
                let notes: String = run.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
                let _ = writeln!(out, "<ul class=\"notes\">{notes}</ul>");
            }
        }
    }

    fn numbers(&self, out: &mut String) {
        if self.comparison.is_empty() {
            return;
        }
        let has_baseline = self.comparison.baseline.is_some();
        let heading = if has_baseline { "Numbers, and ratios to the baseline" } else { "Numbers" };
        let _ = write!(out, "<h2 id=\"numbers\">{heading}</h2>\n<div class=\"wide\">\n<table>\n<thead><tr>");
        for (at, head) in self.comparison.heads().iter().enumerate() {
            let class = if at == 0 { "" } else { " class=\"n\"" };
            let _ = write!(out, "<th scope=\"col\"{class}>{}</th>", escape(head));
        }
        out.push_str("<th scope=\"col\">better is</th></tr></thead>\n<tbody>\n");
        for row in &self.comparison.rows {
            self.number(out, row, has_baseline);
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
        if has_baseline {
            out.push_str(
                "<p class=\"reading\">A ratio is the run's number divided by the baseline's; within half a percent it is \
                 called the same. One run against one says nothing about chance: repeat both.</p>\n",
            );
        }
    }

    fn number(&self, out: &mut String, row: &Row, has_baseline: bool) {
        out.push_str("<tr>");
        let before_ratios = usize::from(has_baseline) + 1;
        for (at, cell) in self.comparison.cells(row).iter().enumerate() {
            if at == 0 {
                let _ = write!(out, "<th scope=\"row\">{}</th>", escape(cell));
                continue;
            }
            // Behind the baseline's cell, each run has two: its number and the ratio.
            let is_ratio = has_baseline && at > 1 && (at - before_ratios) % 2 == 1;
            let found = is_ratio.then(|| row.found[(at - before_ratios) / 2]).flatten();
            let class = found.map_or(String::new(), |found| format!(" {}", found.verdict.word()));
            let _ = write!(out, "<td class=\"n{class}\">{}</td>", escape(cell));
        }
        let better = match row.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
            Better::Neither => "–",
        };
        let _ = writeln!(out, "<td>{better}</td></tr>");
    }
}

fn draw(out: &mut String, figure: &Figure, number: usize, is_mixed: bool) {
    let kind =
        if is_mixed { format!("<span class=\"kind\">{}</span>", escape(&figure.experiment)) } else { String::new() };
    let _ = writeln!(out, "<section id=\"figure-{number}\">\n<h2>{}{kind}</h2>", escape(&figure.title));
    if !figure.scenes.is_empty() {
        out.push_str("<figure>\n");
        for (at, scene) in figure.scenes.iter().enumerate() {
            if figure.scenes.len() > 1 {
                let _ = writeln!(out, "<p><strong>{}</strong></p>", escape(&scene.title));
            }
            let picture = svg::inline(scene, &format!("figure-{number}-{}", at + 1));
            let _ = write!(out, "<div class=\"wide\">\n{picture}</div>\n");
        }
        let _ = writeln!(out, "<figcaption class=\"reading\">{}</figcaption>\n</figure>", escape(&figure.reading));
    }
    let rows: usize = figure.grids.iter().map(|grid| grid.rows.len()).sum();
    // Beneath a picture its numbers are for whoever asks; a table that is all there is stands open.
    let is_folded = !figure.scenes.is_empty();
    if is_folded && rows == 0 {
        out.push_str("</section>\n");
        return;
    }
    if is_folded {
        out.push_str("<details>\n<summary>The numbers</summary>\n");
    }
    figure.grids.iter().for_each(|grid| table(out, grid));
    if is_folded {
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
}

fn table(out: &mut String, grid: &Grid) {
    out.push_str("<div class=\"wide\">\n<table>\n");
    if !grid.caption.is_empty() {
        let _ = writeln!(out, "<caption>{}</caption>", escape(&grid.caption));
    }
    // A column is one of numbers where its first cell is.
    let class = |column: usize| {
        let is_number = grid.rows.first().and_then(|row| row.get(column)).is_some_and(|(_, is_number)| *is_number);
        if is_number { " class=\"n\"" } else { "" }
    };
    out.push_str("<thead><tr>");
    for (column, head) in grid.columns.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(column), escape(head));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &grid.rows {
        out.push_str("<tr>");
        for (column, (text, is_number)) in row.iter().enumerate() {
            let class = if *is_number { " class=\"n\"" } else { "" };
            let text = escape(text);
            let _ = match column {
                0 => write!(out, "<th scope=\"row\"{class}>{text}</th>"),
                _ => write!(out, "<td{class}>{text}</td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let cpu = if machine.cpu.is_empty() { "unknown processor" } else { &machine.cpu };
    let memory = quantity::short(machine.memory as f64, Unit::Bytes);
    format!("{} × {cpu}, {memory}, {}, load average {}", machine.cpus, machine.kernel, machine.load_average)
}

/// A command as a shell would take it.
fn command(run: &Run) -> String {
    let is_bare =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_=+:,./@%".contains(c));
    let quoted = |word: &String| {
        if is_bare(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    run.command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied_to_a_shell() {
        let mut run = Run::begin("load", "x");
        run.command = ["pygmy-perf", "load", "--mix", "a b", "it's", ""].map(String::from).to_vec();
        assert_eq!(command(&run), r"pygmy-perf load --mix 'a b' 'it'\''s' ''");
    }
}
