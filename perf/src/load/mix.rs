//! What is asked: kinds of requests and their shares, and which books they are about.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hashbrown::HashMap;
use pygmy_proto::message::{Book, Command, Line, Lines, Lookup, Search};
use pygmy_proto::{BookId, Topic};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::error::Error;
use crate::weights::WeightsFile;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// One book by its id.
    Lookup,
    /// The first page of a topic.
    Search,
    /// One copy of one book.
    Buy,
    /// Two to five books, one to three copies of each.
    Cart,
    /// One copy more of one book.
    Restock,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [RequestKind; 5] = [Self::Lookup, Self::Search, Self::Buy, Self::Cart, Self::Restock];

    /// The name, as in `--mix` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Search => "search",
            Self::Buy => "buy",
            Self::Cart => "cart",
            Self::Restock => "restock",
        }
    }

    /// Whether it changes the store.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Buy | Self::Cart | Self::Restock)
    }
}

/// Kinds of requests with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    parts: Vec<(RequestKind, u32)>,
    total: u32,
    /// Lines that each cart is to have; else two to five.
    cart_lines: Option<usize>,
}

impl Mix {
    /// Carts alone, each of so many books, if the store has as many to choose from.
    pub fn carts(lines: usize) -> Self {
        Self { parts: vec![(RequestKind::Cart, 1)], total: 1, cart_lines: Some(lines) }
    }

    /// Whether some of the requests are writes.
    pub fn has_writes(&self) -> bool {
        self.parts.iter().any(|(kind, _)| kind.is_write())
    }

    fn pick(&self, rng: &mut ChaCha8Rng) -> RequestKind {
        let mut left = rng.random_range(0..self.total);
        for (kind, weight) in &self.parts {
            match left.checked_sub(*weight) {
                None => return *kind,
                Some(rest) => left = rest,
            }
        }
        self.parts[0].0
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (kind, weight)) in self.parts.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}={weight}", kind.name())?;
        }
        Ok(())
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(RequestKind, u32)> = Vec::new();
        let mut total: u32 = 0;
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or_else(|| format!("{part:?}: write kind=weight"))?;
            let kind = RequestKind::ALL.into_iter().find(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| format!("{name:?} is no kind: lookup, search, buy, cart and restock are"))?;
            let weight: u32 = weight.trim().parse().map_err(|_| format!("{weight:?} is no whole number"))?;
            if parts.iter().any(|(other, _)| *other == kind) {
                return Err(format!("{name} stands there twice"));
            }
            total = total.checked_add(weight).ok_or("the weights are too large")?;
            if weight > 0 {
                parts.push((kind, weight));
            }
        }
        if total == 0 { Err("all weights are 0".into()) } else { Ok(Self { parts, total, cart_lines: None }) }
    }
}

/// How requests spread over the books.
#[derive(Debug, Clone, PartialEq)]
pub enum Popularity {
    /// Every book alike.
    Uniform,
    /// The book of rank r is asked for in proportion to 1 / r^theta; ranks are drawn by the seed.
    Zipf(f64),
    /// Always this one.
    Hot(BookId),
    /// In proportion to the weights of a file; books that it does not name are not asked for.
    File(WeightsFile),
}

impl fmt::Display for Popularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
            Self::Hot(book) => write!(f, "hot:{book}"),
            Self::File(WeightsFile { path, column }) => write!(f, "csv:{}:{column}", path.display()),
        }
    }
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            Some(("zipf", theta)) => match theta.parse::<f64>() {
                Ok(theta) if (0.0..=10.0).contains(&theta) => Ok(Self::Zipf(theta)),
                _ => Err(format!("{theta:?}: theta is a number from 0 to 10, such as 0.99")),
            },
            Some(("hot", book)) => BookId::new(book).map(Self::Hot).map_err(|error| error.to_string()),
            Some(("csv", file)) => WeightsFile::parse(file).map(Self::File),
            _ => Err(format!("{text:?}: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN")),
        }
    }
}

impl Popularity {
    /// The books that a file names; of any other popularity none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn named(&self) -> Result<BTreeSet<BookId>, Error> {
        let Self::File(file) = self else { return Ok(BTreeSet::new()) };
        let weights = file.read().map_err(|error| Error::Usage(format!("--books: {error}")))?;
        Ok(weights.into_iter().map(|(id, _)| id).collect())
    }
}

/// The books to ask for, and how often each. Shared by all threads.
#[derive(Debug)]
pub struct Books {
    books: Vec<(BookId, Topic)>,
    /// For an uneven popularity: the share of all books up to this one.
    shares: Option<Vec<f64>>,
}

