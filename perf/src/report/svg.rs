//! A picture as SVG: within a page, whose style sheet knows the inks, or as a file of its own.

use std::fmt::Write;

use super::html::escape;
use super::scene::{Anchor, Ink, Item, Point, Scene, Stroke, WIDTH};

/// Fonts of a picture's text: whatever the reader's machine reads best.
const FONTS: &str = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif";

/// As a part of a page. `id` is this picture's own on the page.
pub(super) fn inline(scene: &Scene, id: &str) -> String {
    let mut out = String::new();
    open(&mut out, scene, id, "");
    shapes(&mut out, scene);
    out.push_str("</svg>\n");
    out
}

/// As a file.
pub(super) fn file(scene: &Scene) -> String {
    let mut out = String::new();
    open(&mut out, scene, "plot", " xmlns=\"http://www.w3.org/2000/svg\"");
    let _ = write!(out, "<style>@media (prefers-color-scheme:dark){{{}}}</style>", rules(|ink| ink.colours().1));
    let paper = Item::Rect { at: (0.0, 0.0), width: WIDTH, height: scene.height, ink: Ink::Paper };
    shape(&mut out, &paper);
    shapes(&mut out, scene);
    out.push_str("</svg>\n");
    out
}

/// The style rules that give each ink a colour.
pub(super) fn rules(colour: impl Fn(Ink) -> &'static str) -> String {
    let rule = |ink: Ink| {
        let (name, colour) = (ink.name(), colour(ink));
        format!(".f-{name}{{fill:{colour}}}.s-{name}{{stroke:{colour}}}")
    };
    Ink::all().map(rule).collect()
}

fn open(out: &mut String, scene: &Scene, id: &str, namespace: &str) {
    let (title, description) = (escape(&scene.title), escape(&scene.description));
    let (width, height) = (number(WIDTH), number(scene.height));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg{namespace} viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-labelledby=\"{id}-title {id}-desc\" font-family=\"{FONTS}\">\
         <title id=\"{id}-title\">{title}</title><desc id=\"{id}-desc\">{description}</desc>"
    );
}

fn shapes(out: &mut String, scene: &Scene) {
    scene.items.iter().for_each(|item| shape(out, item));
}

fn shape(out: &mut String, item: &Item) {
    let _ = match item {
        Item::Path { points, stroke } => {
            let places = path(points);
            writeln!(out, "<path d=\"{places}\" fill=\"none\" {}/>", stroke_attributes(stroke))
        }
        Item::Rect { at, width, height, ink } => {
            let (x, y) = (number(at.0), number(at.1));
            let (width, height) = (number(*width), number(*height));
            writeln!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {}/>", fill(*ink))
        }
        Item::Dot { at, radius, shape, ink, words } => {
            let words = if words.is_empty() { String::new() } else { format!("<title>{}</title>", escape(words)) };
            match shape.outline(*at, *radius) {
                None => {
                    let (x, y, r) = (number(at.0), number(at.1), number(*radius));
                    let fill = fill(*ink);
                    writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" {fill}>{words}</circle>")
                }
                Some(outline) => {
                    writeln!(out, "<path d=\"{}Z\" {}>{words}</path>", path(&outline), fill(*ink))
                }
            }
        }
        Item::Text { at, text, size, ink, anchor, is_bold } => {
            let (x, y, size) = (number(at.0), number(at.1), number(*size));
            let weight = if *is_bold { " font-weight=\"600\"" } else { "" };
            let anchor = match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            };
            let (fill, text) = (fill(*ink), escape(text));
            writeln!(out, "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{anchor}{weight} {fill}>{text}</text>")
        }
    };
}

/// The light colour as an attribute, over which a style sheet's rule for the class prevails.
fn fill(ink: Ink) -> String {
    format!("class=\"f-{}\" fill=\"{}\"", ink.name(), ink.colours().0)
}

fn stroke_attributes(stroke: &Stroke) -> String {
    let (name, colour) = (stroke.ink.name(), stroke.ink.colours().0);
    let mut text = format!(
        "class=\"s-{name}\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
        number(stroke.width)
    );
    let pattern: Vec<String> = stroke.pattern().iter().copied().map(number).collect();
    if !pattern.is_empty() {
        let _ = write!(text, " stroke-dasharray=\"{}\"", pattern.join(" "));
    }
    text
}

fn path(points: &[Point]) -> String {
    let mut text = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let _ = write!(text, "{letter}{} {}", number(*x), number(*y));
    }
    text
}

/// A tenth of a pixel is finer than anybody sees.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".into(),
        Some(whole) => whole.into(),
        None => text,
    }
}
