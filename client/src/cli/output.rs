//! Standard output: tables for people, objects for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use comfy_table::{CellAlignment, Table, presets};
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
    pub(super) fn flush(mut self) -> Result<(), Failure> {
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
            }
        }
        Self(table)
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }
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
    fn a_grid_is_plain_text() {
        let mut grid = Grid::new(&["book", ">stock"]);
        grid.row(["a".to_owned(), "7".to_owned()]);
        grid.row(["abcdef".to_owned(), "1234567".to_owned()]);
        assert_eq!(grid.to_string(), "book      stock\na             7\nabcdef  1234567");
    }
}
