//! Standard output: tables for people, objects for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// Where results go.
#[derive(Debug)]
pub(super) struct Output {
    out: BufWriter<Stdout>,
    is_json: bool,
}

impl Output {
    pub(super) fn new(is_json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout()), is_json }
    }

    /// Whether objects are wanted instead of text.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// The stream itself, for what has a format of its own.
    pub(super) fn stream(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Columns of the terminal that results go to, if they go to one.
    pub(super) fn width(&self) -> Option<u16> {
        let out = io::stdout();
        if !out.is_terminal() {
            return None;
        }
        rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col).filter(|width| *width > 0)
    }

    /// Prints a line of text.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| Failure::writing("standard output", error))
    }

    /// Prints an object as a line of JSON.
    pub(super) fn object(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.out, value).map_err(io::Error::from);
        let written = written.and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| Failure::writing("standard output", error))
    }

    /// Everything has reached whoever reads it.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::writing("standard output", error))
    }
}

/// A table without frames, which can be read and cut up by other programs alike.
pub(super) struct Grid(Table);

impl Grid {
    /// A table with these columns; those whose name begins with `>` hold numbers and are aligned to the right.
    pub(super) fn new(columns: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
        for (index, name) in columns.iter().enumerate() {
            let Some(column) = table.column_mut(index) else { continue };
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        Self(table)
    }

    /// Appends a row. What a terminal would obey instead of showing it is shown as its code.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row = Row::from(cells.into_iter().map(|cell| shown(&cell)).collect::<Vec<_>>());
        row.max_height(1);
        self.0.add_row(row);
    }

    /// Cuts long texts, never numbers, so that each row fits on a line of a terminal with so many columns.
    pub(super) fn fit(&mut self, width: Option<u16>) {
        let Some(width) = width else { return };
        self.0.set_width(width).set_content_arrangement(ContentArrangement::Dynamic).set_truncation_indicator("…");
    }
}

/// A text whose control characters, and those that change the direction of writing, are replaced by their codes.
pub(super) fn shown(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_harmful(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

impl Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, line) in self.0.lines().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Cents as 20.00.
pub(super) fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Microseconds since 1970 as 2026-11-23 12:00:00 UTC.
pub(super) fn moment(time_us: u64) -> String {
    let seconds = time_us / 1_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day of the day number `days` after 1970-01-01. Years are counted from March, so that the leap day
/// is the last of its year and every month before it has the same length each year.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_two_decimals() {
        assert_eq!([money(0), money(5), money(2000), money(123_456)], ["0.00", "0.05", "20.00", "1234.56"]);
    }

    #[test]
    fn moments_are_dates() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399_000_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_782_400_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(moment(1_795_435_291_000_000), "2026-11-23 12:01:31 UTC");
        assert_eq!(moment(4_107_542_400_000_000), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_its_code() {
        assert_eq!(shown("a\u{202e}b\u{1b}[2Jé×"), "a\\u{202e}b\\u{1b}[2Jé×");
        let mut grid = Grid::new(&["title"]);
        grid.row(["a\u{2066}b\nc".to_owned()]);
        assert_eq!(grid.to_string(), "title\na\\u{2066}b\\u{a}c");
    }

    #[test]
    fn long_texts_are_cut_to_the_terminal_and_numbers_are_not() {
        let mut grid = Grid::new(&["book", "title", ">stock"]);
        grid.row(["abc".to_owned(), "A title that is far too long for this".to_owned(), "1234567".to_owned()]);
        grid.row(["abcdef".to_owned(), "Short".to_owned(), "7".to_owned()]);
        let whole = grid.to_string();
        assert!(whole.contains("far too long for this"), "{whole}");
        grid.fit(Some(40));
        let text = grid.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("…") && text.contains("1234567") && text.contains("abcdef"), "{text}");
    }

    #[test]
    fn a_grid_is_plain_text() {
        let mut grid = Grid::new(&["book", ">stock"]);
        grid.row(["a".to_owned(), "7".to_owned()]);
        grid.row(["abcdef".to_owned(), "1234567".to_owned()]);
        assert_eq!(grid.to_string(), "book      stock\na             7\nabcdef  1234567");
    }
}
