//! The command line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pygmy_sim::minimize::minimize;
use pygmy_sim::mistake::Mistake;
use pygmy_sim::rare::Rare;
use pygmy_sim::{Options, Outcome};

/// With this many seeds, every rare state must have been reached.
const SEEDS_FOR_ALL: u64 = 1_000;
/// Nothing bad was found, and that could not be printed.
const EXIT_OUTPUT: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "pygmy-sim", version, about = "Simulates whole clusters, each from one seed, and checks every step")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds until one fails. Exit code 0: none did; 1: one did, or a rare state was never reached; 2:
    /// usage, or the results could not be printed.
    Run(Run),
    /// List the mistakes that can be planted.
    Mistakes,
}

#[derive(Debug, Args)]
struct Run {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000, conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// This seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one line for each event; `node/sim/README.md` explains them.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Find out which of a failing seed's faults it needs to fail, and print these and the trace with them alone.
    #[arg(long, requires = "seed", conflicts_with = "trace")]
    minimize: bool,
    /// Plant a mistake that the checkers must find; `pygmy-sim mistakes` lists them.
    #[arg(long, value_name = "NAME", value_parser = parse_mistake)]
    mistake: Option<Mistake>,
    /// Go on after a seed that fails, and list all that do.
    #[arg(long, conflicts_with = "seed")]
    keep_going: bool,
    /// Seeds that run at the same time, each in one thread.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

fn parse_mistake(name: &str) -> Result<Mistake, String> {
    let mistake = Mistake::named(name).ok_or_else(|| "no such mistake: `pygmy-sim mistakes` lists them".to_owned())?;
    if mistake.is_inside() && !cfg!(feature = "mistakes") {
        return Err("mistakes of the ring and the roles need a build with `--features mistakes`".to_owned());
    }
    Ok(mistake)
}

/// Standard output. What becomes of it changes nothing about what is found.
#[derive(Debug, Default)]
struct Printer {
    trouble: Option<io::Error>,
}

impl Printer {
    fn line(&mut self, text: impl Display) {
        if self.trouble.is_none() {
            self.trouble = writeln!(io::stdout(), "{text}").err();
        }
    }

    /// The exit code, when `code` is that of what was found. Whoever closed a pipe has read enough; anything else is
    /// said, and is no success.
    fn end(self, code: ExitCode) -> ExitCode {
        match self.trouble {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                // When even standard error is closed, the exit code alone must tell.
                let _ = writeln!(io::stderr(), "pygmy-sim: cannot write standard output: {error}");
                if code == ExitCode::SUCCESS { ExitCode::from(EXIT_OUTPUT) } else { code }
            }
            _ => code,
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let mut out = Printer::default();
    let code = match Cli::parse().command {
        Command::Mistakes => {
            for mistake in Mistake::all() {
                out.line(mistake.name());
            }
            ExitCode::SUCCESS
        }
        Command::Run(run) => {
            // A panic inside a run is a finding and reported as one.
            std::panic::set_hook(Box::new(|_| {}));
            match run.seed {
                Some(seed) if run.minimize => minimize_one(seed, &run, &mut out),
                Some(seed) => run_one(seed, &run, &mut out),
                None => run_many(&run, &mut out),
            }
        }
    };
    out.end(code)
}

fn run_one(seed: u64, run: &Run, out: &mut Printer) -> ExitCode {
    let outcome = pygmy_sim::run(seed, &Options { mistake: run.mistake, print: run.trace });
    out.line(format_args!(
        "seed {seed}: {} events in {} simulated ms, trace hash {:016x}",
        outcome.events,
        outcome.at / 1_000_000,
        outcome.trace_hash
    ));
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(_) => {
            report(&outcome, out);
            ExitCode::FAILURE
        }
    }
}

fn minimize_one(seed: u64, run: &Run, out: &mut Printer) -> ExitCode {
    let options = Options { mistake: run.mistake, print: false };
    let Some(found) = minimize(seed, &options) else {
        out.line(format_args!("seed {seed} does not fail: there is nothing to minimize"));
        return ExitCode::SUCCESS;
    };
    let outcome = pygmy_sim::run_reduced(seed, &Options { print: true, ..options }, &found.reduction);
    let left = found.faults.len() + found.kinds.len();
    out.line(format_args!("{left} of {} faults are needed, as {} runs have shown:", found.before, found.runs));
    for fault in &found.faults {
        out.line(format_args!("{:>12.3} {:?}", fault.at as f64 / 1e6, fault.fault));
    }
    for kind in &found.kinds {
        out.line(format_args!("{:>12} {kind:?}", "at all times"));
    }
    report(&outcome, out);
    ExitCode::FAILURE
}

fn report(outcome: &Outcome, out: &mut Printer) {
    let Some(failure) = &outcome.failure else { return };
    for line in &failure.tail {
        out.line(line);
    }
    out.line(format_args!(
        "seed {} fails at {:.3} ms: {}: {}",
        outcome.seed,
        outcome.at as f64 / 1e6,
        failure.violation.invariant,
        failure.violation.detail
    ));
    out.line(format_args!("again: pygmy-sim run --seed {} --trace", outcome.seed));
}

/// One line of a list of seeds that fail.
fn list(outcome: &Outcome, out: &mut Printer) {
    if let Some(failure) = &outcome.failure {
        let detail = failure.violation.detail.lines().next().unwrap_or_default();
        out.line(format_args!("seed {}: {}: {detail}", outcome.seed, failure.violation.invariant));
    }
}

/// What all threads of a run share.
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    rare: Mutex<Rare>,
    /// Seeds that failed: the lowest is reported.
    failed: Mutex<BTreeMap<u64, Outcome>>,
    done: AtomicU64,
}

