//! One JSON object a line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::error::{Fault, Field, Problem};
use super::{List, book};
use crate::limits::COST_CENTS_MAX;

/// A line's object. Every field is optional here, so that a missing one is named in the same words as everywhere.
#[derive(serde::Deserialize)]
struct Object {
    id: Option<String>,
    title: Option<String>,
    topic: Option<String>,
    cost_cents: Option<Number>,
    stock: Option<Number>,
}

/// What stands where a number should.
enum Number {
    Whole(u64),
    Negative(String),
    TooLarge(String),
    Other(String),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number::Whole(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number::Negative(value.to_string()))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                Ok(if value < 0.0 {
                    Number::Negative(value.to_string())
                } else if value >= u64::MAX as f64 {
                    Number::TooLarge(value.to_string())
                } else {
                    Number::Other(value.to_string())
                })
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Number, E> {
                Ok(Number::Other(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Number {
    fn up_to(self, max: u64, field: Field) -> Result<u64, (Field, Problem)> {
        Err(match self {
            Number::Whole(value) if value <= max => return Ok(value),
            Number::Whole(value) => (field, Problem::too_large(field, &value.to_string(), max)),
            Number::TooLarge(text) => (field, Problem::too_large(field, &text, max)),
            Number::Negative(text) => (field, Problem::negative(field, &text)),
            Number::Other(text) => (field, Problem::not_a_number(field, &text)),
        })
    }
}

fn name(field: Field) -> &'static str {
    match field {
        Field::Id | Field::Count => "id",
        Field::Title => "title",
        Field::Topic => "topic",
        Field::Cost => "cost_cents",
        Field::Stock => "stock",
    }
}

pub(super) fn parse(text: &str) -> Result<List, Fault> {
    let mut list = List::default();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() {
            push(&mut list, line.trim_end(), offset)?;
        }
        offset += line.len();
    }
    Ok(list)
}

fn push(list: &mut List, line: &str, offset: usize) -> Result<(), Fault> {
    // The derived reader would take a list of values for an object, too.
    let indent = line.len() - line.trim_start().len();
    if !line[indent..].starts_with('{') {
        let problem = Problem::Json("a line must be one JSON object".to_owned());
        return Err(Fault { offset: offset + indent, problem });
    }
    let object: Object = serde_json::from_str(line).map_err(|error| syntax(&error, offset))?;
    let missing = |field| Fault { offset, problem: Problem::MissingField { name: name(field) } };
    let id = object.id.ok_or_else(|| missing(Field::Id))?;
    let title = object.title.ok_or_else(|| missing(Field::Title))?;
    let topic = object.topic.ok_or_else(|| missing(Field::Topic))?;
    let cost = object.cost_cents.ok_or_else(|| missing(Field::Cost))?;
    let stock = object.stock.ok_or_else(|| missing(Field::Stock))?;
    let place = |(field, problem)| Fault { offset: offset + value_offset(line, name(field)), problem };
    let cost_cents = cost.up_to(COST_CENTS_MAX, Field::Cost).map_err(place)?;
    let stock = stock.up_to(u32::MAX.into(), Field::Stock).map_err(place)?;
    let book = book(&id, &title, &topic, cost_cents, stock).map_err(place)?;
    list.push(book, offset);
    Ok(())
}

/// The library's complaint, without the line and column within the line that it adds.
fn syntax(error: &serde_json::Error, offset: usize) -> Fault {
    let text = error.to_string();
    let own = text.rsplit_once(" at line ").map_or(text.as_str(), |(own, _)| own);
    Fault { offset: offset + error.column().saturating_sub(1), problem: Problem::Json(own.to_owned()) }
}

/// Where the value of field `name` begins in the object `line`, which is known to be well-formed; 0 if it is not found.
fn value_offset(line: &str, name: &str) -> usize {
    let mut depth = 0;
    let mut string_start = None;
    let mut last_string = "";
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (string_start, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(start), '"') => {
                last_string = &line[start..at];
                string_start = None;
            }
            (Some(_), _) => {}
            (None, '"') => string_start = Some(at + 1),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            (None, ':') if depth == 1 && last_string == name => {
                let rest = &line[at + 1..];
                return at + 1 + (rest.len() - rest.trim_start().len());
            }
            (None, _) => {}
        }
    }
    0
}
