//! `pygmy-perf load`: requests at a given rate or depth, counted by kind and result.

pub mod costs;
pub mod keep;
pub mod mix;
pub mod pace;
pub mod plan;
pub mod record;
pub mod report;
pub mod series;
pub mod traces;
pub mod watch;
pub mod worker;

mod panels;
mod progress;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::local::ProgramArgs;
use crate::run::Run;
use crate::span;
use crate::target::{Target, TargetArgs};
use costs::Meter;
use mix::{Mix, Popularity};
use pace::Arrivals;
use plan::{LoadPlan, read_books};
use progress::Progress;
use report::LoadReport;

/// Loads the store and measures it.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    program: ProgramArgs,
    /// Connections, spread over the front ends
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests in flight on each connection; with --rate, at most
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Threads of this program
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = span::parse)]
    duration: Duration,
    /// How long to load before that
    #[arg(long, default_value = "1s", value_parser = span::parse)]
    warmup: Duration,
    /// What to ask, with weights: lookup, search, buy, cart, restock
    #[arg(long, default_value = "lookup=80,buy=20")]
    mix: String,
    /// Which books: uniform, zipf:THETA, hot:BOOK or csv:PATH:COLUMN
    #[arg(long, default_value = "uniform")]
    books: String,
    /// Open loop: requests per second in all; without it, a closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// How the requests of an open loop spread over time
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    arrivals: Arrivals,
    /// Before the load, restock every book to at least so many copies
    #[arg(long, value_name = "COPIES", default_value_t = 0)]
    stock: u32,
    /// Let reads go past what the front ends keep themselves
    #[arg(long)]
    no_cache: bool,
    /// Let one in N requests ask where its time goes; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    trace: u64,
    /// Deadline of each request
    #[arg(long, default_value = "5s", value_parser = span::parse)]
    deadline: Duration,
    /// What the requests are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep what was found in this directory: run.json, histograms, tables
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Do not show on the terminal how it goes
    #[arg(long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    pub allow_debug: bool,
}

impl LoadArgs {
    fn plan(&self) -> Result<LoadPlan, Error> {
        let mix: Mix = self.mix.parse().map_err(|why| Error::Usage(format!("--mix: {why}")))?;
        let plan = LoadPlan {
            connections: self.connections,
            depth: self.depth,
            threads: self.threads,
            rate: self.rate,
            arrivals: self.arrivals,
            warmup: self.warmup,
            duration: self.duration,
            deadline: self.deadline,
            no_cache: self.no_cache,
            trace_every: self.trace,
            seed: self.seed,
            ..LoadPlan::new(mix)
        };
        plan.check()?;
        Ok(plan)
    }
}

/// Refuses a debug build, whose figures would be believed by somebody.
///
/// # Errors
/// When this is one and it is not allowed.
pub fn check_build(allow_debug: bool) -> Result<(), Error> {
    if cfg!(debug_assertions) && !allow_debug {
        let why = "this is a debug build: measure with `cargo run --release`, or mark the figures with --allow-debug";
        return Err(Error::Usage(why.into()));
    }
    Ok(())
}

/// Does what `load` says.
///
/// # Errors
/// When the store cannot be reached, or this machine refuses something.
pub fn run(args: &LoadArgs) -> Result<LoadReport, Error> {
    check_build(args.allow_debug)?;
    let plan = args.plan()?;
    let popularity: Popularity = args.books.parse().map_err(|why| Error::Usage(format!("--books: {why}")))?;
    let target = Target::find(&args.target)?;
    let books = read_books(&target, &popularity, args.stock, args.seed)?;
    // An address that was given by hand says nothing of where the servers run.
    let dir = if args.target.front.is_empty() { Some(args.target.dir()?) } else { None };
    let local = dir.and_then(|dir| costs::local(&args.program.find(), &dir));
    let mut watch = (Progress::new(args.quiet), Meter::new(&target, local.as_ref()));
    let started = Run::begin("load", format!("{} over {popularity}", plan.mix));
    let record = plan.run_watched(&books, &target.front_addresses()?, &mut watch)?;
    let (progress, meter) = watch;
    drop(progress);
    let report = LoadReport { costs: Some(meter.costs()), ..LoadReport::new(&plan, &popularity, books.len(), &record) };
    if let Some(out) = &args.out {
        keep::save(out, started, &report, &record)?;
    }
    Ok(report)
}
