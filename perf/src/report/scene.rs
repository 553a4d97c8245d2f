//! A picture as a list of simple shapes, which [`super::svg`] and [`super::png`] draw alike.

/// Width of every picture; its height is what it needs.
pub(super) const WIDTH: f64 = 940.0;
/// Room at a picture's edge.
pub(super) const EDGE: f64 = 14.0;
/// Size of most text.
pub(super) const SIZE: f64 = 12.0;
/// Size of what is said beside.
pub(super) const SMALL: f64 = 11.0;
/// From one line of text to the next.
pub(super) const LEADING: f64 = 15.0;

/// A place, to the right and downwards.
pub(super) type Point = (f64, f64);

/// What a shape is drawn in; which colour that is depends on the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Words.
    Text,
    /// Words that are said beside, and axes.
    Muted,
    /// Lines that only guide the eye.
    Grid,
    /// The background.
    Paper,
    /// What was done to the cluster.
    Mark,
    /// A while during which something was done to it.
    Band,
    /// One of the colours that tell series apart, none of which has to.
    Hue(usize),
}

/// Which colours there are: on light paper, and on dark.
const HUES: [(&str, &str); 8] = [
    ("#1259a8", "#7ab8ff"),
    ("#b5480b", "#ffa76b"),
    ("#17734a", "#66d19e"),
    ("#7a3fb0", "#cba4f7"),
    ("#a81f4c", "#ff8fae"),
    ("#5f5b12", "#d3cb5c"),
    ("#0f6f7d", "#5fd0e0"),
    ("#5a5f6b", "#b4bac6"),
];

impl Ink {
    /// Every ink, each once.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let named = [Self::Text, Self::Muted, Self::Grid, Self::Paper, Self::Mark, Self::Band];
        named.into_iter().chain((0..HUES.len()).map(Self::Hue))
    }

    /// Its name in style sheets.
    pub(super) fn name(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Muted => "muted".into(),
            Self::Grid => "grid".into(),
            Self::Paper => "paper".into(),
            Self::Mark => "mark".into(),
            Self::Band => "band".into(),
            Self::Hue(hue) => format!("hue{}", hue % HUES.len()),
        }
    }

    /// Its colour on light paper, and on dark.
    pub(super) fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Text => ("#1b1f27", "#e6e8ec"),
            Self::Muted => ("#565d6a", "#a3abb8"),
            Self::Grid => ("#dfe2e8", "#333945"),
            Self::Paper => ("#ffffff", "#14171d"),
            Self::Mark => ("#8f1d1d", "#ff9c94"),
            Self::Band => ("#f6e3e1", "#43272a"),
            Self::Hue(hue) => HUES[hue % HUES.len()],
        }
    }
}

/// Lengths of strokes and gaps; an empty pattern is a full line.
const DASHES: [&[f64]; 6] =
    [&[], &[7.0, 3.5], &[2.0, 2.5], &[10.0, 3.0, 2.0, 3.0], &[14.0, 4.0], &[6.0, 2.0, 1.5, 2.0, 1.5, 2.0]];

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stroke {
    pub(super) ink: Ink,
    pub(super) width: f64,
    dash: usize,
}

impl Stroke {
    /// A full line.
    pub(super) fn full(ink: Ink, width: f64) -> Self {
        Self { ink, width, dash: 0 }
    }

    /// One in the pattern of that number.
    pub(super) fn dashed(ink: Ink, width: f64, dash: usize) -> Self {
        Self { ink, width, dash: dash % DASHES.len() }
    }

    /// Lengths of strokes and gaps; nothing for a full line.
    pub(super) fn pattern(&self) -> &'static [f64] {
        DASHES[self.dash]
    }
}

/// The form of a point; eight that can be told apart when they are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape(pub(super) usize);

