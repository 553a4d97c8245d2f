//! `pygmy-perf failover`: how long the store stands still when servers fail under load, and when they come back.

mod cluster;
mod faults;
mod returns;
mod stream;

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use pygmy_proto::message::Role;
use rustix::process::Signal;
use serde::Serialize;

use self::cluster::Watched;
pub use self::faults::{FailoverReport, Failure};
pub use self::returns::{Return, ReturnReport};
use self::stream::{Orders, Stream};
use crate::ask::Asker;
use crate::error::Error;
use crate::local::{Local, ProgramArgs};
use crate::net::{Engine, Plan};
use crate::shelf;
use crate::span::Clock;
use crate::target::TargetArgs;

/// Connections over which is bought.
const LANES: usize = 16;

/// What fails, or comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A catalog is killed; rounds in which the token was lost with it do not count
    KillCatalog,
    /// An order server is killed
    KillOrder,
    /// A catalog is killed; only rounds in which the token was lost with it count
    KillHolder,
    /// A catalog and an order server are killed at once
    KillCatalogAndOrder,
    /// A catalog is paused; only rounds in which the token stood still with it count
    StopHolder,
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

/// Kills or pauses servers of a running local cluster under a fixed rate of buys, one fault after the other, or brings
/// them back, and shows the longest time without a commit around each
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
    /// With rejoin and the replacements: buys made as fast as it can before the server comes
    #[arg(long, default_value_t = 1_000_000)]
    behind: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl FailoverArgs {
    /// Faults that were asked for.
    pub fn rounds(&self) -> usize {
        self.rounds
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Of servers that fail.
    Faults(FailoverReport),
    /// Of servers that come back.
    Returns(ReturnReport),
}

impl Report {
    /// Rounds that count.
    pub fn rounds(&self) -> usize {
        match self {
            Report::Faults(report) => report.rounds,
            Report::Returns(report) => report.rounds,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Report::Faults(report) => report.print(out),
            Report::Returns(report) => report.print(out),
        }
    }
}

/// Does what `failover` says.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub fn run(args: &FailoverArgs) -> Result<Report, Error> {
    if args.rounds == 0 || !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(Error::Usage("give a rate above 0 and at least one round".into()));
    }
    let dir = args.target.dir()?;
    let local = Local::new(args.program.find(), dir);
    let target = local.target()?;
    let shelf = shelf::read(&mut Asker::connect(target.fronts()[0])?, 0)?;
    let books: Vec<_> = shelf.books.iter().map(|book| book.id).collect();
    cluster::check_behind(args.behind, books.len())?;
    let (orders, is_over, clock) = (Mutex::new(Orders::default()), AtomicBool::new(false), Clock::start());
    let plan = Plan { addresses: target.front_addresses()?, count: LANES, first: 0 };
    let report = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut engine = Engine::new(clock, plan).map_err(Error::io("a poll"))?;
            let mut stream = Stream::new(args.rate, LANES, books, &orders, &is_over);
            engine.run(&mut stream).map_err(Error::io("the event loop"))
        });
        let watched = Watched { local: &local, target, orders: &orders, clock };
        let report = if args.fault.is_return() {
            returns::run(args, watched).map(Report::Returns)
        } else {
            faults::run(args, watched).map(Report::Faults)
        };
        is_over.store(true, Ordering::Relaxed);
        stream.join().map_err(|_| poisoned())??;
        report
    })?;
    Ok(report)
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
        assert!(FaultKind::KillOrder.counts(false) && FaultKind::KillCatalogAndOrder.counts(true));
    }
}
