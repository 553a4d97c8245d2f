//! Words from elsewhere, made harmless.

/// What is shown for a character that must not be.
const REPLACED: char = '\u{fffd}';

/// A text without characters that steer what reads it: a terminal's escape sequences, what XML cannot hold, what turns
/// the direction of writing.
pub(super) fn plain(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => REPLACED,
        c if c.is_control() => REPLACED,
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// A text as it may stand between tags and within quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_written_can_be_a_tag_or_steer_a_terminal() {
        assert_eq!(escape("<a href=\"x\" b='y'>&"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
        assert_eq!(plain("a\u{1b}[31m\n\u{0}\u{202e}b\u{ffff}"), "a\u{fffd}[31m \u{fffd}\u{fffd}b\u{fffd}");
        assert_eq!(escape("für 10 µs"), "für 10 µs");
    }
}
