use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::message::Book;

fn fails(input: &[u8], format: Format, line: usize, column: usize) -> Problem {
    let error = parse(input, format).expect_err("the input is wrong");
    assert_eq!((error.line, error.column), (line, column), "{error}");
    error.problem
}

fn csv(rest: &str) -> Vec<u8> {
    format!("id,title,topic,cost,stock\n{rest}").into_bytes()
}

#[test]
fn the_builtin_list_is_the_original_store() {
    let books = builtin();
    assert_eq!(books.len(), 7);
    let rpc = books.iter().find(|book| &*book.id == "rpcdummies").expect("the best known of them");
    assert_eq!(&*rpc.title, "RPCs for Dummies.");
    assert_eq!((&*rpc.topic, rpc.cost_cents, rpc.stock), ("distributed-systems", 1500, 36000));
    assert_eq!(books[6].cost_cents, 3500);
}

#[test]
fn the_shared_original_holds_the_builtin_books() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/original.txt");
    let Ok(input) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    assert_eq!(parse(&input, Format::Original).unwrap(), builtin());
}

#[test]
fn a_real_csv_without_topics_names_the_column_it_lacks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/goodbooks.csv");
    let Ok(input) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    assert_eq!(fails(&input, Format::Csv, 1, 1), Problem::MissingColumn { name: "topic" });
}

#[test]
fn formats_are_known_by_extension_and_by_sight() {
    for (path, format) in [
        ("a.txt", Some(Format::Original)),
        ("a.CSV", Some(Format::Csv)),
        ("x/a.jsonl", Some(Format::JsonLines)),
        ("a.ndjson", Some(Format::JsonLines)),
        ("a", None),
        ("a.xml", None),
    ] {
        assert_eq!(Format::of_path(Path::new(path)), format, "{path}");
    }
    assert_eq!(Format::sniff(b"\xef\xbb\xbf 7\nA\n"), Format::Original);
    assert_eq!(Format::sniff(b"id,title,topic,cost,stock\n"), Format::Csv);
    assert_eq!(Format::sniff(b"\n{\"id\":1}\n"), Format::JsonLines);
}

#[test]
fn what_follows_the_last_book_is_not_read() {
    let input = b"1\r\nA title\r\n  a topic \r\nid\r\n20\r\n3\r\n\xc3\xa4 5\r\nnot a book";
    let books = parse(input, Format::Original).unwrap();
    assert_eq!(books.len(), 1);
    assert_eq!((&*books[0].title, &*books[0].topic, books[0].cost_cents), ("A title", "a topic", 2000));
    assert_eq!(parse(b"0\n", Format::Original).unwrap(), []);
}

#[test]
fn a_count_that_does_not_match_is_named_with_both_numbers() {
    let five = "T\nt\nid\n1\n2\n";
    assert_eq!(fails(format!("2\n{five}").as_bytes(), Format::Original, 7, 1), Problem::Count { claimed: 2, found: 1 });
    assert_eq!(
        fails(format!("2\n{five}U\nt\n").as_bytes(), Format::Original, 9, 1),
        Problem::Count { claimed: 2, found: 1 }
    );
    let huge = format!("{}\n{five}", u64::MAX);
    assert_eq!(
        fails(huge.as_bytes(), Format::Original, 7, 1),
        Problem::Count { claimed: u64::MAX, found: 1 },
        "and no room is made for what cannot be there"
    );
    assert!(matches!(fails(b"seven\n", Format::Original, 1, 1), Problem::NotANumber { field: Field::Count, .. }));
    assert!(matches!(fails(b"-1\n", Format::Original, 1, 1), Problem::Negative { field: Field::Count, .. }));
}

