//! `pygmy-perf failover`: how long the store stands still when servers fail under load.

mod stream;

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pygmy_proto::ErrorCode;
use pygmy_proto::message::{Epoch, ReplicaStatus, Role, Status, StatusOk};
use rustix::process::Signal;
use serde::Serialize;

use crate::ask::Asker;
use crate::error::Error;
use crate::local::{self, Local, ProgramArgs};
use crate::net::{Engine, Plan};
use crate::shelf;
use crate::span::{self, Clock};
use crate::target::{Server, Target, TargetArgs};
use stream::{Seen, Stream};

/// Connections over which is bought.
const LANES: usize = 16;
/// Commits are watched for so long after somebody was killed, which is noticed at once.
const WATCH_KILLED: Duration = Duration::from_millis(1_500);
/// The same for one that was paused, which takes heartbeats to notice.
const WATCH_PAUSED: Duration = Duration::from_secs(4);
/// Quiet time between two faults, once everybody is well.
const REST: Duration = Duration::from_millis(1_500);
/// Time for everybody to be well.
const HEALTH_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A replica that is so many positions behind another is still catching up.
const BEHIND_MAX: u64 = 2_000;
/// Rounds of the other kind, for each wanted one, before it is given up: whoever is killed may have the token or not.
const MISSES_MAX: usize = 6;

/// What fails.
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
}

impl FaultKind {
    fn roles(self) -> &'static [Role] {
        match self {
            FaultKind::KillOrder => &[Role::Order],
            FaultKind::KillCatalogAndOrder => &[Role::Catalog, Role::Order],
            FaultKind::KillCatalog | FaultKind::KillHolder | FaultKind::StopHolder => &[Role::Catalog],
        }
    }

    fn signal(self) -> Signal {
        if self == FaultKind::StopHolder { Signal::STOP } else { Signal::KILL }
    }

    fn watch(self) -> Duration {
        if self == FaultKind::StopHolder { WATCH_PAUSED } else { WATCH_KILLED }
    }

    /// Whether a round counts in which the token was lost, or was not.
    fn counts(self, token_lost: bool) -> bool {
        match self {
            FaultKind::KillCatalog => !token_lost,
            FaultKind::KillHolder | FaultKind::StopHolder => token_lost,
            FaultKind::KillOrder | FaultKind::KillCatalogAndOrder => true,
        }
    }
}

/// Kills or pauses servers of a running local cluster under a fixed rate of buys, one fault after the other, and shows
/// the longest time without a commit around each
#[derive(Debug, Clone, clap::Args)]
pub struct FailoverArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    program: ProgramArgs,
    /// What fails
    #[arg(long, value_enum)]
    fault: FaultKind,
    /// Faults that count
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Buys a second, in all
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
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

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Who failed.
    pub nodes: Vec<String>,
    /// Longest time without a commit that reaches behind the fault, in milliseconds.
    pub gap_ms: f64,
    /// The same in the time just before, for comparison.
    pub before_ms: f64,
    /// Whether the token was lost: there is a new epoch.
    pub token_lost: bool,
    /// Whether it is of the kind that was asked for.
    pub counts: bool,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailoverReport {
    /// What failed.
    pub fault: FaultKind,
    /// Whether this program was built without optimisation.
    pub debug_build: bool,
    /// Buys a second.
    pub rate: f64,
    /// Faults that count.
    pub rounds: usize,
    /// The median of their gaps, in milliseconds.
    pub median_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// The longest gap just before any of them: what this machine does by itself.
    pub before_max_ms: f64,
    /// Buys sent.
    pub sent: u64,
    /// Of these, answered otherwise or lost.
    pub failed: u64,
    /// Buys that could not even be sent.
    pub unsent: u64,
    /// Every fault, those that do not count included.
    pub failures: Vec<Failure>,
}

