//! Writes book lists. What is written here, [`super::parse`] reads back as it was.

use std::io::{self, Write};

use serde::Serialize;

use super::Format;
use crate::message::{Book, NewBook};

/// A book as it is written: the values of a [`NewBook`], and for a [`Book`] also where it last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// Price of a copy, in cents.
    pub cost_cents: u64,
    /// Copies that can be bought.
    pub stock: u32,
    /// Position in the log of its last change; only JSON lines tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_seq: Option<u64>,
}

impl<'a> From<&'a Book> for Row<'a> {
    fn from(book: &'a Book) -> Self {
        Row {
            id: &book.id,
            title: &book.title,
            topic: &book.topic,
            cost_cents: book.cost_cents,
            stock: book.stock,
            changed_seq: Some(book.changed_seq),
        }
    }
}

impl<'a> From<&'a NewBook> for Row<'a> {
    fn from(book: &'a NewBook) -> Self {
        Row {
            id: &book.id,
            title: &book.title,
            topic: &book.topic,
            cost_cents: book.cost_cents,
            stock: book.stock,
            changed_seq: None,
        }
    }
}

/// Writes books one after the other.
///
/// ```
/// use pygmy_proto::inventory::{self, Format, Writer};
///
/// let mut out = Vec::new();
/// let mut writer = Writer::new(&mut out, Format::Csv)?;
/// for book in &inventory::builtin() {
///     writer.write(book)?;
/// }
/// writer.finish()?;
/// assert_eq!(inventory::parse(&out, Format::Csv).unwrap(), inventory::builtin());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer<W: Write>(Kind<W>);

#[derive(Debug)]
enum Kind<W: Write> {
    Csv(Box<csv::Writer<W>>),
    JsonLines(W),
}

impl<W: Write> Writer<W> {
    /// Begins a list. The CSV header is written even when no book follows.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for [`Format::Original`], whose costs have no cents; else what `out` reports.
    pub fn new(out: W, format: Format) -> io::Result<Self> {
        match format {
            Format::Original => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the original format has no cents and is not written; csv and jsonl are",
            )),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(["id", "title", "topic", "cost", "stock"]).map_err(into_io)?;
                Ok(Self(Kind::Csv(Box::new(writer))))
            }
            Format::JsonLines => Ok(Self(Kind::JsonLines(out))),
        }
    }

    /// Writes one book.
    ///
    /// # Errors
    /// What the output reports.
    pub fn write<'a>(&mut self, book: impl Into<Row<'a>>) -> io::Result<()> {
        let row = book.into();
        match &mut self.0 {
            Kind::Csv(writer) => {
                let (cost, stock) = (row.cost_cents.to_string(), row.stock.to_string());
                writer.write_record([row.id, row.title, row.topic, &cost, &stock]).map_err(into_io)
            }
            Kind::JsonLines(out) => {
                serde_json::to_writer(&mut *out, &row)?;
                out.write_all(b"\n")
            }
        }
    }

    /// Ends the list: everything has reached the output.
    ///
    /// # Errors
    /// What the output reports.
    pub fn finish(self) -> io::Result<()> {
        match self.0 {
            Kind::Csv(mut writer) => writer.flush(),
            Kind::JsonLines(mut out) => out.flush(),
        }
    }
}

/// The error of the output beneath, kept as it is: whoever writes to a pipe must see that it broke.
fn into_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