#[test]
fn numbers_say_what_is_wrong_with_them() {
    let original = |cost: &str, stock: &str| format!("1\nT\nt\nid\n{cost}\n{stock}\n").into_bytes();
    let max = crate::limits::COST_CENTS_MAX / 100;
    assert_eq!(
        fails(&original("-1", "1"), Format::Original, 5, 1),
        Problem::Negative { field: Field::Cost, found: "-1".into() }
    );
    assert_eq!(
        fails(&original("1000000001", "1"), Format::Original, 5, 1),
        Problem::TooLarge { field: Field::Cost, found: "1000000001".into(), max }
    );
    assert_eq!(
        fails(&original("20.50", "1"), Format::Original, 5, 1),
        Problem::NotACost { found: "20.50".into(), unit: "whole units of the currency" }
    );
    let problem = fails(&csv("a,T,t,1.50,1\n"), Format::Csv, 2, 7);
    assert!(problem.to_string().ends_with("here it is in cents"), "{problem}");
    assert!(matches!(fails(&original("1", "  +4"), Format::Original, 6, 3), Problem::NotANumber { .. }));
    assert!(matches!(
        fails(&original("1", "4294967296"), Format::Original, 6, 1),
        Problem::TooLarge { field: Field::Stock, max: 4_294_967_295, .. }
    ));
    assert!(parse(&original("1000000000", "4294967295"), Format::Original).is_ok());
    assert!(matches!(
        fails(&csv("a,\"T, u\",t,-5,1\n"), Format::Csv, 2, 12),
        Problem::Negative { field: Field::Cost, .. }
    ));
    assert!(matches!(
        fails(&csv("\n\r\na,T,t,1,99999999999999999999999\n"), Format::Csv, 4, 9),
        Problem::TooLarge { field: Field::Stock, .. }
    ));
    for (value, column) in [("-5", 49), ("5e30", 49), ("1.5", 49), ("\"5\"", 49)] {
        let line = format!(r#"{{"id":"a","title":"cost_cents","topic":"t","stock": {value},"cost_cents":1}}"#);
        let problem = fails(line.as_bytes(), Format::JsonLines, 1, column + 4);
        assert!(
            matches!(problem, Problem::Negative { .. } | Problem::TooLarge { .. } | Problem::NotANumber { .. }),
            "{problem}"
        );
    }
}

#[test]
fn a_duplicate_names_both_lines() {
    let id = BookId::new("a").unwrap();
    let original = b"2\nT\nt\na\n1\n1\nU\nt\na\n1\n1\n";
    assert_eq!(fails(original, Format::Original, 9, 1), Problem::Duplicate { id, first_line: 4 });
    let csv = csv("b,B,t,1,1\na,A,t,1,1\nb,C,t,1,1\na,D,t,1,1\n");
    let b = BookId::new("b").unwrap();
    assert_eq!(fails(&csv, Format::Csv, 4, 1), Problem::Duplicate { id: b, first_line: 2 });
    let line = r#"{"id":"a","title":"T","topic":"t","stock":1,"cost_cents":1}"#;
    let json = format!("{line}\n\n{line}\n");
    assert_eq!(fails(json.as_bytes(), Format::JsonLines, 3, 1), Problem::Duplicate { id, first_line: 1 });
}

#[test]
fn texts_keep_their_limits() {
    use crate::types::ValueError;
    let long = "é".repeat(257);
    let problem = fails(&csv(&format!("a,{long},t,1,1\n")), Format::Csv, 2, 3);
    assert_eq!(problem, Problem::Value(ValueError::TooLong { what: "a title", len: 514, max: 512 }));
    let problem = fails(&csv("a,T,t,1,1\nb/d,T,t,1,1\n"), Format::Csv, 3, 1);
    assert!(matches!(problem, Problem::Value(ValueError::BadCharacter { found: '/', at: 1, .. })), "{problem}");
    let problem = fails(&csv("a,T,,1,1\n"), Format::Csv, 2, 5);
    assert_eq!(problem, Problem::Value(ValueError::Empty("a topic")));
    let problem = fails(&csv("a,\"T\nU\",t,1,1\n"), Format::Csv, 2, 3);
    assert_eq!(problem, Problem::Value(ValueError::Control("a title")));
}

#[test]
fn bytes_that_are_not_utf8_are_found() {
    assert_eq!(fails(b"1\nT\nt\xc3\xa4\xff\n", Format::Original, 3, 3), Problem::NotUtf8);
    assert_eq!(fails(b"\xef\xbb\xbf\xfe", Format::Csv, 1, 1), Problem::NotUtf8);
}

#[test]
fn an_empty_file_is_no_list() {
    for format in [Format::Original, Format::Csv, Format::JsonLines] {
        assert_eq!(fails(b" \r\n\n", format, 1, 1), Problem::Empty);
        assert_eq!(fails(b"\xef\xbb\xbf", format, 1, 1), Problem::Empty);
    }
    assert_eq!(parse(&csv(""), Format::Csv).unwrap(), [], "a header alone is what an empty store exports");
}

#[test]
fn csv_columns_come_in_any_order_and_number() {
    let books = parse(b"seq,stock,cost,topic,title,id\n9,1,250,t,T,a\n", Format::Csv).unwrap();
    assert_eq!((books[0].stock, books[0].cost_cents, &*books[0].id), (1, 250, "a"));
    assert_eq!(fails(b"id,title,topic,cost\na,T,t,1\n", Format::Csv, 1, 1), Problem::MissingColumn { name: "stock" });
    assert_eq!(fails(b"id,title,topic,cost,stock,id\n", Format::Csv, 1, 27), Problem::RepeatedColumn { name: "id" });
    assert_eq!(fails(&csv("a,T,t,1\n"), Format::Csv, 2, 1), Problem::RecordLength { expected: 5, found: 4 });
}

#[test]
fn json_says_what_is_missing_or_misshaped() {
    let missing = br#"{"id":"a","title":"T","stock":1,"cost_cents":1}"#;
    assert_eq!(fails(missing, Format::JsonLines, 1, 1), Problem::MissingField { name: "topic" });
    assert!(matches!(fails(b"{\"id\":7}", Format::JsonLines, 1, 7), Problem::Json(text) if text.contains("string")));
    assert!(matches!(fails(b"\n [\"a\",\"T\",\"t\",1,1]\n", Format::JsonLines, 2, 2), Problem::Json(_)));
    assert!(matches!(fails(b"{\"id\":\"a\"", Format::JsonLines, 1, 9), Problem::Json(_)));
}

#[test]
fn a_quote_that_is_never_closed_is_named_where_it_opens() {
    for (rest, line, column) in
        [("a,\"T,t,1,1\nb,U,t,1,1\n", 2, 3), ("a,T,t,1,1\nb,\"U \"\"v\"\",t,1,1", 3, 3), ("a,T,t,1,\"5\n", 2, 9)]
    {
        assert_eq!(fails(&csv(rest), Format::Csv, line, column), Problem::UnclosedQuote, "{rest}");
    }
    assert_eq!(&*parse(&csv("a,5\" disk,t,1,1\n"), Format::Csv).unwrap()[0].title, "5\" disk");
    assert_eq!(&*parse(&csv("a,\"a \"\"b\"\"\",t,1,1"), Format::Csv).unwrap()[0].title, "a \"b\"");
}

/// Repeats a text for ever, and counts what was taken of it.
struct Endless<'a> {
    text: &'a [u8],
    taken: usize,
}

