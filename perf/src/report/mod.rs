//! `pygmy-perf report`: draws what runs found, as one page that needs no other file and as pictures, and compares their
//! numbers. It knows no experiment: a run tells what it found in the forms of [`crate::run`].
//!
//! A panel becomes a [`scene`] of simple shapes, which is written as SVG and as PNG alike. The same runs give the same
//! bytes, on every machine: the font by which text is measured and drawn is this program's own.

mod axes;
pub mod baseline;
mod font;
mod group;
mod html;
mod legend;
mod lines;
mod marks;
mod page;
mod panels;
mod png;
pub(crate) mod quantity;
mod rows;
mod scale;
mod scene;
mod svg;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::baseline::Comparison;
use self::group::Labelled;
use self::html::plain;
use self::page::Page;
use self::panels::Figure;
use crate::error::Error;
use crate::run::{FILE, Run};

/// Longest part of a picture's file name that is taken from its title.
const SLUG_MAX: usize = 48;

/// Draws runs that were kept with --out: one HTML page, and a comparison of their numbers
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Directories of runs, or their files
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write
    #[arg(long, default_value = "report.html", value_name = "FILE.html")]
    out: PathBuf,
    /// A run whose numbers the others' are divided by
    #[arg(long, value_name = "RUN")]
    baseline: Option<PathBuf>,
    /// Write every picture here, too, as SVG and as PNG
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The page.
    pub page: PathBuf,
    /// The pictures.
    pub plots: Vec<PathBuf>,
    /// The numbers beside each other.
    pub comparison: Comparison,
}

/// Reads runs and draws them.
///
/// # Errors
/// When a run cannot be read or is none, or when something cannot be written.
pub fn run(args: &ReportArgs) -> Result<Report, Error> {
    let paths = paths(args)?;
    let runs = paths.iter().map(|path| Run::load(path)).collect::<Result<Vec<Run>, Error>>()?;
    let labels = labels(&paths);
    let labelled: Vec<Labelled<'_>> =
        runs.iter().zip(&labels).map(|(run, label)| Labelled { label: label.as_str(), run }).collect();
    let (baseline, others) = match args.baseline {
        Some(_) => (labelled.first().copied(), &labelled[1..]),
        None => (None, &labelled[..]),
    };
    let comparison = Comparison::of(baseline, others);
    let figures: Vec<Figure> = group::groups(&labelled).iter().map(panels::figure).collect();
    let html = Page { runs: &labelled, comparison: &comparison, figures: &figures }.html();
    write(&args.out, html.as_bytes())?;
    let plots = args.plots.as_ref().map_or_else(|| Ok(Vec::new()), |dir| write_plots(dir, &figures))?;
    Ok(Report { page: args.out.clone(), plots, comparison })
}

impl Report {
    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.comparison.is_empty() {
            self.comparison.print(out)?;
            writeln!(out)?;
        }
        writeln!(out, "page:   {}", plain(&self.page.display().to_string()))?;
        if let Some(dir) = self.plots.first().and_then(|path| path.parent()) {
            writeln!(out, "plots:  {} files in {}", self.plots.len(), plain(&dir.display().to_string()))?;
        }
        Ok(())
    }
}

/// The files of the runs, the baseline first; a run that is named twice is one.
fn paths(args: &ReportArgs) -> Result<Vec<PathBuf>, Error> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in args.baseline.iter().chain(&args.runs) {
        let file = if path.is_dir() { path.join(FILE) } else { path.clone() };
        let file = file.canonicalize().map_err(Error::io(file.display().to_string()))?;
        if !paths.contains(&file) {
            paths.push(file);
        }
    }
    if args.baseline.is_some() && paths.len() < 2 {
        return Err(Error::Usage("a run is compared with itself: name another beside the baseline".into()));
    }
    Ok(paths)
}

/// What runs are called: as much of the end of their directories' paths as tells them apart.
fn labels(paths: &[PathBuf]) -> Vec<String> {
    let words = |path: &PathBuf| -> Vec<String> {
        let is_usual = path.file_name().is_some_and(|name| name == FILE);
        let named =
            if is_usual { path.parent().map(Path::to_path_buf).unwrap_or_default() } else { path.with_extension("") };
        named.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = paths.iter().map(words).collect();
    let deepest = all.iter().map(Vec::len).max().unwrap_or(0);
    let ends = |count: usize| -> Vec<String> {
        all.iter().map(|words| words[words.len().saturating_sub(count)..].join("/")).collect()
    };
    let are_different = |labels: &Vec<String>| (1..labels.len()).all(|at| !labels[..at].contains(&labels[at]));
    (1..=deepest).map(ends).find(are_different).unwrap_or_else(|| ends(deepest))
}

/// Writes every picture as SVG and as PNG, numbered as on the page.
fn write_plots(dir: &Path, figures: &[Figure]) -> Result<Vec<PathBuf>, Error> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
    let mut written = Vec::new();
    for (at, figure) in figures.iter().enumerate() {
        for (part, scene) in figure.scenes.iter().enumerate() {
            let part = if figure.scenes.len() > 1 { format!("-{}", part + 1) } else { String::new() };
            let name = format!("{:02}{part}-{}", at + 1, slug(&figure.title));
            let scene = scene.titled();
            let (svg, png) = (dir.join(format!("{name}.svg")), dir.join(format!("{name}.png")));
            write(&svg, svg::file(&scene).as_bytes())?;
            let pixels = png::draw(&scene).ok_or_else(|| io::Error::other("the picture is too large"));
            write(&png, &pixels.map_err(Error::io(png.display().to_string()))?)?;
            written.extend([svg, png]);
        }
    }
    Ok(written)
}

/// A title as a part of a file's name.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.chars().take(SLUG_MAX) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').into()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(Error::io(path.display().to_string()))
}

#[cfg(test)]
mod tests;
