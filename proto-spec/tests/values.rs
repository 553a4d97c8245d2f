//! Values with bounds: what they take, what they refuse and what the refusal says.

mod common;

use common::samples::{id, list};
use pygmy_proto::error::{ErrorBody, ErrorCode, Retry};
use pygmy_proto::limits::{COPIES_MAX, COST_CENTS_MAX};
use pygmy_proto::message::{Command, Line, NewBook};
use pygmy_proto::types::{self, BookId, Bounded, InlineStr, Text, ValueError};

#[test]
fn ids_have_an_alphabet_and_a_length() {
    let longest = "x".repeat(64);
    for good in ["a", "A-Z_a.z09", ".", &longest] {
        assert_eq!(BookId::new(good).as_deref().ok(), Some(good));
    }
    assert_eq!(BookId::new(""), Err(ValueError::Empty("a book id")));
    let long = "x".repeat(65);
    assert_eq!(BookId::new(&long), Err(ValueError::TooLong { what: "a book id", len: 65, max: 64 }));
    for (bad, found, at) in [("a b", ' ', 1), ("größe", 'ö', 2), ("a/b", '/', 1), ("a\0", '\0', 1)] {
        assert_eq!(BookId::new(bad), Err(ValueError::BadCharacter { what: "a book id", found, at }));
    }
}

#[test]
fn titles_and_topics_are_bounded_in_bytes() {
    assert!(types::title(&"ü".repeat(256)).is_ok());
    let long = types::title(&"ü".repeat(257));
    assert_eq!(long, Err(ValueError::TooLong { what: "a title", len: 514, max: 512 }));
    assert_eq!(types::title(""), Err(ValueError::Empty("a title")));
    assert_eq!(types::title("two\nlines"), Err(ValueError::Control("a title")));
    assert_eq!(types::topic("a\u{7f}"), Err(ValueError::Control("a topic")));
    assert!(types::topic(&"x".repeat(65)).is_err());
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(&*InlineStr::<4>::truncated("aüü"), "aü");
    assert_eq!(&*InlineStr::<4>::truncated("aüa"), "aüa");
    assert_eq!(&*Text::<3>::truncated("漢字"), "漢");
    assert_eq!(&*Text::<2>::truncated("漢字"), "");
    assert_eq!(InlineStr::<4>::new("aüüa"), None);
    assert_eq!(Text::<4>::new("aüüa"), None);
}

#[test]
fn inline_texts_compare_as_texts() {
    let short = InlineStr::<8>::truncated("b");
    let long = InlineStr::<8>::truncated("aaaa");
    assert!(long < short && long != short && short == InlineStr::truncated("b"));
    assert_eq!(short.to_string(), "b");
    assert_eq!(format!("{short:?} {long:>6}"), "\"b\"   aaaa");
}

#[test]
fn lists_are_bounded() {
    assert_eq!(Bounded::<u8, 2>::new(vec![1, 2, 3]), Err(vec![1, 2, 3]));
    assert_eq!(Bounded::<u8, 2>::truncated(vec![1, 2, 3]).into_vec(), [1, 2]);
}

fn cart(lines: &[(&str, u32)]) -> Command {
    Command::Buy { lines: list(lines.iter().map(|&(book, copies)| Line { book: id(book), copies }).collect()) }
}

fn new_book(title: &str, cost_cents: u64) -> NewBook {
    let (title, topic) = (Text::new(title).expect("short"), InlineStr::truncated("topic"));
    NewBook { id: id("new"), title, topic, cost_cents, stock: 0 }
}

/// The subject and the numbers with which a command is refused.
fn refusal(command: &Command) -> (String, u64, u64) {
    let error = command.check().expect_err("a refusal");
    assert_eq!((error.known_code(), error.retry), (Some(ErrorCode::InvalidArgument), Retry::Never));
    assert!(!error.detail.is_empty());
    (error.subject.to_string(), error.limit, error.actual)
}