impl std::io::Read for Endless<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        for byte in &mut *out {
            *byte = self.text[self.taken % self.text.len()];
            self.taken += 1;
        }
        Ok(out.len())
    }
}

fn gives_up(text: &[u8], taken_max: usize) -> InventoryError {
    let mut endless = Endless { text, taken: 0 };
    let Err(ReadError::Inventory(error)) = read(&mut endless, None) else { panic!("it has no end") };
    assert!(endless.taken <= taken_max, "{} bytes were read of {error}", endless.taken);
    error
}

#[test]
fn what_has_no_end_is_given_up_early() {
    const MIB: usize = 1024 * 1024;
    let error = gives_up(b"\0", 2 * MIB);
    assert_eq!((error.line, error.problem), (1, Problem::LineTooLong { max: LINE_BYTES_MAX }));
    assert!(matches!(gives_up(b"y\n", MIB).problem, Problem::NotANumber { field: Field::Count, .. }));
    assert!(matches!(gives_up(b"a,b\n", MIB).problem, Problem::MissingColumn { .. }));
    let error = read::read_at_most(Endless { text: b"\n", taken: 0 }, None, MIB);
    let Err(ReadError::Inventory(error)) = error else { panic!("it has no end") };
    assert_eq!(error.problem, Problem::ListTooLong { max: MIB });
}

