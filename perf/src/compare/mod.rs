//! `pygmy-perf compare`: Pygmy beside what somebody might take instead, on one machine and in one run.
//!
//! Systems take turns: each is started in an empty directory, filled with the same books, asked, ended, and its files
//! removed, before the next one is started; then all over again, as often as `--repeat` says. Two that are compared were
//! measured within a minute of each other, and a ratio is taken within each round. The idle ones are not merely stopped:
//! a stopped server keeps its memory and its dirty pages, which the kernel writes out in somebody else's turn, and wakes
//! to peers that have given it up; and a store that has been bought from for ten minutes is not the one of the first round.

mod account;
mod cpu;
mod etcd;
mod lanes;
mod peer;
mod postgres;
mod pygmy;
mod redis;
mod report;
mod sandbox;
mod shelf;
mod tally;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::etcd::Etcd;
use self::peer::{Group, Missing, Peer, Spans};
use self::postgres::Postgres;
use self::pygmy::Pygmy;
use self::redis::Redis;
use self::report::Sample;
use self::sandbox::Sandbox;
use self::shelf::Shelf;
use crate::error::Error;
use crate::idle::allow_descriptors;
use crate::load::check_build;
use crate::local::ProgramArgs;
use crate::run::Run;
use crate::span;

pub use self::report::Comparison;

/// Descriptors for the most connections that a workload makes.
const DESCRIPTORS: u64 = 1_024;

/// A system that Pygmy can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerName {
    /// A primary and two replicas, appendfsync always, WAIT 2
    Redis,
    /// Three members
    Etcd,
    /// A primary with one synchronous standby, and with two of which one must follow
    Postgres,
}

impl PeerName {
    /// The ways of setting it up that are compared.
    fn find(self) -> Result<Vec<Box<dyn Peer>>, Missing> {
        match self {
            Self::Redis => Ok(vec![Box::new(Redis::find()?)]),
            Self::Etcd => Ok(vec![Box::new(Etcd::find()?)]),
            Self::Postgres => Ok(Postgres::find()?.map(|postgres| Box::new(postgres) as Box<dyn Peer>).into()),
        }
    }
}

/// Measures Pygmy beside other systems.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// The other systems; those that are not installed are left out
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis,etcd,postgres")]
    peers: Vec<PeerName>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "lookups,buys,one,flash")]
    only: Vec<Group>,
    /// Rounds, in each of which every system has its turn
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// How long each workload is measured
    #[arg(long, default_value = "5s", value_parser = span::parse)]
    duration: Duration,
    /// How long it is loaded before that
    #[arg(long, default_value = "1s", value_parser = span::parse)]
    warmup: Duration,
    /// Books in every store
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    books: u32,
    /// Where the systems keep their files, on a disk; all of it is removed [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    program: ProgramArgs,
    /// Keep what was found in this directory, for `report`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run although this is a debug build, and mark the figures
    #[arg(long)]
    pub allow_debug: bool,
}

impl CompareArgs {
    fn check(&self) -> Result<(), Error> {
        if self.repeat == 0 || self.duration.is_zero() {
            return Err(Error::Usage("--repeat and --duration must be more than nothing".into()));
        }
        Ok(())
    }

    fn spans(&self) -> Spans {
        Spans { warmup: self.warmup, duration: self.duration }
    }

    /// Pygmy and those of the others that are installed; and why the rest is left out.
    fn systems(&self) -> (Vec<Box<dyn Peer>>, Vec<String>) {
        let mut systems: Vec<Box<dyn Peer>> = vec![Box::new(Pygmy::new(self.program.find()))];
        let mut skipped = Vec::new();
        for name in &self.peers {
            match name.find() {
                Ok(found) => systems.extend(found),
                Err(missing) => skipped.push(format!("skipped: {missing}")),
            }
        }
        (systems, skipped)
    }
}

/// Does what `compare` says.
///
/// # Errors
/// When a system does not start or stops answering, or this machine refuses something.
pub fn run(args: &CompareArgs) -> Result<Comparison, Error> {
    check_build(args.allow_debug)?;
    args.check()?;
    allow_descriptors(DESCRIPTORS)?;
    let (systems, skipped) = args.systems();
    skipped.iter().for_each(|line| eprintln!("pygmy-perf: {line}"));
    let title = systems.iter().map(|system| system.name()).collect::<Vec<_>>().join(", ");
    let run = Run::begin("compare", title);
    let sandbox = Sandbox::new(args.dir.as_deref())?;
    let (mut samples, mut failed) = (Vec::new(), Vec::new());
    for round in 0..args.repeat {
        for group in &args.only {
            for (number, system) in systems.iter().enumerate() {
                // One turn that fails is told and does not cost the others, which may have taken an hour.
                if let Err(error) = turn(args, &sandbox, (round, *group), (number, system.as_ref()), &mut samples) {
                    let what = format!("round {}, {}, {}: {error}", round + 1, system.name(), group.name());
                    eprintln!("pygmy-perf: {what}");
                    failed.push(what);
                }
            }
        }
    }
    drop(sandbox);
    let comparison = Comparison::new(run, &systems, skipped, failed, &samples);
    if let Some(dir) = &args.out {
        comparison.run.save(dir)?;
    }
    Ok(comparison)
}

/// One turn of a system: all workloads of a group.
fn turn(
    args: &CompareArgs,
    sandbox: &Sandbox,
    (round, group): (usize, Group),
    (system, peer): (usize, &dyn Peer),
    samples: &mut Vec<Sample>,
) -> Result<(), Error> {
    let shapes = peer.shapes(group);
    if shapes.is_empty() {
        return Ok(());
    }
    let place = sandbox.place(peer.name())?;
    let mut standing = peer.start(&place, &Shelf { count: args.books })?;
    for shape in shapes {
        let (server_s, client_s, began) = (place.cpu_s(), cpu::of_this_process(), Instant::now());
        let measured = standing.load(&place, &shape, args.spans())?;
        let wall_s = began.elapsed().as_secs_f64();
        let cores = |before: f64, after: f64| (after - before).max(0.0) / wall_s;
        let server_cores = cores(server_s, place.cpu_s());
        let client_cores = cores(client_s, cpu::of_this_process());
        let sample = Sample { round, system, shape, measured, server_cores, client_cores };
        eprintln!("round {} of {}: {} {}", round + 1, args.repeat, peer.name(), sample.line());
        samples.push(sample);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_says_all_that_it_promises() {
        let all = [
            pygmy::GUARANTEES,
            redis::GUARANTEES,
            etcd::GUARANTEES,
            postgres::GUARANTEES_ONE,
            postgres::GUARANTEES_ANY,
        ];
        for guarantees in all {
            for (head, text) in guarantees.rows() {
                assert!(text.len() > 20, "{head}: {text:?}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_told_with_the_command_that_installs_it() {
        let missing = Missing { program: "etcd", packages: "etcd-server" }.to_string();
        assert!(
            missing.contains("etcd is not installed") && missing.contains("apt-get install etcd-server"),
            "{missing}"
        );
    }
}