impl FailoverReport {
    fn new(args: &FailoverArgs, failures: Vec<Failure>, seen: &Seen) -> Self {
        let mut gaps: Vec<f64> = failures.iter().filter(|one| one.counts).map(|one| one.gap_ms).collect();
        gaps.sort_unstable_by(f64::total_cmp);
        Self {
            fault: args.fault,
            debug_build: cfg!(debug_assertions),
            rate: args.rate,
            rounds: gaps.len(),
            median_ms: gaps.get(gaps.len() / 2).copied().unwrap_or_default(),
            max_ms: gaps.last().copied().unwrap_or_default(),
            before_max_ms: failures.iter().map(|one| one.before_ms).fold(0.0, f64::max),
            sent: seen.sent,
            failed: seen.failed,
            unsent: seen.unsent,
            failures,
        }
    }

    /// For a person.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { rounds, median_ms, max_ms, before_max_ms, rate, sent, failed, unsent, .. } = self;
        let fault = self.fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        writeln!(out, "{fault}, {rate} buys/s: longest time without a commit over {rounds} faults")?;
        writeln!(out, "  median {median_ms:.1} ms, max {max_ms:.1} ms (before them: max {before_max_ms:.1} ms)")?;
        writeln!(out, "  {sent} buys sent, {failed} failed, {unsent} could not be sent")?;
        for failure in &self.failures {
            let Failure { nodes, gap_ms, before_ms, token_lost, counts } = failure;
            let token = if *token_lost { "token lost" } else { "token kept" };
            let note = if *counts { "" } else { ", does not count" };
            writeln!(out, "  {:<22} {gap_ms:>8.1} ms (before {before_ms:.1} ms), {token}{note}", nodes.join(" "))?;
        }
        if self.debug_build { writeln!(out, "  a debug build: these are no figures") } else { Ok(()) }
    }
}

/// Does what `failover` says.
///
/// # Errors
/// When the cluster cannot be reached, or does not recover.
pub fn run(args: &FailoverArgs) -> Result<FailoverReport, Error> {
    if args.rounds == 0 || !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(Error::Usage("give a rate above 0 and at least one round".into()));
    }
    let dir = args.target.dir()?;
    let local = Local::new(args.program.find(), dir);
    let target = local.target()?;
    let shelf = shelf::read(&mut Asker::connect(target.fronts()[0])?, 0)?;
    let books = shelf.books.iter().map(|book| book.id).collect();
    let (seen, is_over, clock) = (Mutex::new(Seen::default()), AtomicBool::new(false), Clock::start());
    let plan = Plan { addresses: target.front_addresses()?, count: LANES, first: 0 };
    let failures = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut engine = Engine::new(clock, plan).map_err(Error::io("a poll"))?;
            let mut stream = Stream::new(args.rate, LANES, books, &seen, &is_over);
            engine.run(&mut stream).map_err(Error::io("the event loop"))
        });
        let failures = Faults { args, local: &local, target: &target, seen: &seen, clock, turn: 0 }.run();
        is_over.store(true, Ordering::Relaxed);
        let panicked = || Error::Usage("a thread of this program panicked: please report it".into());
        stream.join().map_err(|_| panicked())??;
        failures
    })?;
    let seen = seen.into_inner().map_err(|_| poisoned())?;
    Ok(FailoverReport::new(args, failures, &seen))
}

fn poisoned() -> Error {
    Error::Usage("a thread of this program panicked: please report it".into())
}

/// Does one fault after the other.
struct Faults<'a> {
    args: &'a FailoverArgs,
    local: &'a Local,
    target: &'a Target,
    seen: &'a Mutex<Seen>,
    clock: Clock,
    /// Rounds so far: servers of a role take turns.
    turn: usize,
}

