//! The format of the original store.

use super::error::{Fault, Field, Problem};
use super::{List, Texts, number};

const CENTS_PER_UNIT: u64 = 100;
/// No book takes fewer bytes: five lines of at least one character.
const BOOK_BYTES_MIN: usize = 10;

/// A line without the blanks at its ends, and where it begins.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    offset: usize,
}

/// The lines of `text`. Its last line break, if any, begins no further line.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut offset = 0;
    text.split_inclusive('\n').map(move |raw| {
        let text = raw.trim();
        let line = Line { text, offset: offset + (raw.len() - raw.trim_start().len()) * usize::from(!text.is_empty()) };
        offset += raw.len();
        line
    })
}

pub(super) fn parse(text: &str) -> Result<List, Fault> {
    let mut lines = lines(text);
    let count = lines.next().unwrap_or(Line { text: "", offset: 0 });
    let claimed =
        number(Field::Count, count.text, u64::MAX).map_err(|(_, problem)| Fault { offset: count.offset, problem })?;
    let mut list = List::default();
    let likely = usize::try_from(claimed).unwrap_or(usize::MAX).min(text.len() / BOOK_BYTES_MIN);
    list.books.reserve_exact(likely);
    list.id_offsets.reserve_exact(likely);
    for found in 0..claimed {
        let Some(book) = next_book(&mut lines) else {
            return Err(Fault { offset: text.len(), problem: Problem::Count { claimed, found } });
        };
        push(&mut list, book)?;
    }
    Ok(list)
}

/// The next five lines, or `None` when there are fewer.
fn next_book<'a>(lines: &mut impl Iterator<Item = Line<'a>>) -> Option<[Line<'a>; 5]> {
    Some([lines.next()?, lines.next()?, lines.next()?, lines.next()?, lines.next()?])
}

fn push(list: &mut List, [title, topic, id, cost, stock]: [Line<'_>; 5]) -> Result<(), Fault> {
    let texts = Texts { id: id.text, title: title.text, topic: topic.text, cost: cost.text, stock: stock.text };
    let book = texts.book(CENTS_PER_UNIT).map_err(|(field, problem)| {
        let line = match field {
            Field::Id => id,
            Field::Title | Field::Count => title,
            Field::Topic => topic,
            Field::Cost => cost,
            Field::Stock => stock,
        };
        Fault { offset: line.offset, problem }
    })?;
    list.push(book, id.offset);
    Ok(())
}
