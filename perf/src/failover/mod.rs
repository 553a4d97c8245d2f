//! `pygmy-perf failover`: how long the store stands still when servers fail under load, and when they come back.

mod clients;
mod cluster;
mod faults;
mod in_turn;
mod returns;
mod stream;
mod view;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::ValueEnum;
use hashbrown::HashSet;
use pygmy_proto::message::{Book, NewBook, Role};
use pygmy_proto::{BookId, Title, Topic};
use rustix::process::Signal;
use serde::Serialize;

use self::clients::{Clients, Rates, Shared};
use self::cluster::Watched;
pub use self::faults::{FailoverReport, Failure, Gaps};
pub use self::in_turn::{InTurnReport, Turn};
pub use self::returns::{Return, ReturnReport};
use self::stream::Stream;
pub use self::view::View;
use crate::ask::Asker;
use crate::error::Error;
use crate::load::mix::{Books, Popularity};
use crate::local::{Local, ProgramArgs};
use crate::net::{Engine, Plan};
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::{Target, TargetArgs};

/// Connections over which is bought while servers come back.
const LANES: usize = 16;
/// Price of a book that is brought in.
const COST_CENTS: u64 = 1_000;

/// What fails, or comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A catalog is killed; rounds in which the token was lost with it do not count
    KillCatalog,
    /// An order server is killed
    KillOrder,
    /// A front is killed
    KillFront,
    /// A catalog is killed; only rounds in which the token was lost with it count
    KillHolder,
    /// A catalog and an order server are killed at once
    KillCatalogAndOrder,
    /// A catalog is paused; only rounds in which the token stood still with it count
    StopHolder,
    /// A catalog, an order server and a front are killed and started again in turn for `--duration`; everything that was
    /// asked and answered is kept and judged
    InTurn,
    /// A catalog or an order server that was dead for `--behind` buys is started again
    Rejoin,
    /// One that is dead and whose files are gone is replaced, `--behind` buys later
    Replace,
    /// One that lives is replaced
    ReplaceLiving,
}

