//! `pygmy-perf failover`: how long the store stands still when servers fail under load, and when they come back.

mod clients;
mod cluster;
mod fault;
mod faults;
mod in_turn;
mod judged;
mod kept;
mod returns;
mod sight;
mod stream;
mod timeline;
mod view;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use self::clients::{Clients, Rates, Shared};
use self::cluster::Watched;
use self::fault::Fault;
pub use self::fault::{Action, FaultKind};
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
use crate::run::Run;
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::TargetArgs;

/// Connections over which is bought while servers come back.
const LANES: usize = 16;

/// Kills or pauses servers of a running local cluster under a fixed rate of requests, one fault after the other, or
/// brings them back, and shows the longest time without a commit around each, and what clients saw of it
#[derive(Debug, Clone, clap::Args)]
pub struct FailoverArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    program: ProgramArgs,
    /// What fails, or comes back
    #[arg(long, value_enum, required_unless_present = "node", conflicts_with = "node")]
    fault: Option<FaultKind>,
    /// Instead: one server, such as catalog-2
    #[arg(long, value_name = "NAME", requires = "action")]
    node: Option<String>,
    /// What is done to it
    #[arg(long, value_enum, requires = "node")]
    action: Option<Action>,
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
    /// Keep everything that is asked and answered while servers fail, and judge it; nobody else may write meanwhile.
    /// Always with in-turn, never while servers come back
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = true)]
    check: bool,
    /// Keep the run in this directory, and history.jsonl where there is one
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

    /// What is done to whom.
    fn what(&self) -> Result<Fault, Error> {
        match (self.fault, &self.node, self.action) {
            (Some(kind), ..) => Ok(Fault::Kind(kind)),
            (None, Some(node), Some(action)) => Ok(Fault::Node(node.clone(), action)),
            _ => Err(Error::Usage("give --fault, or --node and --action".into())),
        }
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
            Report::Faults(report) => report.is_good(args),
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
    let what = args.what()?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let named = popularity.named()?;
    let local = Local::new(args.program.find(), args.target.dir()?);
    let target = local.target()?;
    let title = format!("{}, {} buys/s and {} lookups/s", what.name(), args.rate, args.lookups);
    let mut run = Run::begin("failover", title);
    let shared = Shared { clock: Clock::start(), seen: Mutex::default(), orders: Mutex::default() };
    let shared = Arc::new(shared);
    let books = shelf::with(&mut Asker::connect(target.fronts()[0])?, named, cluster::STOCK)?;
    cluster::check_behind(args.behind, books.len())?;
    let weighted = Books::new(&books, &popularity, args.seed).map_err(Error::Usage)?;
    let fronts: Vec<String> = target.fronts().iter().map(|front| front.address.clone()).collect();
    let clients = || Clients::start(&fronts, &weighted, args.seed, &shared);
    let rates = Rates { buys: args.rate, lookups: args.lookups };
    let watched = Watched { local: &local, target: target.clone(), orders: &shared.orders, clock: shared.clock };
    let report = match what {
        Fault::Kind(FaultKind::InTurn) => {
            let clients = clients()?;
            let load = |is_over: &AtomicBool| clients.run(rates, is_over);
            Report::InTurn(in_turn::run(args, watched, &shared, load, &mut run)?)
        }
        Fault::Kind(kind) if kind.is_return() => {
            let plan = Plan { addresses: target.front_addresses()?, count: LANES, first: 0 };
            let ids = books.iter().map(|book| book.id).collect();
            let load = |is_over: &AtomicBool| {
                let mut engine = Engine::new(shared.clock, plan).map_err(Error::io("a poll"))?;
                let mut stream = Stream::new(args.rate, LANES, ids, &shared.orders, is_over);
                engine.run(&mut stream).map_err(Error::io("the event loop"))
            };
            let (returns, load) = under(load, || returns::run(args, kind, watched, &mut run))?;
            load?;
            Report::Returns(returns?)
        }
        what => {
            let clients = clients()?;
            let load = |is_over: &AtomicBool| clients.run(rates, is_over);
            Report::Faults(faults::run(args, &what, watched, &shared, load, &mut run)?)
        }
    };
    if let Some(dir) = &args.out {
        run.save(dir)?;
    }
    Ok(report)
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

fn poisoned() -> Error {
    Error::Usage("a thread of this program panicked: please report it".into())
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn failed(why: String) -> Error {
    Error::Io { what: "failover".into(), error: io::Error::other(why) }
}
