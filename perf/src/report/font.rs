//! How wide text is, and the outlines of its characters: by a font that this program carries, so that a picture is the
//! same on every machine. It is a wide one: in a browser's own font, texts need less room than they are given.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId};

static REGULAR: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(dejavu::sans::regular(), 0).ok());
static BOLD: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(dejavu::sans::bold(), 0).ok());

/// Width of a character that the font does not have, in parts of its size.
const UNKNOWN_WIDTH: f64 = 1.0;

/// The font in which text is drawn.
pub(super) fn face(is_bold: bool) -> Option<&'static Face<'static>> {
    if is_bold { BOLD.as_ref() } else { REGULAR.as_ref() }
}

/// Each character's place in the font, and how far behind it the next begins.
pub(super) fn steps(text: &str, size: f64, is_bold: bool) -> impl Iterator<Item = (Option<GlyphId>, f64)> {
    let face = face(is_bold);
    text.chars().map(move |c| {
        let glyph = face.and_then(|face| face.glyph_index(c));
        let advance = face.zip(glyph).and_then(|(face, glyph)| {
            let units = f64::from(face.glyph_hor_advance(glyph)?);
            Some(units / f64::from(face.units_per_em()))
        });
        (glyph, size * advance.unwrap_or(UNKNOWN_WIDTH))
    })
}

/// Width of a text.
pub(super) fn width(text: &str, size: f64) -> f64 {
    steps(text, size, false).map(|(_, advance)| advance).sum()
}

/// As much of a text as has room, with dots where some is missing.
pub(super) fn cut(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.into();
    }
    let room = room - width("…", size);
    let mut used = 0.0;
    let fits = steps(text, size, false).take_while(|(_, advance)| {
        used += advance;
        used <= room
    });
    let kept: String = text.chars().take(fits.count()).collect();
    format!("{}…", kept.trim_end())
}

/// A text in lines, broken between words where that can be done (no-break spaces are none); the last is cut when there
/// are too many.
pub(super) fn wrap(text: &str, size: f64, room: f64, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut rest: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    rest.reverse();
    while !rest.is_empty() && lines.len() + 1 < lines_max {
        let mut line = String::new();
        while let Some(word) = rest.last() {
            let longer = if line.is_empty() { (*word).to_owned() } else { format!("{line} {word}") };
            if width(&longer, size) > room {
                break;
            }
            line = longer;
            rest.pop();
        }
        if line.is_empty() && !split_word(&mut rest, &mut line, size, room) {
            break;
        }
        lines.push(line);
    }
    if !rest.is_empty() {
        rest.reverse();
        lines.push(cut(&rest.join(" "), size, room));
    }
    lines
}

/// Takes from a word that is longer than a line as much as fits. False when not even a character does.
fn split_word<'a>(rest: &mut Vec<&'a str>, line: &mut String, size: f64, room: f64) -> bool {
    let Some(word) = rest.pop() else { return false };
    let mut used = 0.0;
    let fits = steps(word, size, false).take_while(|(_, advance)| {
        used += advance;
        used <= room
    });
    let at = word.char_indices().nth(fits.count()).map_or(word.len(), |(at, _)| at);
    let (head, tail): (&'a str, &'a str) = word.split_at(at);
    *line = head.into();
    rest.extend((!tail.is_empty()).then_some(tail));
    !head.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_is_there_and_has_what_pictures_need() {
        for is_bold in [false, true] {
            let face = face(is_bold).unwrap();
            assert!("aZ09 …·×%µ–".chars().all(|c| face.glyph_index(c).is_some()));
        }
        assert!(width("WW", 12.0) > width("ii", 12.0));
        assert!((width("ab", 24.0) - 2.0 * width("ab", 12.0)).abs() < 1e-9);
    }

    #[test]
    fn text_is_broken_between_words_and_no_line_is_too_long() {
        let text = "replicate and sync on a majority of catalogs";
        let lines = wrap(text, 12.0, 120.0, 9);
        assert_eq!(lines.join(" "), text);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 12.0) <= 120.0), "{lines:?}");
    }

    #[test]
    fn what_has_no_room_is_cut_and_seen_to_be() {
        let lines = wrap("one two three four five six seven", 12.0, 60.0, 2);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with('…') && lines.iter().all(|line| width(line, 12.0) <= 60.0), "{lines:?}");
        let word = "m".repeat(100);
        let lines = wrap(&word, 12.0, 60.0, 3);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| width(line, 12.0) <= 60.0), "{lines:?}");
        assert_eq!(wrap(&word, 12.0, 60.0, 99).concat(), word);
        assert_eq!(wrap("", 12.0, 60.0, 3), [""; 0]);
        assert_eq!(wrap("wide", 12.0, 1.0, 3).len(), 1);
    }
}
