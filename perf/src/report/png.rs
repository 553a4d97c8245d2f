//! A picture as PNG, on light paper and with twice as many pixels as it has units each way.

use tiny_skia::{FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Transform};
use ttf_parser::OutlineBuilder;

use super::font;
use super::scene::{Anchor, Ink, Item, Point, Scene, Stroke, WIDTH};

/// Pixels of a unit.
const SCALE: f32 = 2.0;

/// Draws a picture. `None` when it is too large for memory.
pub(super) fn draw(scene: &Scene) -> Option<Vec<u8>> {
    let pixels = |length: f64| (length as f32 * SCALE).ceil() as u32;
    let mut page = Pixmap::new(pixels(WIDTH), pixels(scene.height))?;
    page.fill(colour(Ink::Paper));
    scene.items.iter().for_each(|item| draw_item(&mut page, item));
    page.encode_png().ok()
}

fn draw_item(page: &mut Pixmap, item: &Item) {
    match item {
        Item::Path { points, stroke } => draw_path(page, points, stroke),
        Item::Rect { at, width, height, ink } => {
            let rect = Rect::from_xywh(at.0 as f32, at.1 as f32, *width as f32, *height as f32);
            if let Some(rect) = rect {
                page.fill_rect(rect, &paint(*ink), Transform::from_scale(SCALE, SCALE), None);
            }
        }
        Item::Dot { at, radius, shape, ink, .. } => {
            let outline = match shape.outline(*at, *radius) {
                None => PathBuilder::from_circle(at.0 as f32, at.1 as f32, *radius as f32),
                Some(outline) => polygon(&outline, true),
            };
            fill(page, outline, *ink);
        }
        Item::Text { at, text, size, ink, anchor, is_bold } => {
            fill(page, outline(*at, text, *size, *anchor, *is_bold), *ink);
        }
    }
}

fn draw_path(page: &mut Pixmap, points: &[Point], stroke: &Stroke) {
    let Some(path) = polygon(points, false) else { return };
    let pattern: Vec<f32> = stroke.pattern().iter().map(|length| *length as f32).collect();
    let dash = tiny_skia::StrokeDash::new(pattern, 0.0);
    let width = stroke.width as f32;
    let pen = tiny_skia::Stroke { width, dash, line_join: LineJoin::Round, ..tiny_skia::Stroke::default() };
    page.stroke_path(&path, &paint(stroke.ink), &pen, Transform::from_scale(SCALE, SCALE), None);
}

fn polygon(points: &[Point], is_closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (first, rest) = points.split_first()?;
    path.move_to(first.0 as f32, first.1 as f32);
    rest.iter().for_each(|(x, y)| path.line_to(*x as f32, *y as f32));
    if is_closed {
        path.close();
    }
    path.finish()
}

fn fill(page: &mut Pixmap, path: Option<Path>, ink: Ink) {
    if let Some(path) = path {
        page.fill_path(&path, &paint(ink), FillRule::Winding, Transform::from_scale(SCALE, SCALE), None);
    }
}

/// The characters' outlines. Those that the font does not have leave their room empty.
fn outline(at: Point, text: &str, size: f64, anchor: Anchor, is_bold: bool) -> Option<Path> {
    let face = font::face(is_bold)?;
    let steps: Vec<_> = font::steps(text, size, is_bold).collect();
    let width: f64 = steps.iter().map(|(_, advance)| advance).sum();
    let mut x = at.0
        - width
            * if anchor == Anchor::Start {
                0.0
            } else if anchor == Anchor::Middle {
                0.5
            } else {
                1.0
            };
    let scale = (size / f64::from(face.units_per_em())) as f32;
    let mut pen = Pen { path: PathBuilder::new(), scale, x: 0.0, y: at.1 as f32 };
    for (glyph, advance) in steps {
        pen.x = x as f32;
        if let Some(glyph) = glyph {
            face.outline_glyph(glyph, &mut pen);
        }
        x += advance;
    }
    pen.path.finish()
}

/// Takes outlines from the font, whose `y` grows upwards, to their place on the page.
struct Pen {
    path: PathBuilder,
    scale: f32,
    x: f32,
    y: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, self.y - y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

fn paint(ink: Ink) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(colour(ink));
    paint
}

/// The light colour of an ink, from its six hexadecimal digits.
fn colour(ink: Ink) -> tiny_skia::Color {
    let digits = u32::from_str_radix(ink.colours().0.trim_start_matches('#'), 16).unwrap_or(0);
    let [_, red, green, blue] = digits.to_be_bytes();
    tiny_skia::Color::from_rgba8(red, green, blue, 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_where_it_is_meant_to_stand() {
        let mut scene = Scene::new("t", "d");
        scene.height = 40.0;
        scene.text((100.0, 30.0), "MMM", Ink::Text, Anchor::End);
        let page = Pixmap::decode_png(&draw(&scene).unwrap()).unwrap();
        assert_eq!((page.width(), page.height()), (1_880, 80));
        let dark = |x: u32, y: u32| page.pixel(x, y).unwrap().red() < 128;
        let columns: Vec<u32> = (0..page.width()).filter(|x| (0..80).any(|y| dark(*x, y))).collect();
        let width = font::width("MMM", 12.0) * 2.0;
        let (first, last) = (f64::from(columns[0]), f64::from(*columns.last().unwrap()));
        assert!(last < 200.0 && last > 192.0 && (last - first - width).abs() < 8.0, "{first} {last} {width}");
    }
}
