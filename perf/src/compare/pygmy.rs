//! Pygmy itself: three catalogs, two order servers and one front, asked by the generator of `load`.

use std::path::PathBuf;

use clap::Parser;
use pygmy_proto::BookId;
use pygmy_proto::message::NewBook;
use pygmy_proto::types::{ValueError, title, topic};

use super::account;
use super::peer::{Group, Guarantees, Peer, Shape, Spans, Standing};
use super::sandbox::{Farewell, Place, Server};
use super::shelf::{self, STOCK, Shelf, VALUE_BYTES};
use super::tally::Measured;
use crate::ask::Asker;
use crate::error::Error;
use crate::load::{self, LoadArgs};
use crate::local::Local;
use crate::shelf as books;

/// Its name in reports.
pub(super) const NAME: &str = "pygmy";
/// Bytes of a book as a lookup answers it that are not its title: id (8 + 12), lengths of title and topic (8 + 8), a
/// topic of one letter, price, stock and position (8 + 4 + 8).
const BYTES_BESIDE_TITLE: usize = 20 + 16 + 1 + 20;
/// Copies that each of the books has at least that a new store is born with.
const FIRST_BOOKS_STOCK: &str = "1000000";

/// What it promises.
pub(super) const GUARANTEES: Guarantees = Guarantees {
    durable: "on three of five disks: a majority of the replicas of the log",
    resend: "answered as the first time: every write has its session and number, kept with the state",
    failover: "the others go on by themselves, by agreement; no acknowledged buy is lost, none is done twice, and who was \
               cut off can acknowledge nothing",
    buy: "ordered in one log by who holds the token; every replica takes the copy if it is there, and records the order",
    lookup: "what the front keeps, never older than what this client has seen; the latest where asked for",
};

/// The servers' program.
#[derive(Debug)]
pub(super) struct Pygmy {
    program: PathBuf,
    version: String,
}

impl Pygmy {
    /// That of the program that runs its servers.
    pub(super) fn new(program: PathBuf) -> Self {
        let printed = account::first_line(&program, &["--version"]);
        Self { version: printed.rsplit(' ').next().unwrap_or("?").to_string(), program }
    }
}

impl Peer for Pygmy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> String {
        format!("Pygmy {}, 3 catalogs, 2 order servers, 1 front", self.version)
    }

    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn shapes(&self, group: Group) -> Vec<Shape> {
        let own = |clients, depth| Shape::new(group, clients, depth);
        match group {
            Group::Lookups => [1, 16, 64, 128].map(|depth| own(50, depth)).into(),
            Group::Buys => [8, 16, 32, 64, 128].map(|depth| own(64, depth)).into(),
            Group::One => vec![own(1, 1)],
            Group::Flash => Shape::flash(),
        }
    }

    fn start(&self, place: &Place, shelf: &Shelf) -> Result<Box<dyn Standing>, Error> {
        let local = Local::new(self.program.clone(), place.dir().join("cluster"));
        let name = "pygmy-node";
        let dir = local.dir().display().to_string();
        let args =
            ["up", "--fronts", "1", "--orders", "2", "--catalogs", "3", "--base-port", "0", "--json", "--dir", &dir];
        let args = args.map(String::from).into();
        place.start(Server { name, program: &self.program, args, account: None, farewell: Farewell::Term })?;
        // It names its servers once all of them stand.
        let log = place.log_path(name);
        place.wait("cluster that stands", || {
            let printed = std::fs::read_to_string(&log).ok()?;
            (printed.lines().filter(|line| line.contains("\"front\"")).count() == 1).then_some(())
        })?;
        let target = local.target()?;
        let Some(front) = target.fronts().first().map(|front| (*front).clone()) else {
            return Err(Error::Usage("the cluster has no front end".into()));
        };
        let books = shelf.numbers().map(book).collect::<Result<Vec<NewBook>, _>>();
        let books = books.map_err(|error| Error::Usage(error.to_string()))?;
        books::put(&mut Asker::connect(&front)?, &books)?;
        Ok(Box::new(Running { front: front.address.clone() }))
    }
}

/// A book that takes up as many bytes in a lookup's answer as the values of the other systems.
fn book(number: u32) -> Result<NewBook, ValueError> {
    let name = shelf::value(number);
    Ok(NewBook {
        id: BookId::new(&shelf::id(number))?,
        title: title(&name[name.len() - (VALUE_BYTES - BYTES_BESIDE_TITLE)..])?,
        topic: topic("t")?,
        cost_cents: 1_000,
        stock: STOCK,
    })
}

/// The options of `load`, as on its own command line.
#[derive(Debug, Parser)]
struct LoadLine {
    #[command(flatten)]
    args: LoadArgs,
}

/// Pygmy while it runs.
struct Running {
    front: String,
}

impl Standing for Running {
    fn load(&mut self, _: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        let line = LoadLine::try_parse_from(options(&self.front, shape, spans));
        let args = line.map_err(|error| Error::Usage(error.to_string()))?.args;
        let report = load::run(&args)?;
        let done = report.rows.iter().find(|row| row.result == "ok");
        let seconds = |us: Option<f64>| us.unwrap_or_default() / 1e6;
        Ok(Measured {
            per_s: report.done_per_s,
            failed: report.rows.iter().filter(|row| row.result != "ok").map(|row| row.count).sum(),
            p50_s: seconds(done.map(|row| row.latency.p50_us)),
            p99_s: seconds(done.map(|row| row.latency.p99_us)),
            max_s: seconds(done.map(|row| row.latency.max_us)),
        })
    }
}

/// What `load` is told.
fn options(front: &str, shape: &Shape, spans: Spans) -> Vec<String> {
    let books = if shape.is_one_book { format!("hot:{}", shelf::id(0)) } else { "uniform".into() };
    let mix = if shape.group == Group::Lookups { "lookup=1" } else { "buy=1" };
    let us = |span: std::time::Duration| format!("{}us", span.as_micros());
    let pairs = [
        ("--front", front.to_string()),
        ("--connections", shape.clients.to_string()),
        ("--depth", shape.depth.to_string()),
        ("--mix", mix.into()),
        ("--books", books),
        ("--stock", FIRST_BOOKS_STOCK.into()),
        ("--warmup", us(spans.warmup)),
        ("--duration", us(spans.duration)),
    ];
    let options = pairs.into_iter().flat_map(|(name, value)| [name.into(), value]);
    // Whether a debug build may be measured has been decided before.
    std::iter::once("load".into()).chain(options).chain(std::iter::once("--allow-debug".into())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pygmy_proto::message::Book;

    use super::*;

    #[test]
    fn a_book_is_as_long_as_the_values_of_the_others() {
        for number in [0, 999, 4_000_000_000] {
            let NewBook { id, title, topic, cost_cents, stock } = book(number).unwrap();
            let book = Book { id, title, topic, cost_cents, stock, changed_seq: 1 };
            assert_eq!(pygmy_proto::codec::encode(&book).len(), VALUE_BYTES, "{book:?}");
        }
    }

    #[test]
    fn load_understands_what_it_is_told() {
        let spans = Spans { warmup: Duration::from_millis(200), duration: Duration::from_secs(5) };
        let pygmy = Pygmy { program: PathBuf::new(), version: String::new() };
        for group in [Group::Lookups, Group::Buys, Group::One, Group::Flash] {
            for shape in pygmy.shapes(group) {
                let options = options("127.0.0.1:1", &shape, spans);
                assert!(LoadLine::try_parse_from(&options).is_ok(), "{options:?}");
            }
        }
    }
}
