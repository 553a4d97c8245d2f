//! The field tables of the specification as a decoder: it knows no type of the crate, only what the document says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One row of a struct's table.
#[derive(Debug)]
struct Field {
    offset: String,
    size: String,
    name: String,
    kind: String,
}

/// One row of an enum's table.
#[derive(Debug)]
struct Variant {
    tag: u32,
    name: String,
    fields: Vec<(String, String)>,
}

#[derive(Debug)]
enum Type {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

/// All tables under headings of the fourth level.
#[derive(Debug)]
pub(crate) struct Schema {
    types: BTreeMap<String, Type>,
    /// Numbers and names of the message kinds.
    pub(crate) kinds: Vec<(u16, String)>,
}

/// The cells of a table's row, without the backticks.
pub(crate) fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split(" | ").map(|cell| cell.trim().replace('`', "")).collect()
}

/// The rows of the first table in `section`, without its head.
pub(crate) fn rows(section: &str) -> Vec<Vec<String>> {
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    lines.take_while(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

impl Schema {
    /// Reads the document.
    pub(crate) fn read(document: &str) -> Self {
        let mut schema = Self { types: BTreeMap::new(), kinds: Vec::new() };
        for section in document.split("\n#### ").skip(1) {
            let (heading, text) = section.split_once('\n').expect("a heading has a line of its own");
            // The section ends with the next heading of any level.
            let text = text.split("\n#").next().unwrap_or_default();
            schema.add(heading, text);
        }
        schema
    }

    fn add(&mut self, heading: &str, text: &str) {
        let (what, name) = heading.split_once(' ').expect("two words in a heading of the fourth level");
        let found = match what {
            "Enum" => Type::Enum(rows(text).iter().map(|row| variant(row)).collect()),
            "Struct" => Type::Struct(rows(text).iter().map(|row| field(row)).collect()),
            number => {
                let digits = number.strip_prefix("0x").expect("a kind's number");
                self.kinds.push((u16::from_str_radix(digits, 16).expect("a number"), name.to_owned()));
                let fields: Vec<Field> = rows(text).iter().map(|row| field(row)).collect();
                assert!(!fields.is_empty() || text.contains("No fields."), "{name} must say that it has no fields");
                Type::Struct(fields)
            }
        };
        let before = self.types.insert(name.to_owned(), found);
        assert!(before.is_none(), "{name} is described twice");
    }

    /// Checks the columns *offset* and *size* of every struct against the types of its fields.
    pub(crate) fn check_offsets(&self) {
        for (name, found) in &self.types {
            let Type::Struct(fields) = found else { continue };
            let mut offset = Some(0);
            for field in fields {
                let size = self.size(&field.kind);
                let shown = |n: Option<usize>, or: &str| n.map_or(or.to_owned(), |n| n.to_string());
                assert_eq!(field.offset, shown(offset, "-"), "offset of {name}.{}", field.name);
                assert_eq!(field.size, shown(size, "var"), "size of {name}.{}", field.name);
                offset = offset.zip(size).map(|(offset, size)| offset + size);
            }
        }
    }

    /// The size of a type, when it is always the same.
    fn size(&self, kind: &str) -> Option<usize> {
        match kind {
            "u8" | "bool" => Some(1),
            "u16" => Some(2),
            "u32" => Some(4),
            "u64" => Some(8),
            "u128" | "[u8;16]" => Some(16),
            _ => match self.types.get(kind) {
                Some(Type::Struct(fields)) => fields.iter().map(|field| self.size(&field.kind)).sum(),
                Some(Type::Enum(variants)) => variants.iter().all(|v| v.fields.is_empty()).then_some(4),
                None => None,
            },
        }
    }

    /// Decodes a value of type `kind` from the start of `bytes` and shows it as Rust's debug form does.
    pub(crate) fn show(&self, kind: &str, bytes: &mut &[u8]) -> String {
        if let Some((name, inner, max)) = parameters(kind) {
            return self.show_generic(name, inner, max, bytes);
        }
        match kind {
            "u8" | "u16" | "u32" | "u64" | "u128" => number(bytes, self.size(kind).expect("a fixed size")).to_string(),
            "bool" => ["false", "true"][number(bytes, 1) as usize].to_owned(),
            "[u8;16]" => format!("{:?}", take(bytes, 16)),
            "id" => self.show("text(64)", bytes),
            name => self.show_named(name, bytes),
        }
    }

    fn show_generic(&self, name: &str, inner: &str, max: Option<usize>, bytes: &mut &[u8]) -> String {
        if name == "option" {
            return match number(bytes, 1) {
                0 => "None".to_owned(),
                1 => format!("Some({})", self.show(inner, bytes)),
                other => panic!("{other} is no option"),
            };
        }
        let len = number(bytes, 8) as usize;
        assert!(len <= max.unwrap_or_else(|| panic!("{name} names its bound")));
        match name {
            "text" => format!("{:?}", std::str::from_utf8(take(bytes, len)).expect("UTF-8")),
            "bytes" => format!("{} bytes", take(bytes, len).len()),
            "list" => {
                let items: Vec<String> = (0..len).map(|_| self.show(inner, bytes)).collect();
                format!("[{}]", items.join(", "))
            }
            other => panic!("{other} is no type"),
        }
    }

    fn show_named(&self, name: &str, bytes: &mut &[u8]) -> String {
        match self.types.get(name).unwrap_or_else(|| panic!("no type {name}")) {
            Type::Struct(fields) => {
                let fields = fields.iter().map(|field| (field.name.as_str(), field.kind.as_str()));
                self.show_fields(if name == "Error" { "ErrorBody" } else { name }, fields, bytes)
            }
            Type::Enum(variants) => {
                let tag = number(bytes, 4);
                let variant = variants.iter().find(|v| u128::from(v.tag) == tag).expect("a known tag");
                let fields = variant.fields.iter().map(|(name, kind)| (name.as_str(), kind.as_str()));
                self.show_fields(&variant.name, fields, bytes)
            }
        }
    }

    fn show_fields<'a>(
        &self,
        name: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
        bytes: &mut &[u8],
    ) -> String {
        let mut out = String::new();
        for (field, kind) in fields {
            let lead = if out.is_empty() { "" } else { ", " };
            let value = self.show(kind, bytes);
            write!(out, "{lead}{field}: {value}").expect("a string takes all");
        }
        if out.is_empty() { name.to_owned() } else { format!("{name} {{ {out} }}") }
    }
}

fn field(row: &[String]) -> Field {
    let [offset, size, kind, name, _] = row else { panic!("{row:?} must have five cells") };
    Field { offset: offset.clone(), size: size.clone(), name: name.clone(), kind: kind.clone() }
}

fn variant(row: &[String]) -> Variant {
    let [tag, name, fields, _] = row else { panic!("{row:?} must have four cells") };
    let fields = fields.split(", ").filter(|text| *text != "-").map(|text| {
        let (name, kind) = text.split_once(": ").expect("name: type");
        (name.to_owned(), kind.to_owned())
    });
    Variant { tag: tag.parse().expect("a tag"), name: name.clone(), fields: fields.collect() }
}

/// Takes `list<T>(N)`, `text(N)`, `bytes(N)` or `option<T>` apart.
fn parameters(kind: &str) -> Option<(&str, &str, Option<usize>)> {
    if let Some(inner) = kind.strip_prefix("option<") {
        return Some(("option", inner.strip_suffix('>')?, None));
    }
    let (name, max) = kind.strip_suffix(')')?.rsplit_once('(')?;
    let max = Some(max.parse().expect("a bound is a number"));
    match name.strip_prefix("list<") {
        Some(inner) => Some(("list", inner.strip_suffix('>')?, max)),
        None => Some((name, "", max)),
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len);
    *bytes = rest;
    taken
}

fn number(bytes: &mut &[u8], len: usize) -> u128 {
    take(bytes, len).iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}
