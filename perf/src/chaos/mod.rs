//! `pygmy-perf chaos`: a cluster of its own, many clients, and servers that are killed and paused all the while; then
//! everything that was told is held against what every replica has.

mod faults;
mod shopper;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use pygmy_proto::BookId;
use serde::Serialize;

pub use faults::{Fault, What};

use crate::error::Error;
use crate::history::check::Violation;
use crate::history::file::Writer;
use crate::history::judge::Judgement;
use crate::history::{History, Operation};
use crate::local::{Local, ProgramArgs, Running};
use crate::replicas;
use crate::span::{self, Clock};
use crate::target::Target;
use faults::Monkey;
use shopper::{Errand, Shopper};

/// Time to settle what is unknown once everybody is back.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// Starts a cluster, shops in it while its servers are killed, paused and started again, and judges what came of it
#[derive(Debug, Clone, clap::Args)]
pub struct ChaosArgs {
    #[command(flatten)]
    program: ProgramArgs,
    /// How long servers are killed and paused
    #[arg(long, default_value = "60s", value_parser = span::parse)]
    duration: Duration,
    /// Clients, each a thread with one call at a time
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    clients: u16,
    /// What faults and carts are drawn from [default: a random one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Rounds, each with a cluster of its own and the next seed; the first that fails is the last
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Directory for each round's history.jsonl, verdict.json and faults.jsonl, and for the servers' files of a round
    /// that failed [default: a new one among the temporary files]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print a verdict a line as JSON
    #[arg(long)]
    pub json: bool,
}

/// What one round came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    /// What it was drawn from.
    pub seed: u64,
    /// Where its files are.
    pub dir: PathBuf,
    /// How often each thing was done to a server.
    pub faults: BTreeMap<What, u64>,
    /// Seconds of damage.
    pub damage_s: f64,
    /// What the checkers say.
    #[serde(flatten)]
    pub judgement: Judgement,
}

impl Round {
    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let count = |what| self.faults.get(&what).copied().unwrap_or_default();
        let (kills, pauses) = (count(What::Kill), count(What::Pause));
        writeln!(out, "seed {}: {kills} kills and {pauses} pauses in {:.0} s", self.seed, self.damage_s)?;
        self.judgement.print(out)?;
        writeln!(out, "history and verdict: {}", self.dir.display())
    }
}

/// Does what `chaos` says, telling of each round as it ends; whether all were good.
///
/// # Errors
/// When a round could not be done at all.
pub fn run(args: &ChaosArgs, mut tell: impl FnMut(&Round) -> Result<(), Error>) -> Result<bool, Error> {
    let first = args.seed.unwrap_or_else(any_seed);
    let out = args.out.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("pygmy-chaos-{first}")));
    for seed in first..first + args.rounds {
        // Said before anything can go wrong.
        let _ = writeln!(io::stderr(), "round with --seed {seed}");
        let round = round(args, seed, &out.join(format!("seed-{seed}")))?;
        tell(&round)?;
        if !round.judgement.ok {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One that was hardly drawn before.
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs()) % 1_000_000_000
}

fn round(args: &ChaosArgs, seed: u64, dir: &Path) -> Result<Round, Error> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
    let local = Running(Local::new(args.program.find(), dir.join("cluster")));
    local.0.up()?;
    let target = local.0.target()?;
    let (initial, after) = replicas::read_initial(&target)?;
    let mut writer = Writer::new(create(dir, "history.jsonl")?).map_err(Error::io("history.jsonl"))?;
    writer.initial(&initial).map_err(Error::io("history.jsonl"))?;
    let mut history = History { initial, ..History::default() };
    let (faults, open) = shop(args, seed, &local.0, &target, &mut history, &mut writer)?;
    write_lines(dir, "faults.jsonl", &faults)?;
    history.replicas = replicas::look(&target, after, &history.operations)?;
    history.replicas.iter().try_for_each(|view| writer.replica(view)).map_err(Error::io("history.jsonl"))?;
    writer.finish().map_err(Error::io("history.jsonl"))?;
    let open = (open > 0).then(|| Violation::NotFinished { why: format!("{open} writes could not be settled") });
    let judgement = Judgement::with(&history, open.into_iter().collect());
    let mut counts = BTreeMap::new();
    faults.iter().for_each(|fault| *counts.entry(fault.what).or_default() += 1);
    let damage_s = args.duration.as_secs_f64();
    let round = Round { seed, dir: dir.to_path_buf(), faults: counts, damage_s, judgement };
    write_lines(dir, "verdict.json", std::slice::from_ref(&round))?;
    let is_ok = round.judgement.ok;
    drop(local);
    if is_ok {
        let cluster = dir.join("cluster");
        std::fs::remove_dir_all(&cluster).map_err(Error::io(cluster.display().to_string()))?;
    }
    Ok(round)
}

/// Shops while the monkey is at work, and until all is settled; what it did, and how many writes stayed open.
fn shop(
    args: &ChaosArgs,
    seed: u64,
    local: &Local,
    target: &Target,
    history: &mut History,
    writer: &mut Writer<BufWriter<File>>,
) -> Result<(Vec<Fault>, usize), Error> {
    let clock = Clock::start();
    let books: Vec<BookId> = history.initial.keys().copied().collect();
    let fronts: Vec<String> = target.fronts().iter().map(|front| front.address.clone()).collect();
    let is_over = AtomicBool::new(false);
    let (told, heard) = channel();
    let mut monkey = Monkey::new(local, target.servers.clone(), seed, clock);
    let (damage, open) = std::thread::scope(|scope| {
        let errand = |client: usize| {
            let mut fronts = fronts.clone();
            let turn = client % fronts.len();
            fronts.rotate_left(turn);
            let (books, is_over, told) = (&books[..], &is_over, told.clone());
            Errand { client, seed, fronts, books, clock, is_over, settle_within: SETTLE_WITHIN, told }
        };
        let shoppers: Vec<_> = (0..usize::from(args.clients))
            .map(|client| {
                let errand = errand(client);
                scope.spawn(move || Shopper::new(errand).run())
            })
            .collect();
        drop(told);
        let recorder = scope.spawn(|| record(heard, &mut history.operations, writer));
        let damage = monkey.run(args.duration);
        is_over.store(true, Ordering::Relaxed);
        let panicked = || Error::Usage("a thread of this program panicked: please report it".into());
        let open = shoppers.into_iter().map(|shopper| shopper.join().map_err(|_| panicked())).sum();
        let recorded = recorder.join().map_err(|_| panicked()).and_then(|recorded| recorded);
        (damage, recorded.and(open))
    });
    damage?;
    Ok((monkey.take_faults(), open?))
}

/// Keeps everything that is told, on disk as it comes.
fn record(
    heard: Receiver<Operation>,
    operations: &mut Vec<Operation>,
    writer: &mut Writer<BufWriter<File>>,
) -> Result<(), Error> {
    for operation in heard {
        writer.operation(&operation).map_err(Error::io("history.jsonl"))?;
        operations.push(operation);
    }
    Ok(())
}

fn create(dir: &Path, name: &str) -> Result<BufWriter<File>, Error> {
    File::create(dir.join(name)).map(BufWriter::new).map_err(Error::io(name))
}

fn write_lines(dir: &Path, name: &str, lines: &[impl Serialize]) -> Result<(), Error> {
    let mut out = create(dir, name)?;
    let line = |line: &_| serde_json::to_writer(&mut out, line).map_err(io::Error::from).and_then(|()| writeln!(out));
    lines.iter().try_for_each(line).and_then(|()| out.flush()).map_err(Error::io(name))
}