impl Faults<'_> {
    fn run(&mut self) -> Result<Vec<Failure>, Error> {
        let mut failures: Vec<Failure> = Vec::new();
        while failures.iter().filter(|failure| failure.counts).count() < self.args.rounds {
            if failures.len() > self.args.rounds * MISSES_MAX {
                break;
            }
            failures.push(self.round()?);
        }
        Ok(failures)
    }

    fn round(&mut self) -> Result<Failure, Error> {
        self.wait_health()?;
        self.stock_up()?;
        sleep(REST);
        let epoch = self.epoch(&[]);
        let victims = self.victims()?;
        // Looked up before: nothing must lie between the two kills of one fault.
        let pids: Vec<_> = victims.iter().map(|victim| self.local.pid(victim)).collect::<Result<_, _>>()?;
        let at_ns = self.clock.now_ns();
        for (victim, pid) in victims.iter().zip(pids) {
            local::send(victim, pid, self.args.fault.signal())?;
        }
        let watched = self.watch(at_ns);
        // Before anybody is brought back: a return must not be taken for the fault's own doing.
        let token_lost = self.epoch(&victims) != epoch;
        for victim in &victims {
            match self.args.fault.signal() {
                Signal::STOP => self.local.signal(victim, Signal::CONT)?,
                _ => self.local.start(victim)?,
            }
        }
        let (gap_ms, before_ms) = watched?;
        let counts = self.args.fault.counts(token_lost);
        Ok(Failure { nodes: victims, gap_ms, before_ms, token_lost, counts })
    }

    /// Waits until commits have gone on for a while; the longest gap behind the fault, and the one before.
    fn watch(&self, at_ns: u64) -> Result<(f64, f64), Error> {
        let commits = |from_ns: u64| -> Result<Vec<u64>, Error> {
            let seen = self.seen.lock().map_err(|_| poisoned())?;
            let first = seen.commits_ns.partition_point(|at| *at < from_ns);
            Ok(seen.commits_ns[first..].to_vec())
        };
        let watch = self.args.fault.watch();
        sleep(watch);
        let late = Instant::now() + HEALTH_WITHIN;
        while commits(at_ns + span::ns(watch))?.is_empty() {
            if Instant::now() > late {
                let why = "nothing was committed any more after a fault";
                return Err(Error::Io { what: "failover".into(), error: io::Error::other(why) });
            }
            sleep(LOOK_EVERY);
        }
        let all = commits(at_ns.saturating_sub(span::ns(REST)))?;
        Ok(longest_gaps(&all, at_ns))
    }

    /// Servers of each role that fails, in turn; of catalogs, for a fault of the holder, the one that has the token.
    fn victims(&mut self) -> Result<Vec<String>, Error> {
        let wants_holder = matches!(self.args.fault, FaultKind::KillHolder | FaultKind::StopHolder);
        let holder = if wants_holder { self.holder()? } else { None };
        let turn = self.turn;
        self.turn += 1;
        let victim = |role: &Role| {
            let servers: Vec<&Server> = self.target.servers.iter().filter(|server| server.role == *role).collect();
            let chosen = holder.and_then(|number| servers.iter().find(|server| server.number == number));
            let none = || Error::Usage(format!("the cluster has no {} server", role.name()));
            let in_turn = || servers.get(turn % servers.len().max(1));
            Ok(chosen.or_else(in_turn).ok_or_else(none)?.name.clone())
        };
        self.args.fault.roles().iter().map(victim).collect()
    }

    fn statuses(&self) -> Result<Vec<StatusOk>, Error> {
        self.target.servers.iter().map(|server| Asker::connect(server)?.ask(&Status {})).collect()
    }

    fn replicas(&self) -> Result<Vec<ReplicaStatus>, Error> {
        Ok(self.statuses()?.into_iter().filter_map(|status| status.replica).collect())
    }

    /// The highest epoch that anybody but the victims is in.
    fn epoch(&self, victims: &[String]) -> Option<Epoch> {
        let others = self.target.servers.iter().filter(|server| !victims.contains(&server.name));
        let status = |server: &Server| Asker::connect(server)?.ask::<_, StatusOk>(&Status {});
        others.filter_map(|server| status(server).ok()?.replica).map(|replica| replica.epoch).max()
    }

    fn holder(&self) -> Result<Option<u16>, Error> {
        let latest = self.replicas()?.into_iter().max_by_key(|replica| (replica.epoch, replica.hop));
        Ok(latest.map(|replica| replica.holder).filter(|holder| *holder != 0))
    }

    /// Waits until every server answers, has all its links, and no replica is behind.
    fn wait_health(&self) -> Result<(), Error> {
        let late = Instant::now() + HEALTH_WITHIN;
        loop {
            let statuses = self.statuses();
            if statuses.as_ref().is_ok_and(|statuses| is_well(statuses)) {
                return Ok(());
            }
            if Instant::now() > late {
                let why = format!("the cluster is not well within {HEALTH_WITHIN:?}: {statuses:?}");
                return Err(Error::Io { what: "failover".into(), error: io::Error::other(why) });
            }
            sleep(LOOK_EVERY);
        }
    }

    /// A load that buys must not become one of refusals.
    fn stock_up(&self) -> Result<(), Error> {
        let late = Instant::now() + HEALTH_WITHIN;
        loop {
            match self.restock() {
                // The epoch may have changed since everybody was well.
                Err(Error::Refused { error, .. })
                    if error.known_code() == Some(ErrorCode::Busy) && Instant::now() < late =>
                {
                    sleep(LOOK_EVERY);
                }
                done => return done,
            }
        }
    }

    fn restock(&self) -> Result<(), Error> {
        let mut asker = Asker::connect(self.target.fronts()[0])?;
        let books = shelf::read(&mut asker, 0)?.books;
        shelf::restock(&mut asker, &books, 1_000_000)
    }
}