#[test]
fn a_long_list_is_read_whole_in_every_format() {
    let books: Vec<NewBook> = (0..20_000)
        .map(|number| NewBook {
            id: BookId::new(&format!("b{number}")).unwrap(),
            title: types::title("About \"it\",\u{e9} with a comma").unwrap(),
            topic: types::topic("t").unwrap(),
            cost_cents: 100,
            stock: 1,
        })
        .collect();
    for format in [Format::Csv, Format::JsonLines] {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, format).unwrap();
        books.iter().try_for_each(|book| writer.write(book)).unwrap();
        writer.finish().unwrap();
        assert_eq!(read(&*out, None).unwrap(), books);
    }
    // Lines within quotes: the first look at the list sees a quote that is closed only later.
    let notes = "a line of notes\n".repeat(40_000);
    let csv = format!("id,title,topic,cost,stock,notes\na,T,t,1,1,\"{notes}\"\n");
    assert_eq!(read(csv.as_bytes(), None).unwrap().len(), 1);
    let mut original = format!("{}\n", books.len());
    books.iter().for_each(|book| original += &format!("{}\nt\n{}\n1\n1\n", &*book.title, &*book.id));
    assert_eq!(read(original.as_bytes(), None).unwrap(), books);
}

fn any_book() -> impl Strategy<Value = Book> {
    let id = proptest::collection::vec(proptest::char::ranges(vec!['a'..='z', '0'..='9', '-'..='.'].into()), 1..20);
    let text = |max| {
        proptest::collection::vec(any::<char>().prop_filter("control", |c| !c.is_control()), 1..max)
            .prop_map(|chars| chars.into_iter().collect::<String>())
    };
    (id, text(100), text(16), 0..=COST_CENTS_MAX, any::<u32>(), any::<u64>()).prop_map(
        |(id, title, topic, cost_cents, stock, changed_seq)| Book {
            id: BookId::new(&id.into_iter().collect::<String>()).unwrap(),
            title: types::title(&title).unwrap(),
            topic: types::topic(&topic).unwrap(),
            cost_cents,
            stock,
            changed_seq,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(books in proptest::collection::vec(any_book(), 0..20)) {
        let mut seen = std::collections::BTreeSet::new();
        let books: Vec<Book> = books.into_iter().filter(|book| seen.insert(book.id)).collect();
        let expected: Vec<NewBook> = books.iter().map(|book| NewBook {
            id: book.id,
            title: book.title.clone(),
            topic: book.topic,
            cost_cents: book.cost_cents,
            stock: book.stock,
        }).collect();
        for format in [Format::Csv, Format::JsonLines] {
            let (mut old, mut new) = (Vec::new(), Vec::new());
            let mut writer = Writer::new(&mut old, format).unwrap();
            books.iter().try_for_each(|book| writer.write(book)).unwrap();
            writer.finish().unwrap();
            let mut writer = Writer::new(&mut new, format).unwrap();
            expected.iter().try_for_each(|book| writer.write(book)).unwrap();
            writer.finish().unwrap();
            if books.is_empty() && format == Format::JsonLines {
                continue;
            }
            prop_assert_eq!(&parse(&old, format).unwrap(), &expected);
            prop_assert_eq!(&parse(&new, format).unwrap(), &expected);
        }
    }

    #[test]
    fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Original, Format::Csv, Format::JsonLines] {
            let _ = parse(&input, format);
        }
    }

    #[test]
    fn no_damage_to_a_list_panics(
        at in 0..500usize, byte in any::<u8>(), format in 0..2usize
    ) {
        let format = [Format::Csv, Format::JsonLines][format];
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, format).unwrap();
        builtin().iter().try_for_each(|book| writer.write(book)).unwrap();
        writer.finish().unwrap();
        let at = at % out.len();
        out[at] = byte;
        if let Err(error) = parse(&out, format) {
            let lines = out.split(|byte| *byte == b'\n').count();
            prop_assert!((1..=lines).contains(&error.line), "{}", error);
        }
    }
}

#[test]
fn the_original_format_is_not_written() {
    let error = Writer::new(Vec::new(), Format::Original).map(|_| ()).expect_err("it has no cents");
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn a_json_field_is_found_behind_nested_and_escaped_lookalikes() {
    let line = r#"{"more":{"stock":1},"id":"a","title":"\"stock\":","topic":"t","cost_cents":1,"stock":-1}"#;
    let column = line.len() - 2;
    assert!(matches!(fails(line.as_bytes(), Format::JsonLines, 1, column), Problem::Negative { .. }));
}