#[test]
fn commands_within_their_bounds_pass() {
    let good = [
        cart(&[("a", 1)]),
        cart(&[("a", COPIES_MAX), ("b", 1)]),
        Command::Restock { book: id("a"), copies: COPIES_MAX },
        Command::Reprice { book: id("a"), cost_cents: COST_CENTS_MAX },
        Command::Add { book: new_book("New", 0) },
        Command::Retire { book: id("a") },
        Command::Put { books: list(vec![new_book("New", COST_CENTS_MAX)]) },
    ];
    for command in good {
        assert_eq!(command.check(), Ok(()));
    }
}

#[test]
fn commands_beyond_their_bounds_are_refused() {
    let copies = u64::from(COPIES_MAX);
    let named = |subject: &str, limit, actual| (subject.to_owned(), limit, actual);
    assert_eq!(refusal(&cart(&[])), named("lines", 1, 0));
    assert_eq!(refusal(&cart(&[("a", 0)])), named("a", copies, 0));
    assert_eq!(refusal(&cart(&[("a", 1), ("b", COPIES_MAX + 1)])), named("b", copies, copies + 1));
    assert_eq!(refusal(&cart(&[("a", 1), ("b", 1), ("a", 2)])), named("a", 1, 2));
    assert_eq!(refusal(&Command::Restock { book: id("a"), copies: 0 }), named("a", copies, 0));
    let dear = COST_CENTS_MAX + 1;
    assert_eq!(refusal(&Command::Reprice { book: id("a"), cost_cents: dear }), named("a", COST_CENTS_MAX, dear));
    assert_eq!(refusal(&Command::Add { book: new_book("New", dear) }), named("new", COST_CENTS_MAX, dear));
    assert_eq!(refusal(&Command::Add { book: new_book("a\tb", 1) }), named("new", 0, 0));
    assert_eq!(refusal(&Command::Put { books: list(vec![]) }), named("books", 1, 0));
    let twice = list(vec![new_book("New", 1), new_book("New", 1)]);
    assert_eq!(refusal(&Command::Put { books: twice }), named("new", 1, 2));
}

#[test]
fn errors_say_what_they_are() {
    let known = ErrorBody::new(ErrorCode::Busy).detail("come back");
    assert_eq!(known.to_string(), "busy: come back");
    assert_eq!((known.retry, known.retry_after_ms > 0), (Retry::Later, true));
    let unknown = ErrorBody { code: 9_999, ..known };
    assert_eq!((unknown.to_string().as_str(), unknown.known_code()), ("error 9999: come back", None));
    let other = ErrorBody::new(ErrorCode::Busy).retry(Retry::Elsewhere, 0);
    assert_eq!((other.retry, other.retry_after_ms), (Retry::Elsewhere, 0));
}

#[test]
fn malformed_bodies_are_described_in_words() {
    use pygmy_proto::codec::{BodyError, decode};
    use pygmy_proto::message::{LinkStatus, Role};
    let text = |error: BodyError| error.to_string();
    let bad_bool = decode::<LinkStatus>(&[1, 0, 2, 0, 0, 0, 0]).expect_err("2 is no bool");
    assert_eq!(text(bad_bool), "a bool is 0 or 1, not 2");
    let bad_tag = decode::<Role>(&[9, 0, 0, 0]).expect_err("9 is no role");
    assert_eq!(text(bad_tag), "9 is not a tag of the enum or option it stands for");
    let bad_option = decode::<Option<u8>>(&[2, 0]).expect_err("2 is no option");
    assert_eq!(text(bad_option), "2 is not a tag of the enum or option it stands for");
    let bad_text = decode::<Text<4>>(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).expect_err("not UTF-8");
    assert!(text(bad_text).starts_with("a text is not UTF-8"));
    let long = decode::<Text<4>>(&[5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]).expect_err("too long");
    assert_eq!(text(long), "a length of 5 is above its limit of 4");
    let bad_id = decode::<BookId>(&[1, 0, 0, 0, 0, 0, 0, 0, b'/']).expect_err("not an id");
    assert!(text(bad_id).contains("allowed are A-Z a-z 0-9"));
    assert_eq!(decode::<u32>(&[1, 2]), Err(BodyError::Short { missing: 2 }));
    assert_eq!(decode::<u8>(&[1, 2, 3]), Err(BodyError::Trailing { extra: 2 }));
}
