//! `pygmy-perf cache`: what a front's cache is worth: how many lookups it answers, and what they take with it, without
//! it, and right behind a change of the book.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use hdrhistogram::Histogram;
use pygmy_client::{Client, Error as CallError, Options};
use pygmy_proto::BookId;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::ask::Asker;
use crate::error::Error;
use crate::load::check_build;
use crate::load::mix::{Books, Popularity};
use crate::load::report::Latency;
use crate::run::{Better, Cell, Distribution, Panel, Percentiles, Run, Table, Unit};
use crate::shelf;
use crate::span;
use crate::target::{Target, TargetArgs};

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Looks up books through one front end, one after the other: with its cache, past it, and each right after a copy of it
/// was bought through another front end.
#[derive(Debug, Clone, clap::Args)]
pub struct CacheArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Lookups of each kind
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    lookups: u64,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN; those of a file that the store does not have are
    /// brought in
    #[arg(long, default_value = "zipf:0.99")]
    books: String,
    /// What books are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the run in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    allow_debug: bool,
}

/// Lookups of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// How they were asked: `with`, `without`, `after_buy`.
    pub asked: &'static str,
    /// Whether the front end answered them itself.
    pub is_hit: bool,
    /// How many.
    pub count: u64,
    /// From the call to its end.
    #[serde(flatten)]
    pub latency: Latency,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CacheReport {
    /// True when this program was built without optimisation: then its figures are no measurement.
    pub debug_build: bool,
    /// How requests spread over the books, as given.
    pub books: String,
    /// Books there are to choose from.
    pub books_count: usize,
    /// Share of the lookups that the cache answered, of those asked with it.
    pub hit_ratio: f64,
    /// The same of those asked right after their book had been bought elsewhere.
    pub hit_ratio_after_buy: f64,
    /// What they took.
    pub rows: Vec<Row>,
}

impl CacheReport {
    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { books, books_count, hit_ratio, hit_ratio_after_buy, .. } = self;
        writeln!(out, "{books_count} books, {books}: the cache answers {:.2} % of the lookups,", hit_ratio * 100.0)?;
        writeln!(out, "{:.2} % of those of books that were bought elsewhere just before", hit_ratio_after_buy * 100.0)?;
        writeln!(out, "{:<10} {:<5} {:>8} {:>10} {:>10} {:>10}", "asked", "", "count", "p50 us", "p99 us", "max us")?;
        for Row { asked, is_hit, count, latency } in &self.rows {
            let Latency { p50_us, p99_us, max_us, .. } = latency;
            let hit = if *is_hit { "hit" } else { "miss" };
            writeln!(out, "{asked:<10} {hit:<5} {count:>8} {p50_us:>10.1} {p99_us:>10.1} {max_us:>10.1}")?;
        }
        if self.debug_build { writeln!(out, "a debug build: these are no figures") } else { Ok(()) }
    }

    /// For a report.
    fn fill(&self, run: &mut Run, asked: &Asked) {
        let one = "One client, one lookup after the other: what a lookup takes, not what the store bears.";
        run.notes.push(one.into());
        run.number("hits of the cache", self.hit_ratio, Unit::Ratio, Better::Higher);
        run.number("hits right behind a buy elsewhere", self.hit_ratio_after_buy, Unit::Ratio, Better::Higher);
        let (count, seconds) = (
            |value: u64| Cell::Value { value: value as f64, unit: Unit::Count },
            |us: f64| Cell::Value { value: us / 1e6, unit: Unit::Seconds },
        );
        let mut rows = Vec::new();
        for Row { asked, is_hit, count: lookups, latency } in &self.rows {
            let (name, Latency { p50_us, p90_us, p99_us, p999_us, max_us }) = (name(asked, *is_hit), *latency);
            run.number(format!("{name}, p50"), p50_us / 1e6, Unit::Seconds, Better::Lower);
            run.number(format!("{name}, p99"), p99_us / 1e6, Unit::Seconds, Better::Lower);
            let times = [p50_us, p90_us, p99_us, p999_us, max_us].map(seconds);
            rows.push([vec![Cell::Text(name), count(*lookups)], times.into()].concat());
        }
        let columns = ["lookups", "count", "p50", "p90", "p99", "p99.9", "max"].map(String::from).into();
        run.panels
            .push(Panel::Percentiles(Percentiles { title: "What lookups took".into(), lines: asked.distributions() }));
        run.panels.push(Panel::Table(Table { title: "Lookups".into(), columns, rows }));
    }
}

/// Times of lookups that the front end answered itself, and of those that it did not.
struct Times {
    hits: Histogram<u64>,
    misses: Histogram<u64>,
}

impl Times {
    fn new() -> Result<Self, Error> {
        let new = || Histogram::new(DIGITS).map_err(|error| Error::Usage(error.to_string()));
        Ok(Self { hits: new()?, misses: new()? })
    }

    /// Looks a book up and notes what that took.
    fn look_up(&mut self, client: &mut Client, book: BookId) -> Result<(), Error> {
        let start = Instant::now();
        client.lookup(book).map_err(ended)?;
        let ns = span::ns(start.elapsed());
        // Who made the answer is the front itself only where it had it.
        let is_hit = client.server().is_some_and(|front| front.node == client.last().node);
        let times = if is_hit { &mut self.hits } else { &mut self.misses };
        // Histograms that resize themselves count whatever they are given.
        let counted = times.record(ns);
        debug_assert!(counted.is_ok(), "{counted:?}");
        Ok(())
    }