impl FaultKind {
    fn roles(self) -> &'static [Role] {
        match self {
            FaultKind::KillOrder => &[Role::Order],
            FaultKind::KillFront => &[Role::Front],
            FaultKind::InTurn => &[Role::Catalog, Role::Order, Role::Front],
            FaultKind::KillCatalogAndOrder => &[Role::Catalog, Role::Order],
            FaultKind::KillCatalog | FaultKind::KillHolder | FaultKind::StopHolder => &[Role::Catalog],
            // One of these in each round.
            FaultKind::Rejoin | FaultKind::Replace | FaultKind::ReplaceLiving => &[Role::Catalog, Role::Order],
        }
    }

    fn signal(self) -> Signal {
        if self == FaultKind::StopHolder { Signal::STOP } else { Signal::KILL }
    }

    /// Whether it is the coming back that is watched.
    fn is_return(self) -> bool {
        matches!(self, FaultKind::Rejoin | FaultKind::Replace | FaultKind::ReplaceLiving)
    }

    /// Whether a round counts in which the token was lost, or was not.
    fn counts(self, token_lost: bool) -> bool {
        match self {
            FaultKind::KillCatalog => !token_lost,
            FaultKind::KillHolder | FaultKind::StopHolder => token_lost,
            _ => true,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Kills or pauses servers of a running local cluster under a fixed rate of requests, one fault after the other, or
/// brings them back, and shows the longest time without a commit around each, and what clients saw of it
#[derive(Debug, Clone, clap::Args)]
pub struct FailoverArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    program: ProgramArgs,
    /// What fails, or comes back
    #[arg(long, value_enum)]
    fault: FaultKind,
    /// Faults that count
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Buys a second, in all
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Lookups a second beside them, in all; not while servers come back
    #[arg(long, default_value_t = 0.0)]
    lookups: f64,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN; those of a file that the store does not have are
    /// brought in. While servers come back all are bought alike
    #[arg(long, default_value = "uniform")]
    books: String,
    /// What books are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With in-turn: how long servers are killed
    #[arg(long, default_value = "2m", value_parser = span::parse)]
    duration: Duration,
    /// With in-turn: keep history.jsonl in this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// With rejoin and the replacements: buys made as fast as it can before the server comes
    #[arg(long, default_value_t = 1_000_000)]
    behind: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl FailoverArgs {
    fn check(&self) -> Result<(), Error> {
        if self.rounds == 0 || !(self.rate.is_finite() && self.rate > 0.0) {
            return Err(Error::Usage("give a rate above 0 and at least one round".into()));
        }
        if !(self.lookups.is_finite() && self.lookups >= 0.0) {
            return Err(Error::Usage(format!("--lookups {}: 0 or more", self.lookups)));
        }
        Ok(())
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Of servers that fail.
    Faults(FailoverReport),
    /// Of servers that are killed and started again in turn.
    InTurn(InTurnReport),
    /// Of servers that come back.
    Returns(ReturnReport),
}

impl Report {
    /// Whether as many faults were seen as were asked for, and no promise was found broken.
    pub fn is_good(&self, args: &FailoverArgs) -> bool {
        match self {
            Report::Faults(report) => report.gaps.rounds == args.rounds,
            Report::InTurn(report) => report.is_good(),
            Report::Returns(report) => report.gaps.rounds == args.rounds,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Report::Faults(report) => report.print(out),
            Report::InTurn(report) => report.print(out),
            Report::Returns(report) => report.print(out),
        }
    }
}

/// Does what `failover` says.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub fn run(args: &FailoverArgs) -> Result<Report, Error> {
    args.check()?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let named = match &popularity {
        Popularity::File(file) => file.read().map_err(|error| Error::Usage(format!("--books: {error}")))?,
        _ => Vec::new(),
    };
    let local = Local::new(args.program.find(), args.target.dir()?);
    let target = local.target()?;
    let books = stock(&target, named.into_iter().map(|(id, _)| id).collect())?;
    cluster::check_behind(args.behind, books.len())?;
    let weighted = Books::new(&books, &popularity, args.seed).map_err(Error::Usage)?;
    let shared = Shared { clock: Clock::start(), seen: Mutex::default(), orders: Mutex::default() };
    let shared = Arc::new(shared);
    let fronts: Vec<String> = target.fronts().iter().map(|front| front.address.clone()).collect();
    let clients = || Clients::start(&fronts, &weighted, args.seed, &shared);
    let rates = Rates { buys: args.rate, lookups: args.lookups };
    let watched = Watched { local: &local, target: target.clone(), orders: &shared.orders, clock: shared.clock };
    match args.fault {
        FaultKind::InTurn => {
            let clients = clients()?;
            in_turn::run(args, watched, &shared, |is_over| clients.run(rates, is_over)).map(Report::InTurn)
        }
        fault if fault.is_return() => {
            let plan = Plan { addresses: target.front_addresses()?, count: LANES, first: 0 };
            let ids = books.iter().map(|book| book.id).collect();
            let load = |is_over: &AtomicBool| {
                let mut engine = Engine::new(shared.clock, plan).map_err(Error::io("a poll"))?;
                let mut stream = Stream::new(args.rate, LANES, ids, &shared.orders, is_over);
                engine.run(&mut stream).map_err(Error::io("the event loop"))
            };
            let (returns, load) = under(load, || returns::run(args, watched))?;
            load?;
            returns.map(Report::Returns)
        }
        _ => {
            let clients = clients()?;
            let load = |is_over: &AtomicBool| clients.run(rates, is_over);
            let (faults, ()) = under(load, || faults::run(args, watched, &shared))?;
            faults.map(Report::Faults)
        }
    }
}

/// Does something while a load runs beside it; what both came to.
fn under<L: Send, R>(load: impl FnOnce(&AtomicBool) -> L + Send, work: impl FnOnce() -> R) -> Result<(R, L), Error> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&is_over));
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        let load = load.join().map_err(|_| poisoned())?;
        Ok((result, load))
    })
}

/// The books of the store; of `named`, those that the store does not have are brought in before.
fn stock(target: &Target, named: BTreeSet<BookId>) -> Result<Vec<Book>, Error> {
    let mut asker = Asker::connect(target.fronts()[0])?;
    let books = shelf::read(&mut asker, 0)?.books;
    let known: HashSet<BookId> = books.iter().map(|book| book.id).collect();
    let book = |id: BookId| NewBook {
        id,
        title: Title::truncated(&id),
        topic: Topic::truncated("failover"),
        cost_cents: COST_CENTS,
        stock: cluster::STOCK,
    };
    let missing: Vec<NewBook> = named.into_iter().filter(|id| !known.contains(id)).map(book).collect();
    if missing.is_empty() {
        return Ok(books);
    }
    shelf::put(&mut asker, &missing)?;
    Ok(shelf::read(&mut asker, 0)?.books)
}

fn poisoned() -> Error {
    Error::Usage("a thread of this program panicked: please report it".into())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn failed(why: String) -> Error {
    Error::Io { what: "failover".into(), error: io::Error::other(why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounds_of_the_kind_asked_for_count() {
        assert!(FaultKind::KillCatalog.counts(false) && !FaultKind::KillCatalog.counts(true));
        assert!(FaultKind::KillHolder.counts(true) && !FaultKind::StopHolder.counts(false));
        assert!(FaultKind::KillFront.counts(false) && FaultKind::KillCatalogAndOrder.counts(true));
    }
}