impl Books {
    /// The books of the store under a popularity.
    ///
    /// # Errors
    /// When there are none, or not the hot one, or none with a weight.
    pub fn new(books: &[Book], popularity: &Popularity, seed: u64) -> Result<Self, String> {
        let mut books: Vec<(BookId, Topic)> = books.iter().map(|book| (book.id, book.topic)).collect();
        if books.is_empty() {
            return Err("the store has no books: `pygmy import` brings some in".into());
        }
        let shares = match popularity {
            Popularity::Uniform => None,
            Popularity::Zipf(theta) => {
                books.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                Some(shares((1..=books.len()).map(|rank| (rank as f64).powf(-theta))))
            }
            Popularity::Hot(hot) => {
                books.retain(|(id, _)| id == hot);
                if books.is_empty() {
                    return Err(format!("the store has no book {hot}"));
                }
                None
            }
            Popularity::File(file) => {
                let mut weights: HashMap<BookId, f64> = HashMap::new();
                for (id, weight) in file.read().map_err(|error| error.to_string())? {
                    *weights.entry(id).or_default() += weight;
                }
                let weight = |id: &BookId| weights.get(id).copied().unwrap_or_default();
                books.retain(|(id, _)| weight(id) > 0.0);
                if books.is_empty() {
                    return Err(format!("the store has no book to which {} gives a weight", file.path.display()));
                }
                Some(shares(books.iter().map(|(id, _)| weight(id))))
            }
        };
        Ok(Self { books, shares })
    }

    /// How many there are to choose from.
    pub fn len(&self) -> usize {
        self.books.len()
    }

    /// Whether there are none, which [`Self::new`] does not allow.
    pub fn is_empty(&self) -> bool {
        self.books.is_empty()
    }

    /// One of them, as often as its popularity says.
    pub fn pick_id(&self, rng: &mut ChaCha8Rng) -> BookId {
        self.pick(rng).0
    }

    fn pick(&self, rng: &mut ChaCha8Rng) -> &(BookId, Topic) {
        let place = match &self.shares {
            None => rng.random_range(0..self.books.len()),
            Some(shares) => {
                let share: f64 = rng.random();
                shares.partition_point(|upto| *upto <= share).min(self.books.len() - 1)
            }
        };
        &self.books[place]
    }
}

/// Entry `n`: the share of the first `n + 1` in the sum of all weights.
fn shares(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

/// A request, drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drawn {
    /// A lookup.
    Lookup(Lookup),
    /// A search.
    Search(Search),
    /// A write.
    Write(RequestKind, Command),
}

/// Draws for each line of a cart whose size is given.
const DRAWS_PER_LINE: usize = 16;
/// Books on a search's page: what a person sees at once.
const SEARCH_LIMIT: u32 = 20;

/// Draws requests. The same seed draws the same ones.
#[derive(Debug)]
pub struct Chooser {
    mix: Mix,
    books: Arc<Books>,
    rng: ChaCha8Rng,
}