    fn hit_ratio(&self) -> f64 {
        self.hits.len() as f64 / (self.hits.len() + self.misses.len()).max(1) as f64
    }

    /// Times of those that there were, and whether they were hits.
    fn kinds(&self) -> impl Iterator<Item = (bool, &Histogram<u64>)> {
        [(true, &self.hits), (false, &self.misses)].into_iter().filter(|(_, times)| !times.is_empty())
    }
}

/// How lookups were asked, and what they took.
struct Asked {
    with: Times,
    without: Times,
    after: Times,
}

impl Asked {
    fn ways(&self) -> [(&'static str, &Times); 3] {
        [("with", &self.with), ("without", &self.without), ("after_buy", &self.after)]
    }

    fn rows(&self) -> Vec<Row> {
        let rows = |(asked, times): (&'static str, &'_ Times)| -> Vec<Row> {
            let row = |(is_hit, times): (bool, &Histogram<u64>)| Row {
                asked,
                is_hit,
                count: times.len(),
                latency: Latency::of(times),
            };
            times.kinds().map(row).collect()
        };
        self.ways().into_iter().flat_map(rows).collect()
    }

    fn distributions(&self) -> Vec<Distribution> {
        let lines = |(asked, times): (&'static str, &'_ Times)| -> Vec<Distribution> {
            times.kinds().map(|(is_hit, times)| Distribution::of(name(asked, is_hit), times)).collect()
        };
        self.ways().into_iter().flat_map(lines).collect()
    }
}

/// A row's name in a report.
fn name(asked: &str, is_hit: bool) -> String {
    let how = match asked {
        "with" => "with the cache",
        "without" => "past the cache",
        _ => "right behind a buy elsewhere",
    };
    format!("{how}: {}", if is_hit { "hit" } else { "miss" })
}

/// Does what `cache` says.
///
/// # Errors
/// When the store cannot be reached, or a lookup fails.
pub fn run(args: &CacheArgs) -> Result<CacheReport, Error> {
    check_build(args.allow_debug)?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let named = popularity.named()?;
    let target = Target::find(&args.target)?;
    let mut run = Run::begin("cache", format!("{} lookups of each kind, {}", args.lookups, args.books));
    let fronts: Vec<&str> = target.fronts().into_iter().map(|front| front.address.as_str()).collect();
    let (first, last) = match fronts[..] {
        [first, .., last] => (first, last),
        _ => return Err(Error::Usage("give two front ends: one looks up, the other buys".into())),
    };
    let mut asker = Asker::connect(target.fronts()[0])?;
    // One copy of each book may be bought at every lookup.
    let stock = u32::try_from(args.lookups).unwrap_or(u32::MAX);
    let shelf = shelf::with(&mut asker, named, stock)?;
    shelf::restock(&mut asker, &shelf, stock)?;
    let books = Books::new(&shelf, &popularity, args.seed).map_err(Error::Usage)?;
    let asked = look_up_all(args, first, last, &books)?;
    let report = CacheReport {
        debug_build: cfg!(debug_assertions),
        books: args.books.clone(),
        books_count: books.len(),
        hit_ratio: asked.with.hit_ratio(),
        hit_ratio_after_buy: asked.after.hit_ratio(),
        rows: asked.rows(),
    };
    if let Some(dir) = &args.out {
        report.fill(&mut run, &asked);
        run.save(dir)?;
    }
    Ok(report)
}

/// Looks the same books up in each of the three ways.
fn look_up_all(args: &CacheArgs, first: &str, last: &str, books: &Books) -> Result<Asked, Error> {
    let (mut client, mut buyer) = (Client::new(Options::new([first])), Client::new(Options::new([last])));
    let mut asked = Asked { with: Times::new()?, without: Times::new()?, after: Times::new()? };
    // The same draws for each, so that they compare.
    let draws = || ChaCha8Rng::seed_from_u64(args.seed);
    client.connect().map_err(ended)?;
    each(args, draws(), books, |book| asked.with.look_up(&mut client, book))?;
    each(args, draws(), books, |book| {
        let bought = buyer.buy(&[(book, 1)]).map_err(ended)?;
        // The buyer comes to this front end next: the old stock is no answer.
        client.raise_floor(bought.seq);
        asked.after.look_up(&mut client, book)
    })?;
    client.set_no_cache(true);
    each(args, draws(), books, |book| asked.without.look_up(&mut client, book))?;
    Ok(asked)
}

fn each(
    args: &CacheArgs,
    mut rng: ChaCha8Rng,
    books: &Books,
    mut look: impl FnMut(BookId) -> Result<(), Error>,
) -> Result<(), Error> {
    (0..args.lookups).try_for_each(|_| look(books.pick_id(&mut rng)))
}

/// A call that failed ends the run.
fn ended(error: CallError) -> Error {
    match error {
        CallError::Refused(refusal) => Error::Refused { address: "the front end".into(), error: Box::new(refusal) },
        other => Error::Unreachable { address: "the front end".into(), why: other.to_string() },
    }
}
