//! Pygmy itself: three catalogs, two order servers and one front, asked by the generator of `load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pygmy_proto::BookId;
use pygmy_proto::message::{Book, NewBook};
use pygmy_proto::types::{ValueError, title, topic};

use super::account;
use super::peer::{Group, Guarantees, Peer, Shape, Spans, Standing};
use super::sandbox::{Farewell, Place, Server};
use super::shelf::{self, STOCK, Shelf, VALUE_BYTES};
use super::tally::Measured;
use crate::ask::Asker;
use crate::error::Error;
use crate::load::mix::{Books, Mix, Popularity};
use crate::load::plan::LoadPlan;
use crate::load::record::{Outcome, Record};
use crate::local::Local;
use crate::shelf as books;
use crate::target::resolve;

/// Its name in reports.
pub(super) const NAME: &str = "pygmy";
/// The topic of the books that are brought in.
const TOPIC: &str = "t";
/// Bytes of a book as a lookup answers it that are not its title: id (8 + 12), lengths of title and topic (8 + 8), a
/// topic of one letter, price, stock and position (8 + 4 + 8).
const BYTES_BESIDE_TITLE: usize = 20 + 16 + 1 + 20;

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
        let front = target.fronts().first().map(|front| (*front).clone());
        let front = front.ok_or_else(|| Error::Usage("the cluster has no front end".into()))?;
        let books = shelf.numbers().map(book).collect::<Result<Vec<NewBook>, _>>();
        let books = books.map_err(|error| Error::Usage(error.to_string()))?;
        let mut asker = Asker::connect(&front)?;
        books::put(&mut asker, &books)?;
        // Those that a new store is born with are left alone: they are longer, and few of each.
        let mut own = books::read(&mut asker, 0)?.books;
        own.retain(|book| book.topic.as_str() == TOPIC);
        let choose = |of: &[Book]| Books::new(of, &Popularity::Uniform, 1).map(Arc::new).map_err(Error::Usage);
        let (spread, one) = (choose(&own)?, choose(own.get(..1).unwrap_or_default())?);
        Ok(Box::new(Running { address: resolve(&front)?, spread, one }))
    }
}

/// A book that takes up as many bytes in a lookup's answer as the values of the other systems.
fn book(number: u32) -> Result<NewBook, ValueError> {
    let name = shelf::value(number);
    Ok(NewBook {
        id: BookId::new(&shelf::id(number))?,
        title: title(&name[name.len() - (VALUE_BYTES - BYTES_BESIDE_TITLE)..])?,
        topic: topic(TOPIC)?,
        cost_cents: 1_000,
        stock: STOCK,
    })
}

/// Pygmy while it runs.
struct Running {
    address: SocketAddr,
    /// All books that were brought in.
    spread: Arc<Books>,
    /// One of them.
    one: Arc<Books>,
}

impl Standing for Running {
    fn load(&mut self, _: &Place, shape: &Shape, spans: Spans) -> Result<Measured, Error> {
        let books = if shape.is_one_book { &self.one } else { &self.spread };
        plan(shape, spans)?.run(books, &[self.address]).map(|record| measured(&record, spans))
    }
}

/// What the generator of `load` is told.
fn plan(shape: &Shape, spans: Spans) -> Result<LoadPlan, Error> {
    let mix = if shape.group == Group::Lookups { "lookup=1" } else { "buy=1" };
    let mix: Mix = mix.parse().map_err(Error::Usage)?;
    let Spans { warmup, duration } = spans;
    Ok(LoadPlan { connections: shape.clients, depth: shape.depth, warmup, duration, ..LoadPlan::new(mix) })
}

/// What it counted.
fn measured(record: &Record, spans: Spans) -> Measured {
    let is_ok = |outcome: &Outcome| *outcome == Outcome::Ok;
    let failed =
        record.latencies.iter().filter(|((_, outcome), _)| !is_ok(outcome)).map(|(_, times)| times.len()).sum();
    // Of one kind of request there is one distribution of those that were done.
    let done = record.latencies.iter().find(|((_, outcome), _)| is_ok(outcome)).map(|(_, times)| times);
    let at = |quantile| done.map_or(0.0, |times| times.value_at_quantile(quantile) as f64 / 1e9);
    let per_s = record.done as f64 / spans.duration.as_secs_f64();
    Measured { per_s, failed, p50_s: at(0.5), p99_s: at(0.99), max_s: at(1.0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::mix::RequestKind;

    const SPANS: Spans = Spans { warmup: Duration::from_millis(200), duration: Duration::from_secs(5) };

    #[test]
    fn a_book_is_as_long_as_the_values_of_the_others() {
        for number in [0, 999, 4_000_000_000] {
            let NewBook { id, title, topic, cost_cents, stock } = book(number).unwrap();
            let book = Book { id, title, topic, cost_cents, stock, changed_seq: 1 };
            assert_eq!(pygmy_proto::codec::encode(&book).len(), VALUE_BYTES, "{book:?}");
        }
    }

    #[test]
    fn every_workload_can_be_done() {
        let pygmy = Pygmy { program: PathBuf::new(), version: String::new() };
        for group in [Group::Lookups, Group::Buys, Group::One, Group::Flash] {
            for shape in pygmy.shapes(group) {
                plan(&shape, SPANS).and_then(|plan| plan.check()).unwrap();
            }
        }
    }

    #[test]
    fn what_is_not_done_counts_as_failed() {
        let mut record = Record::new().unwrap();
        record.latencies.add((RequestKind::Buy, Outcome::Ok), 1_000_000);
        record.latencies.add((RequestKind::Buy, Outcome::Busy), 5);
        record.latencies.add((RequestKind::Buy, Outcome::Lost), 9_000_000_000);
        record.done = 10;
        let found = measured(&record, SPANS);
        assert_eq!((found.per_s, found.failed), (2.0, 2));
        assert!((found.p50_s - 0.001).abs() < 1e-5 && (found.max_s - 0.001).abs() < 1e-5, "{found:?}");
    }
}