fn run_many(run: &Run, out: &mut Printer) -> ExitCode {
    let end = run.from.saturating_add(run.seeds);
    let shared = Shared {
        next: AtomicU64::new(run.from),
        stop: AtomicBool::new(false),
        rare: Mutex::default(),
        failed: Mutex::default(),
        done: AtomicU64::new(0),
    };
    let bar = progress(run.seeds);
    let started = Instant::now();
    let threads = run.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(run, end, &shared, &bar));
        }
    });
    bar.finish_and_clear();
    let done = shared.done.load(Ordering::Relaxed);
    let seconds = started.elapsed().as_secs_f64();
    let rate = done as f64 / seconds.max(1e-9);
    out.line(format_args!("seeds {}..{end}: {done} run, {rate:.1} seeds per second", run.from));
    let failed = shared.failed.into_inner().unwrap_or_default();
    if let Some(outcome) = failed.values().next() {
        report(outcome, out);
        if run.keep_going {
            failed.values().for_each(|outcome| list(outcome, out));
        }
        return ExitCode::FAILURE;
    }
    let rare = shared.rare.into_inner().unwrap_or_default();
    out.line(rare_table(&rare));
    let missing: Vec<&str> = rare.rows().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    if run.seeds >= SEEDS_FOR_ALL && !missing.is_empty() {
        out.line(format_args!("never reached: {}: these seeds prove nothing about it", missing.join(", ")));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(run: &Run, end: u64, shared: &Shared, bar: &ProgressBar) {
    while !shared.stop.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = pygmy_sim::run(seed, &Options { mistake: run.mistake, print: false });
        shared.done.fetch_add(1, Ordering::Relaxed);
        bar.inc(1);
        if let Ok(mut rare) = shared.rare.lock() {
            rare.add(&outcome.rare);
        }
        if outcome.failure.is_some() {
            shared.stop.store(!run.keep_going, Ordering::Relaxed);
            if let Ok(mut failed) = shared.failed.lock() {
                failed.insert(seed, outcome);
            }
        }
    }
}

fn progress(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    let bar = ProgressBar::new(seeds);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn rare_table(rare: &Rare) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(["reached", "times"]);
    for (name, count) in rare.rows() {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    table
}