impl Shape {
    /// Its outline around a place, closed; `None` for a disc.
    pub(super) fn outline(self, (x, y): Point, radius: f64) -> Option<Vec<Point>> {
        let around = |corners: &[Point]| corners.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect();
        let cross = [
            (-1.1, -0.4),
            (-0.4, -0.4),
            (-0.4, -1.1),
            (0.4, -1.1),
            (0.4, -0.4),
            (1.1, -0.4),
            (1.1, 0.4),
            (0.4, 0.4),
            (0.4, 1.1),
            (-0.4, 1.1),
            (-0.4, 0.4),
            (-1.1, 0.4),
        ];
        let turned = cross.map(|(dx, dy): Point| ((dx - dy) * 0.72, (dx + dy) * 0.72));
        Some(match self.0 % 8 {
            0 => return None,
            1 => around(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => around(&[(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)]),
            3 => around(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            4 => around(&cross),
            5 => around(&[(0.0, 1.2), (1.15, -0.85), (-1.15, -0.85)]),
            6 => around(&turned),
            _ => around(&[(-1.3, -0.6), (1.3, -0.6), (1.3, 0.6), (-1.3, 0.6)]),
        })
    }
}

/// Which side of a text its place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// Points joined by straight lines.
    Path { points: Vec<Point>, stroke: Stroke },
    /// A filled rectangle.
    Rect { at: Point, width: f64, height: f64, ink: Ink },
    /// A point of a series; the words are shown when it is pointed at.
    Dot { at: Point, radius: f64, shape: Shape, ink: Ink, words: String },
    /// One line of text whose foot is at a place.
    Text { at: Point, text: String, size: f64, ink: Ink, anchor: Anchor, is_bold: bool },
}

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    /// What it shows.
    pub(super) title: String,
    /// The same in words, for whoever does not see it.
    pub(super) description: String,
    pub(super) height: f64,
    pub(super) items: Vec<Item>,
}

impl Scene {
    /// An empty one.
    pub(super) fn new(title: impl Into<String>, description: impl Into<String>) -> Self {
        Self { title: title.into(), description: description.into(), height: 0.0, items: Vec::new() }
    }

    /// Adds a straight line.
    pub(super) fn line(&mut self, from: Point, to: Point, stroke: Stroke) {
        self.path(vec![from, to], stroke);
    }

    /// Adds points joined by straight lines.
    pub(super) fn path(&mut self, points: Vec<Point>, stroke: Stroke) {
        self.items.push(Item::Path { points, stroke });
    }

    /// Adds a filled rectangle.
    pub(super) fn rect(&mut self, at: Point, width: f64, height: f64, ink: Ink) {
        self.items.push(Item::Rect { at, width, height, ink });
    }

    /// Adds text of the usual size.
    pub(super) fn text(&mut self, at: Point, text: impl Into<String>, ink: Ink, anchor: Anchor) {
        self.sized(at, text, SIZE, ink, anchor);
    }

    /// Adds text of a size.
    pub(super) fn sized(&mut self, at: Point, text: impl Into<String>, size: f64, ink: Ink, anchor: Anchor) {
        self.items.push(Item::Text { at, text: text.into(), size, ink, anchor, is_bold: false });
    }

    /// Adds bold text.
    pub(super) fn bold(&mut self, at: Point, text: impl Into<String>, size: f64, anchor: Anchor) {
        self.items.push(Item::Text { at, text: text.into(), size, ink: Ink::Text, anchor, is_bold: true });
    }

    /// The same beneath its title, to stand alone.
    pub(super) fn titled(&self) -> Self {
        const HEADING: f64 = 15.0;
        let lines = super::font::wrap(&self.title, HEADING, WIDTH - 2.0 * EDGE, 2);
        let down = EDGE + 21.0 * lines.len() as f64;
        let mut scene = Self { height: self.height + down, items: Vec::new(), ..self.clone() };
        for (row, line) in lines.into_iter().enumerate() {
            scene.bold((EDGE, EDGE + HEADING + 20.0 * row as f64), line, HEADING, Anchor::Start);
        }
        scene.items.extend(self.items.iter().cloned().map(|item| item.moved(down)));
        scene
    }
}

impl Item {
    fn moved(mut self, down: f64) -> Self {
        match &mut self {
            Self::Path { points, .. } => points.iter_mut().for_each(|(_, y)| *y += down),
            Self::Rect { at, .. } | Self::Dot { at, .. } | Self::Text { at, .. } => at.1 += down,
        }
        self
    }
}