fn is_well(statuses: &[StatusOk]) -> bool {
    let replicas: Vec<&ReplicaStatus> = statuses.iter().filter_map(|status| status.replica.as_ref()).collect();
    let applied = |replica: &&ReplicaStatus| replica.applied;
    let (low, high) = (replicas.iter().map(applied).min(), replicas.iter().map(applied).max());
    let is_linked = statuses.iter().all(|status| status.links.iter().all(|link| link.up));
    let is_one = replicas.windows(2).all(|pair| pair[0].epoch == pair[1].epoch);
    let can_order = replicas.iter().all(|replica| replica.voter && replica.holder != 0);
    is_linked && is_one && can_order && high.zip(low).is_some_and(|(high, low)| high - low <= BEHIND_MAX)
}

/// The longest distance, in milliseconds, between two commits of which the later lies behind `at_ns`, and the longest
/// before it.
fn longest_gaps(commits_ns: &[u64], at_ns: u64) -> (f64, f64) {
    let (mut behind, mut before) = (0, 0);
    for pair in commits_ns.windows(2) {
        let longest = if pair[1] >= at_ns { &mut behind } else { &mut before };
        *longest = (pair[1] - pair[0]).max(*longest);
    }
    (behind as f64 / 1e6, before as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_fault_that_it_reaches_behind() {
        let ms = |at: u64| at * 1_000_000;
        let commits: Vec<u64> = [0, 5, 6, 7, 27, 28, 38].map(ms).into();
        assert_eq!(longest_gaps(&commits, ms(8)), (20.0, 5.0));
        assert_eq!(longest_gaps(&commits, ms(28)), (10.0, 20.0));
        assert_eq!(longest_gaps(&commits, ms(0)), (20.0, 0.0));
        assert_eq!(longest_gaps(&[], 0), (0.0, 0.0));
    }

    #[test]
    fn only_rounds_of_the_kind_asked_for_count() {
        assert!(FaultKind::KillCatalog.counts(false) && !FaultKind::KillCatalog.counts(true));
        assert!(FaultKind::KillHolder.counts(true) && !FaultKind::StopHolder.counts(false));
        assert!(FaultKind::KillOrder.counts(false) && FaultKind::KillCatalogAndOrder.counts(true));
    }
}
