//! Words and numbers in rows.

use super::{Figure, Grid, number, word};
use crate::report::html::plain;
use crate::report::quantity::full;
use crate::run::{Cell, Table};

pub(super) fn fill(figure: &mut Figure, members: &[(&str, &Table)]) {
    for (label, panel) in members {
        let columns: Vec<String> = panel.columns.iter().map(|column| plain(column)).collect();
        let cell = |cell: &Cell| match cell {
            Cell::Value { value, unit } => number(full(*value, *unit)),
            Cell::Text(text) => word(plain(text)),
        };
        let rows = panel.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let caption = if members.len() > 1 { plain(label) } else { String::new() };
        figure.grids.push(Grid { caption, columns, rows });
    }
}
