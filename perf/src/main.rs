//! `pygmy-perf`: loads a cluster, audits it, measures it.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(feature = "peers")]
use pygmy_perf::compare;
use pygmy_perf::error::Error;
use pygmy_perf::history::judge;
use pygmy_perf::{audit, cache, chaos, consistency, failover, idle, load, report, scale, sweep};

/// Measures and audits a Pygmy cluster
///
/// Exit codes: 0 done, 1 refused or a promise was found broken, 2 usage, 3 unreachable.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Requests at a given rate or depth: throughput, and latencies in full
    Load(load::LoadArgs),
    /// Buys as fast as it can, then checks every promise against every replica
    Audit(audit::AuditArgs),
    /// Kills and pauses the servers of a cluster of its own under load, then checks every promise
    Chaos(chaos::ChaosArgs),
    /// Judges a history kept by an audit or a chaos run, or any other in that format
    Check(judge::CheckArgs),
    /// How long a local cluster stands still when its servers are killed or paused, or come back
    Failover(failover::FailoverArgs),
    /// What a front end's cache is worth: hits, and lookups with it, without it, and right behind a change
    Cache(cache::CacheArgs),
    /// How far behind the answers of one front end are while books are bought through another
    Consistency(consistency::ConsistencyArgs),
    /// Latency over rate, and the highest rate at which it stays within a bound
    Sweep(sweep::SweepArgs),
    /// What clusters do with more catalogs, connections, books, or larger commands
    Scale(scale::ScaleArgs),
    /// Pygmy beside Redis, etcd and PostgreSQL: the same lookups and buys, in turn on this machine
    #[cfg(feature = "peers")]
    Compare(compare::CompareArgs),
    /// Holds connections that say nothing, and shows what they cost
    IdleConnections(idle::IdleArgs),
    /// Draws runs that were kept: one page with every picture and number, and ratios to a baseline
    Report(report::ReportArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // When even standard error is closed, the exit code alone must tell.
            let _ = writeln!(io::stderr(), "pygmy-perf: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Error> {
    match &cli.command {
        Command::Load(args) => {
            let report = load::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(if report.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Audit(args) => {
            let verdict = audit::run(args)?;
            show(args.json, &verdict, |out| verdict.print(out))?;
            Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Chaos(args) => {
            let is_ok = chaos::run(args, |round| show(args.json, round, |out| round.print(out)))?;
            Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Check(args) => {
            let judgement = judge::run(args)?;
            show(args.json, &judgement, |out| judgement.print(out))?;
            Ok(if judgement.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Failover(args) => {
            let report = failover::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(if report.is_good(args) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Cache(args) => {
            let report = cache::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Consistency(args) => {
            let report = consistency::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Sweep(args) => {
            let report = sweep::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(if report.knee_per_s.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Scale(args) => {
            let report = scale::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(ExitCode::SUCCESS)
        }
        #[cfg(feature = "peers")]
        Command::Compare(args) => {
            let comparison = compare::run(args)?;
            show(args.json, &comparison, |out| comparison.print(out))?;
            Ok(if comparison.is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::IdleConnections(args) => {
            let report = idle::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report(args) => {
            let report = report::run(args)?;
            show(args.json, &report, |out| report.print(out))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints a report in one form or the other. A reader that has gone away is not an error.
fn show<T: serde::Serialize>(
    json: bool,
    report: &T,
    print: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>,
) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = if json {
        serde_json::to_writer(&mut out, report).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        print(&mut out)
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output")(error)),
        _ => Ok(()),
    }
}