impl Chooser {
    /// Draws from `mix` over `books`.
    pub fn new(mix: Mix, books: Arc<Books>, seed: u64) -> Self {
        Self { mix, books, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next request; a read asks for nothing older than `floor`.
    pub fn draw(&mut self, floor: u64) -> Drawn {
        match self.mix.pick(&mut self.rng) {
            RequestKind::Lookup => Drawn::Lookup(Lookup { floor, book: self.books.pick(&mut self.rng).0 }),
            RequestKind::Search => {
                let topic = self.books.pick(&mut self.rng).1;
                Drawn::Search(Search { floor, topic, limit: SEARCH_LIMIT, after: None })
            }
            RequestKind::Buy => {
                let line = Line { book: self.books.pick(&mut self.rng).0, copies: 1 };
                Drawn::Write(RequestKind::Buy, Command::Buy { lines: Lines::truncated(vec![line]) })
            }
            RequestKind::Cart => Drawn::Write(RequestKind::Cart, Command::Buy { lines: self.cart() }),
            RequestKind::Restock => {
                let book = self.books.pick(&mut self.rng).0;
                Drawn::Write(RequestKind::Restock, Command::Restock { book, copies: 1 })
            }
        }
    }

    /// A cart of two to five lines, where a book that is drawn twice stands once; or of as many as the mix says.
    fn cart(&mut self) -> Lines {
        let (wanted, draws) = match self.mix.cart_lines {
            // Others are drawn instead of those that were drawn already, as long as there is hope.
            Some(lines) => (lines, lines * DRAWS_PER_LINE),
            None => {
                let lines = self.rng.random_range(2..=5);
                (lines, lines)
            }
        };
        let mut lines: Vec<Line> = Vec::with_capacity(wanted);
        for _ in 0..draws {
            let book = self.books.pick(&mut self.rng).0;
            if lines.iter().all(|line| line.book != book) {
                lines.push(Line { book, copies: self.rng.random_range(1..=3) });
            }
            if lines.len() == wanted {
                break;
            }
        }
        Lines::truncated(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pygmy_proto::types::{title, topic};

    fn shelf(count: usize) -> Vec<Book> {
        let book = |number: usize| Book {
            id: BookId::new(&format!("book-{number}")).unwrap(),
            title: title("A title").unwrap(),
            topic: topic(&format!("topic {}", number % 3)).unwrap(),
            cost_cents: 1,
            stock: 1,
            changed_seq: 1,
        };
        (0..count).map(book).collect()
    }

    /// How often each book was picked, in the order of popularity.
    fn picks(popularity: &Popularity, books: usize, draws: usize) -> Vec<usize> {
        let books = Books::new(&shelf(books), popularity, 1).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut counts = vec![0; books.len()];
        for _ in 0..draws {
            let id = books.pick(&mut rng).0;
            counts[books.books.iter().position(|(other, _)| *other == id).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn a_mix_is_read_and_kept() {
        let mix: Mix = "lookup=80,buy=20,search=0".parse().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let buys = (0..10_000).filter(|_| mix.pick(&mut rng) == RequestKind::Buy).count();
        assert!((1_800..2_200).contains(&buys), "{buys}");
        assert!(mix.has_writes() && !"lookup=1".parse::<Mix>().unwrap().has_writes());
        for bad in ["", "lookup", "lookup=0", "sell=1", "buy=1,buy=2", "buy=-1", "buy=4294967295,cart=1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mixes_and_popularities_are_shown_as_they_are_written() {
        for text in ["lookup=80,buy=20", "restock=1", "search=1,cart=2"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for text in ["uniform", "zipf:0.99", "hot:book-3", "csv:a/b.csv:sold"] {
            assert_eq!(text.parse::<Popularity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_restock_is_a_write_of_one_copy() {
        let books = Arc::new(Books::new(&shelf(1), &Popularity::Uniform, 1).unwrap());
        let mut chooser = Chooser::new("restock=1".parse().unwrap(), books, 7);
        let book = BookId::new("book-0").unwrap();
        let expected = Drawn::Write(RequestKind::Restock, Command::Restock { book, copies: 1 });
        assert_eq!(chooser.draw(0), expected);
        assert!("lookup=9,restock=1".parse::<Mix>().unwrap().has_writes());
    }

    #[test]
    fn zipf_follows_its_law() {
        let counts = picks(&Popularity::Zipf(1.0), 100, 200_000);
        let all: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10] {
            let expected = 200_000.0 / (f64::from(rank) * all);
            let found = counts[rank as usize - 1] as f64;
            assert!((found / expected - 1.0).abs() < 0.1, "rank {rank}: {found} instead of {expected}");
        }
    }

    #[test]
    fn uniform_and_hot_do_as_they_say() {
        let counts = picks(&Popularity::Uniform, 10, 100_000);
        assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
        assert_eq!(picks(&"hot:book-3".parse().unwrap(), 10, 100), [100]);
        assert!(Books::new(&shelf(3), &"hot:book-7".parse().unwrap(), 1).is_err());
        for bad in ["", "zipf", "zipf:-1", "zipf:nan", "hot:", "hot:a b", "cold"] {
            assert!(bad.parse::<Popularity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn books_are_picked_by_the_weights_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books.csv");
        std::fs::write(&path, "id,sold\nbook-0,1\nbook-3,2\nbook-1,0\nelsewhere,9\nbook-0,5\n").unwrap();
        let popularity: Popularity = format!("csv:{}:sold", path.display()).parse().unwrap();
        let counts = picks(&popularity, 5, 80_000);
        assert_eq!(counts.len(), 2, "book-0 weighs 6, book-3 2, the others nothing");
        assert!((58_000..62_000).contains(&counts[0]) && counts[0] + counts[1] == 80_000, "{counts:?}");
        std::fs::write(&path, "id,sold\nelsewhere,9\n").unwrap();
        let none = Books::new(&shelf(5), &popularity, 1).unwrap_err();
        assert!(none.contains("no book to which"), "{none}");
        std::fs::write(&path, "id,sold\nbook-0,-1\n").unwrap();
        let wrong = Books::new(&shelf(5), &popularity, 1).unwrap_err();
        assert!(wrong.contains("line 2, column sold"), "{wrong}");
    }

    #[test]
    fn a_cart_has_as_many_lines_as_it_is_told() {
        let lines_of = |books: usize, lines: usize| {
            let books = Arc::new(Books::new(&shelf(books), &Popularity::Uniform, 1).unwrap());
            let mut chooser = Chooser::new(Mix::carts(lines), books, 7);
            let Drawn::Write(RequestKind::Cart, command) = chooser.draw(0) else { panic!("no cart") };
            command.check().unwrap();
            let Command::Buy { lines } = command else { panic!("no buy") };
            lines.len()
        };
        assert_eq!([1, 5, 64].map(|lines| lines_of(200, lines)), [1, 5, 64]);
        assert_eq!(lines_of(3, 64), 3, "there are no more");
    }

    #[test]
    fn a_cart_names_a_book_once() {
        let books = Arc::new(Books::new(&shelf(4), &Popularity::Uniform, 1).unwrap());
        let mut chooser = Chooser::new("cart=1".parse().unwrap(), books, 7);
        for _ in 0..1_000 {
            let Drawn::Write(RequestKind::Cart, command) = chooser.draw(0) else { panic!("no cart") };
            command.check().unwrap();
        }
    }
}
