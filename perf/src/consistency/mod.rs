//! `pygmy-perf consistency`: how far behind the answers of a front end are while books are bought through another.

mod lag;
mod report;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use pygmy_proto::limits::COPIES_MAX;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use self::lag::Changes;
pub use self::report::{ConsistencyReport, Row};
use self::watch::{FRONTS, Noted, Phase, Rates, Watch};
use crate::ask::Asker;
use crate::error::Error;
use crate::load::check_build;
use crate::load::mix::{Books, Popularity};
use crate::net::{Engine, Plan};
use crate::run::Run;
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::{Target, TargetArgs, resolve};

/// Connections of each use.
const CONNECTIONS: usize = 4;
/// Not counted at the beginning of each way to ask: the caches have to see the books first.
const SETTLE: Duration = Duration::from_millis(500);
/// Between being ready and the first request.
const START_AFTER_NS: u64 = 20_000_000;

/// How lookups are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By somebody who has seen nothing of the store yet
    Plain,
    /// By the buyer, whose next answer must show what was acknowledged to him, whoever gives it
    Session,
    /// So that they show whatever was answered before, to anyone
    Fresh,
}

impl Mode {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Session => "session",
            Mode::Fresh => "fresh",
        }
    }
}

/// Through which front end is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// The one through which is bought.
    Same,
    /// Another one.
    Second,
}

impl Front {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Front::Same => "same front",
            Front::Second => "second front",
        }
    }
}

/// Buys books through one front end and looks them up through it and through another, in an open loop, and shows how
/// far each answer is behind what had been acknowledged when it was asked for. Nobody else may write meanwhile
#[derive(Debug, Clone, clap::Args)]
pub struct ConsistencyArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Buys a second, through the first front end
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Lookups a second through each of the two
    #[arg(long, default_value_t = 5_000.0)]
    lookups: f64,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN; those of a file that the store does not have are
    /// brought in
    #[arg(long, default_value = "zipf:0.99")]
    books: String,
    /// How lookups are asked, one way after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "plain,session,fresh")]
    modes: Vec<Mode>,
    /// How long in each way
    #[arg(long, default_value = "10s", value_parser = span::parse)]
    duration: Duration,
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

impl ConsistencyArgs {
    fn check(&self) -> Result<(), Error> {
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        if !is_rate(self.rate) || !is_rate(self.lookups) {
            return Err(Error::Usage("--rate and --lookups must be more than 0".into()));
        }
        if self.duration.is_zero() {
            return Err(Error::Usage("--duration must be longer than nothing".into()));
        }
        Ok(())
    }

    /// Copies that there must be of each book: all buys may be of the same.
    fn stock(&self) -> u32 {
        let seconds = (self.duration + SETTLE).as_secs_f64() * self.modes.len() as f64;
        // A conversion of a float saturates.
        ((self.rate * seconds * 1.1 + 1_000.0) as u32).min(COPIES_MAX)
    }
}

/// Does what `consistency` says.
///
/// # Errors
/// When the store cannot be reached, or a connection is lost meanwhile.
pub fn run(args: &ConsistencyArgs) -> Result<ConsistencyReport, Error> {
    check_build(args.allow_debug)?;
    args.check()?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let named = popularity.named()?;
    let target = Target::find(&args.target)?;
    let fronts = target.fronts();
    let (same, second) = match fronts[..] {
        [same, .., second] => (same, second),
        _ => return Err(Error::Usage("give two front ends: books are bought through one, looked up in both".into())),
    };
    let mut run = Run::begin("consistency", format!("{} buys/s, {} lookups/s at each front", args.rate, args.lookups));
    let mut asker = Asker::connect(same)?;
    let shelf = shelf::with(&mut asker, named, args.stock())?;
    shelf::restock(&mut asker, &shelf, args.stock())?;
    let books = Books::new(&shelf, &popularity, args.seed).map_err(Error::Usage)?;
    let address = |front: &Front| if *front == Front::Same { resolve(same) } else { resolve(second) };
    let addresses = FRONTS.iter().map(address).collect::<Result<_, _>>()?;
    let plan = Plan { addresses, count: CONNECTIONS * FRONTS.len(), first: 0 };
    let phases = drive(args, &books, plan)?;
    let report = ConsistencyReport::new(args, books.len(), &phases);
    if let Some(dir) = &args.out {
        report.fill(&mut run, &phases);
        run.save(dir)?;
    }
    Ok(report)
}

/// What was found while lookups were asked in one way.
struct Watched {
    mode: Mode,
    noted: Noted,
    lags: Vec<lag::Lag>,
}

/// Asks in one way after the other.
fn drive(args: &ConsistencyArgs, books: &Books, plan: Plan) -> Result<Vec<Watched>, Error> {
    let clock = Clock::start();
    let mut engine = Engine::new(clock, plan).map_err(Error::io("a poll"))?;
    let rates = Rates { buys: args.rate, lookups: args.lookups };
    let mut watch = Watch::new(books, ChaCha8Rng::seed_from_u64(args.seed), rates, CONNECTIONS);
    let mut turn = |watch: &mut Watch<'_>| -> Result<Noted, Error> {
        engine.run(watch).map_err(Error::io("the event loop"))?;
        watch.take().map_err(|why| Error::Unreachable { address: "consistency".into(), why })
    };
    turn(&mut watch)?;
    let mut phases: Vec<Watched> = Vec::new();
    for mode in &args.modes {
        let from_ns = clock.now_ns() + START_AFTER_NS;
        let counted_ns = from_ns + span::ns(SETTLE);
        watch.begin(Phase { mode: *mode, from_ns, until_ns: counted_ns + span::ns(args.duration) });
        let mut noted = turn(&mut watch)?;
        noted.seen.retain(|seen| seen.look.asked_ns >= counted_ns);
        phases.push(Watched { mode: *mode, noted, lags: Vec::new() });
    }
    // A change of one phase may be missing in the answers of the next.
    let changes = Changes::new(phases.iter().flat_map(|phase| phase.noted.changes.iter().copied()).collect());
    for phase in &mut phases {
        phase.lags = phase.noted.seen.iter().map(|seen| changes.lag(&seen.look)).collect();
    }
    Ok(phases)
}
